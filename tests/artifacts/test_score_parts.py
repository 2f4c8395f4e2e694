"""Parts of scores under way: what counts as whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from roarline.artifacts.score_parts import RowValues, ScoreParts
from roarline.errors import ArtifactError


def values(rows: int, columns: int = 0) -> RowValues:
    rng = np.random.default_rng(rows)
    outcomes = rng.integers(0, 9, (rows, columns), dtype=np.uint8)
    return RowValues(rng.random((2, rows, 3)).astype(np.float32), rng.random((rows, columns)), outcomes)


def test_parts_join_in_order_and_are_found_again(tmp_path: Path) -> None:
    parts = ScoreParts(tmp_path, rows=7, part_rows=3, altered=3, columns=2)
    assert [(span.start, span.stop) for span in parts.spans] == [(0, 3), (3, 6), (6, 7)]
    whole = values(7, columns=2)

    def part(index: int) -> RowValues:
        span = parts.spans[index]
        return RowValues(whole.outputs[:, span], whole.values[span], whole.outcomes[span])

    for index in (2, 0):
        parts.write(index, part(index))
    again = ScoreParts(tmp_path, rows=7, part_rows=3, altered=3, columns=2)
    assert again.missing == [1]
    assert again.missing_rows.tolist() == [3, 4, 5]
    assert again.rows_present == 4
    again.write(1, part(1))
    np.testing.assert_array_equal(again.read().outputs, whole.outputs)
    np.testing.assert_array_equal(again.read().values, whole.values)
    np.testing.assert_array_equal(again.read().outcomes, whole.outcomes)
    assert again.read().outcomes.dtype == np.uint8


def test_every_damaged_or_foreign_part_is_missing(tmp_path: Path) -> None:
    parts = ScoreParts(tmp_path, rows=3, part_rows=3, altered=3)
    parts.write(0, values(3))
    (path,) = tmp_path.iterdir()
    good = path.read_bytes()
    for place in range(0, len(good), 17):  # a flipped bit anywhere in the data, or a cut
        path.write_bytes(good[:place])
        assert ScoreParts(tmp_path, rows=3, part_rows=3, altered=3).missing == [0]
    start = good.index(values(3).outputs.tobytes())
    path.write_bytes(good[: start + 5] + bytes([good[start + 5] ^ 4]) + good[start + 6 :])
    assert ScoreParts(tmp_path, rows=3, part_rows=3, altered=3).missing == [0]
    path.write_bytes(good)
    assert ScoreParts(tmp_path, rows=3, part_rows=3, altered=3).missing == []
    assert ScoreParts(tmp_path, rows=3, part_rows=3, altered=4).missing == [0]
    assert ScoreParts(tmp_path, rows=3, part_rows=3, altered=3, columns=1).missing == [0]


def test_a_part_of_another_shape_is_refused_and_a_vanished_one_is_named(tmp_path: Path) -> None:
    parts = ScoreParts(tmp_path, rows=4, part_rows=3, altered=3)
    with pytest.raises(ArtifactError, match="expected"):
        parts.write(1, values(3))
    with pytest.raises(ArtifactError, match="expected"):
        parts.write(0, values(3, columns=1))
    parts.write(0, values(3))
    with pytest.raises(ArtifactError, match=r"00000003-00000004\.npz"):
        parts.read()


def test_a_part_of_as_many_other_rows_is_not_taken(tmp_path: Path) -> None:
    """Left by a roarline that cut otherwise: rows 4 and 5 are the second part of 4, and the third of 2."""
    ScoreParts(tmp_path, rows=6, part_rows=4, altered=3).write(1, values(2))
    assert ScoreParts(tmp_path, rows=6, part_rows=2, altered=3).missing == [0, 1]


def test_no_rows_are_no_parts(tmp_path: Path) -> None:
    parts = ScoreParts(tmp_path, rows=0, part_rows=3, altered=5)
    assert parts.missing == []
    assert parts.missing_rows.shape == (0,)
    assert parts.read().outputs.shape == (2, 0, 5)
    assert parts.read().values.shape == (0, 0)
