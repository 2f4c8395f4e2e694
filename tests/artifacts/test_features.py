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
    shapes = {"numbers": (2,), "codes": ()}
    parts = ColumnParts(tmp_path, 5, 2, shapes)
    assert parts.missing == [0, 1, 2]
    columns = {"numbers": np.arange(4.0).reshape(2, 2), "codes": np.array([3, 7], dtype=np.uint8)}
    parts.write(0, columns)
    parts.write(1, columns)
    with pytest.raises(ArtifactError, match="expected"):
        parts.write(2, columns)
    parts.write(2, {"numbers": np.ones((1, 2)), "codes": np.array([1], dtype=np.uint8)})
    found = parts.read()
    assert found["codes"].tolist() == [3, 7, 3, 7, 1]
    assert found["codes"].dtype == np.uint8
    np.testing.assert_array_equal(found["numbers"], [[0, 1], [2, 3], [0, 1], [2, 3], [1, 1]])
    (tmp_path / "00000002-00000004.npz").write_bytes(b"cut")
    again = ColumnParts(tmp_path, 5, 2, shapes)
    assert again.missing == [1]
    assert again.missing_rows.tolist() == [2, 3]
    with pytest.raises(ArtifactError, match="can't be read any more"):
        again.read()
    assert ColumnParts(tmp_path, 5, 2, {"numbers": (3,), "codes": ()}).missing == [0, 1, 2]


def test_a_part_of_another_dtype_is_told_and_texts_are_none(tmp_path: Path) -> None:
    parts = ColumnParts(tmp_path, 2, 1, {"numbers": ()})
    parts.write(0, {"numbers": np.zeros(1, dtype=np.float32)})
    parts.write(1, {"numbers": np.zeros(1)})
    with pytest.raises(ArtifactError, match="numbers is float64, expected float32"):
        parts.read()
    parts.write(1, {"numbers": np.array(["word"])})
    assert ColumnParts(tmp_path, 2, 1, {"numbers": ()}).missing == [1]


def test_a_part_of_as_many_other_rows_is_not_taken(tmp_path: Path) -> None:
    """Left by a roarline that cut otherwise: rows 4 and 5 are the second part of 4, and the third of 2."""
    before = ColumnParts(tmp_path, 6, 4, {"numbers": ()})
    before.write(1, {"numbers": np.array([4.0, 5.0])})
    assert ColumnParts(tmp_path, 6, 2, {"numbers": ()}).missing == [0, 1]
