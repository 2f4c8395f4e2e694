"""Ranks of regions: means decide, every pixel of a region goes at once, ties are drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from roarline.imaging.ranking import rank_pixels
from roarline.imaging.region_ranks import rank_regions
from roarline.imaging.superpixels import patches


def test_the_region_with_the_largest_mean_goes_first_whatever_its_size() -> None:
    labels = torch.tensor([[[0, 0, 0, 1], [2, 2, 2, 2]]])
    maps = torch.tensor([[[3.0, 3.0, 3.0, 4.0], [9.0, -9.0, 0.0, 1.0]]])  # sums 9, 4, 1; means 3, 4, 0.25
    found = rank_regions(maps, labels, 3, [0])
    assert found.ranks_BHW.tolist() == [[[1, 1, 1, 0], [2, 2, 2, 2]]]
    assert found.regions_B.tolist() == [3]


def test_patches_of_one_pixel_are_pixels() -> None:
    maps = torch.randn(3, 6, 7, generator=torch.Generator().manual_seed(0))
    found = rank_regions(maps, patches(6, 7, 1), 42, [1, 2, 3])
    assert torch.equal(found.ranks_BHW, rank_pixels(maps, [1, 2, 3]))


def test_rows_may_have_different_numbers_of_regions() -> None:
    """All means are negative: regions that a row doesn't have must not come before those that it has."""
    labels = torch.tensor([[[0, 1, 2, 3]], [[0, 0, 1, 1]]])
    found = rank_regions(torch.tensor([[[-4.0, -3.0, -2.0, -1.0]], [[-5.0, -5.0, -6.0, -6.0]]]), labels, 4, [0, 1])
    assert found.ranks_BHW.tolist() == [[[3, 2, 1, 0]], [[0, 0, 1, 1]]]
    assert found.regions_B.tolist() == [4, 2]


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 14), st.integers(0, 99))
def test_every_rank_has_one_region_and_every_region_one_rank(height: int, width: int, side: int, seed: int) -> None:
    labels = patches(height, width, side)
    count = int(labels.max()) + 1
    maps = torch.from_numpy(np.random.default_rng(seed).integers(-2, 3, (2, height, width)).astype(np.float32))
    found = rank_regions(maps, labels, count, [seed, seed + 1])
    for row in found.ranks_BHW:
        pairs = set(zip(labels.flatten().tolist(), row.flatten().tolist(), strict=True))
        assert sorted(rank for _, rank in pairs) == list(range(count))


def test_a_row_depends_neither_on_the_batch_nor_on_its_place() -> None:
    maps = torch.zeros(4, 8, 8)  # ties everywhere: the order is the seed's
    together = rank_regions(maps, patches(8, 8, 2), 16, [5, 6, 7, 8]).ranks_BHW
    assert len({tuple(row.flatten().tolist()) for row in together}) == 4
    for row, seed in enumerate([5, 6, 7, 8]):
        assert torch.equal(rank_regions(maps[:1], patches(8, 8, 2), 16, [seed]).ranks_BHW[0], together[row])


@pytest.mark.parametrize(("side", "count"), [(3, 12), (8, 2), (100, 1)])
def test_patches_at_the_border_are_cut_off(side: int, count: int) -> None:
    labels = patches(8, 11, side)
    assert labels.shape == (1, 8, 11)
    assert sorted(set(labels.flatten().tolist())) == list(range(count))
    assert (labels[0, : min(side, 8), : min(side, 11)] == 0).all()
