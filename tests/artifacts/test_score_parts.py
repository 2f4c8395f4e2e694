"""Parts of scores under way: what counts as whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from roarline.artifacts.score_parts import ScoreParts
from roarline.errors import ArtifactError


def outputs(rows: int) -> np.ndarray:
    return np.random.default_rng(rows).random((2, rows, 3)).astype(np.float32)


def test_parts_join_in_order_and_are_found_again(tmp_path: Path) -> None:
    parts = ScoreParts(tmp_path, rows=7, part_rows=3, columns=3)
    assert [(span.start, span.stop) for span in parts.spans] == [(0, 3), (3, 6), (6, 7)]
    whole = outputs(7)
    for index in (2, 0):
        parts.write(index, whole[:, parts.spans[index]])
    again = ScoreParts(tmp_path, rows=7, part_rows=3, columns=3)
    assert again.missing == [1]
    assert again.missing_rows.tolist() == [3, 4, 5]
    assert again.rows_present == 4
    again.write(1, whole[:, 3:6])
    np.testing.assert_array_equal(again.read(), whole)


def test_every_damaged_or_foreign_part_is_missing(tmp_path: Path) -> None:
    parts = ScoreParts(tmp_path, rows=3, part_rows=3, columns=3)
    parts.write(0, outputs(3))
    (path,) = tmp_path.iterdir()
    good = path.read_bytes()
    for place in range(0, len(good), 17):  # a flipped bit anywhere in the data, or a cut
        path.write_bytes(good[:place])
        assert ScoreParts(tmp_path, rows=3, part_rows=3, columns=3).missing == [0]
    start = good.index(outputs(3).tobytes())
    path.write_bytes(good[: start + 5] + bytes([good[start + 5] ^ 4]) + good[start + 6 :])
    assert ScoreParts(tmp_path, rows=3, part_rows=3, columns=3).missing == [0]
    path.write_bytes(good)
    assert ScoreParts(tmp_path, rows=3, part_rows=3, columns=3).missing == []
    assert ScoreParts(tmp_path, rows=3, part_rows=3, columns=4).missing == [0]


def test_a_part_of_another_shape_is_refused_and_a_vanished_one_is_named(tmp_path: Path) -> None:
    parts = ScoreParts(tmp_path, rows=4, part_rows=3, columns=3)
    with pytest.raises(ArtifactError, match="expected"):
        parts.write(1, outputs(3))
    parts.write(0, outputs(3))
    with pytest.raises(ArtifactError, match=r"000001\.npz"):
        parts.read()


def test_no_rows_are_no_parts(tmp_path: Path) -> None:
    parts = ScoreParts(tmp_path, rows=0, part_rows=3, columns=5)
    assert parts.missing == []
    assert parts.missing_rows.shape == (0,)
    assert parts.read().shape == (2, 0, 5)
