"""Rows grouped by what they lack."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roarline.evaluation.presence import rows_by_presence


@given(st.integers(0, 2**32), st.integers(0, 6), st.integers(1, 20))
def test_every_row_is_in_the_group_of_its_pattern(seed: int, rows: int, values: int) -> None:
    present = np.random.default_rng(seed).random((rows, values)) < 0.7
    groups = rows_by_presence(present)
    assert sorted(row for _, found in groups for row in found) == list(range(rows))
    for pattern, found in groups:
        assert all(np.array_equal(present[row], pattern) for row in found)
    assert len({tuple(pattern) for pattern, _ in groups}) == len(groups)


@pytest.mark.parametrize("shape", [(3, 4), (0, 4)])
def test_nothing_missing_is_one_group(shape: tuple[int, int]) -> None:
    ((pattern, rows),) = rows_by_presence(np.ones(shape, dtype=bool))
    assert pattern.tolist() == [True] * 4
    assert rows.tolist() == list(range(shape[0]))
