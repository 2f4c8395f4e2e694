"""Run lengths say what a mask is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from roarline.artifacts.runs import CoveredMasks, from_run_lengths, run_lengths


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=9)))
def test_there_and_back(mask: np.ndarray) -> None:
    runs = run_lengths(mask)
    assert runs.sum() == mask.size
    assert (runs[1:] > 0).all()
    assert np.array_equal(from_run_lengths(runs, mask.shape), mask)


@pytest.mark.parametrize(("mask", "runs"), [("0011", [2, 2]), ("1000", [0, 1, 3]), ("0000", [4]), ("1111", [0, 4])])
def test_the_first_run_is_of_zeros(mask: str, runs: list[int]) -> None:
    assert run_lengths(np.asarray([list(mask)]) == "1").tolist() == runs


@given(st.lists(arrays(bool, (2, 3)), max_size=4))
def test_ends_say_where_each_masks_runs_stop(masks: list[np.ndarray]) -> None:
    covered = CoveredMasks()
    for row, mask in enumerate(masks):
        covered.add(row, row + 1, mask)
    columns = covered.columns()
    assert bool(columns) == bool(masks)
    if masks:
        found = np.split(columns["covered_runs"], columns["covered_ends"][:-1])
        assert [from_run_lengths(runs, (2, 3)).tolist() for runs in found] == [mask.tolist() for mask in masks]
        assert columns["covered"].tolist() == [[row, row + 1] for row in range(len(masks))]
