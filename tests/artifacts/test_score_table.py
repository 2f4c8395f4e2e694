"""scores.parquet as arrays: order, failures, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from roarline.artifacts.score_table import read_scores
from roarline.artifacts.tables import write_parquet
from roarline.errors import ArtifactError

Row = tuple[str, int, str, str, float | None, str]
ROWS: list[Row] = [
    ("b", 0, "morf", "", 0.25, "ok"),
    ("a", 2, "morf", "", 0.5, "ok"),
    ("a", 1, "morf", "", None, "broke"),
    ("a", 1, "lerf", "", 3.0, "ok"),
    ("a", 2, "lerf", "", 4.0, "ok"),
    ("b", 0, "lerf", "", 5.0, "ok"),
]


def write(path: Path, rows: list[Row]) -> Path:
    names = ("sample_id", "target", "metric", "setting", "value", "status")
    columns: dict[str, Any] = {name: [row[index] for row in rows] for index, name in enumerate(names)}
    write_parquet(path, columns)
    return path


def test_rows_are_sorted_by_sample_and_target_whatever_their_order(tmp_path: Path) -> None:
    for rows in (ROWS, ROWS[::-1]):
        table = read_scores(write(tmp_path / "scores.parquet", rows))
        assert list(zip(table.sample_ids, table.targets.tolist(), strict=True)) == [("a", 1), ("a", 2), ("b", 0)]
        np.testing.assert_array_equal(table.columns["morf", ""].values, [np.nan, 0.5, 0.25])
        assert table.columns["morf", ""].reasons == {"broke": 1}
        np.testing.assert_array_equal(table.columns["lerf", ""].values, [3.0, 4.0, 5.0])
        assert not table.columns["lerf", ""].reasons


def test_columns_keep_the_files_order(tmp_path: Path) -> None:
    rows: list[Row] = [("a", 0, "srg", setting, 1.0, "ok") for setting in ("y", "x")] + [
        ("a", 0, "morf", "", 1.0, "ok")
    ]
    assert list(read_scores(write(tmp_path / "s.parquet", rows)).columns) == [("srg", "y"), ("srg", "x"), ("morf", "")]


def test_a_file_in_which_every_row_failed_is_read(tmp_path: Path) -> None:
    rows: list[Row] = [("a", 0, "morf", "", None, "broke"), ("b", 0, "morf", "", None, "broke")]
    table = read_scores(write(tmp_path / "s.parquet", rows))
    assert np.isnan(table.columns["morf", ""].values).all()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([*ROWS, ROWS[0]], "rows twice"),
        (ROWS[1:], "other rows than the first"),
        ([*ROWS[:5], ("b", 0, "lerf", "", None, "ok")], "sample 'b'.* is ok and has no value"),
        ([*ROWS[:5], ("b", 0, "lerf", "", float("nan"), "ok")], "is ok and has no value"),
    ],
)
def test_rows_that_do_not_fit_are_refused(tmp_path: Path, rows: list[Row], message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        read_scores(write(tmp_path / "scores.parquet", rows))


def test_a_damaged_file_and_a_missing_column_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "scores.parquet"
    path.write_bytes(b"PAR1 and then nothing")
    with pytest.raises(ArtifactError, match="damaged"):
        read_scores(path)
    write_parquet(path, {"sample_id": ["a"], "target": [0]})
    with pytest.raises(ArtifactError, match="metric"):
        read_scores(path)
