"""features.h5 and parts of columns: round trips, order, damage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from roarline.artifacts.column_parts import ColumnParts
from roarline.artifacts.features import Features, read_features, write_features
from roarline.errors import ArtifactError


def test_features_come_back_by_sample_id_then_target(tmp_path: Path) -> None:
    values = np.array([[1.0, 2.0], [np.nan, np.nan], [5.0, 6.0]])
    features = Features(values, ["ok", "broke", "ok"], "best_threshold", "some", np.array([4, 5, 6]))
    write_features(tmp_path / "features.h5", ["b", "a", "a"], np.array([0, 2, 1]), {"metric": features})
    table = read_features(tmp_path / "features.h5")
    assert table.sample_ids == ["a", "a", "b"]
    assert table.targets.tolist() == [1, 2, 0]
    found = table.metrics["metric"]
    np.testing.assert_array_equal(found.values, values[[2, 1, 0]])
    assert found.statuses == ["ok", "broke", "ok"]
    assert (found.statistic, found.setting) == ("best_threshold", "some")
    assert found.groups is not None
    assert found.groups.tolist() == [6, 5, 4]


def test_wrong_lengths_and_damage_are_told(tmp_path: Path) -> None:
    path = tmp_path / "features.h5"
    with pytest.raises(ArtifactError, match="metric has 1 rows, expected 2"):
        write_features(path, ["a", "b"], np.zeros(2), {"metric": Features(np.zeros((1, 2)), ["ok"], "mean_value")})
    path.write_bytes(b"no HDF5")
    with pytest.raises(ArtifactError, match="damaged"):
        read_features(path)


def test_parts_resume_where_they_are_whole(tmp_path: Path) -> None:
    shapes = {"numbers": (2,), "words": ()}
    parts = ColumnParts(tmp_path, 5, 2, shapes)
    assert parts.missing == [0, 1, 2]
    columns = {"numbers": np.arange(4.0).reshape(2, 2), "words": np.array(["a", "longer"])}
    parts.write(0, columns)
    parts.write(1, columns)
    with pytest.raises(ArtifactError, match="expected"):
        parts.write(2, columns)
    parts.write(2, {"numbers": np.ones((1, 2)), "words": np.array(["ok"])})
    found = parts.read()
    assert found["words"].tolist() == ["a", "longer", "a", "longer", "ok"]
    (tmp_path / "000001.npz").write_bytes(b"cut")
    again = ColumnParts(tmp_path, 5, 2, shapes)
    assert again.missing == [1]
    assert again.missing_rows.tolist() == [2, 3]
    with pytest.raises(ArtifactError, match="can't be read any more"):
        again.read()
    assert ColumnParts(tmp_path, 5, 2, {"numbers": (3,), "words": ()}).missing == [0, 1, 2]
