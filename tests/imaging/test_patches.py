"""Patches of a grid, and what is taken away at random."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from roarline.imaging.patches import patch_index, patch_sums
from roarline.imaging.random_masks import random_patch, random_pixels


@settings(deadline=None, max_examples=40)
@given(height=st.integers(1, 30), width=st.integers(1, 30), grid=st.integers(1, 9))
def test_patches_are_rectangles_of_nearly_equal_sides(height, width, grid):
    if grid > min(height, width):
        with pytest.raises(ValueError, match="shorter side"):
            patch_index(height, width, grid)
        return
    index = patch_index(height, width, grid)
    sides = {(height // grid, -(-height // grid)), (width // grid, -(-width // grid))}
    assert index.unique().tolist() == list(range(grid**2))
    for patch in range(grid**2):
        rows, columns = torch.nonzero(index == patch, as_tuple=True)
        tall, wide = int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1
        assert tall * wide == len(rows)
        assert any(low <= tall <= high for low, high in sides)
        assert any(low <= wide <= high for low, high in sides)


def test_sums_of_even_patches_are_those_of_average_pooling():
    maps = torch.randn(3, 12, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pooled = torch.nn.functional.avg_pool2d(maps[:, None], (3, 2))[:, 0].flatten(1) * 6
    torch.testing.assert_close(patch_sums(maps, 4), pooled)


def test_sums_of_uneven_patches_add_up_to_the_whole():
    maps = torch.randn(2, 7, 11, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(patch_sums(maps, 3).sum(1), maps.double().sum((1, 2)))


def test_random_pixels_are_never_more_than_asked_and_uniform_in_number_and_place():
    rows, most = 6000, 0.25
    gone = random_pixels(rows, 4, 5, most, torch.Generator().manual_seed(3)).masks(torch.arange(rows))
    counts = gone.flatten(1).sum(1)
    assert int(counts.max()) == 5  # 0.25 · 20
    # 6 equally likely counts: 1,000 each, standard deviation sqrt(6000 · 1/6 · 5/6) = 29; five of them are 145
    assert (torch.bincount(counts, minlength=6) - 1000).abs().max() < 145


def test_random_pixels_lie_anywhere_over_many_batches():
    seeds = range(400)
    batches = [random_pixels(8, 4, 5, 0.5, torch.Generator().manual_seed(seed)) for seed in seeds]
    gone = torch.cat([gaps.masks(torch.arange(8)) for gaps in batches])
    # a pixel goes with probability mean(0 … 10) / 20 = 1/4. Rows of a batch share an order, which can't make 400
    # batches less certain than 400 rows: standard deviation at most sqrt(3/16 / 400) = 0.022
    assert (gone.float().mean(0) - 0.25).abs().max() < 5 * 0.022


def test_a_random_patch_is_one_of_the_grid_or_nothing():
    gone = random_patch(4000, 6, 6, 3, 0.5, torch.Generator().manual_seed(0)).masks(torch.arange(4000))
    index = patch_index(6, 6, 3)
    counts = gone.flatten(1).sum(1)
    assert counts.unique().tolist() == [0, 4]
    assert abs(float((counts > 0).float().mean()) - 0.5) < 5 * (0.25 / 4000) ** 0.5
    chosen = [index[row].unique().tolist() for row in gone[counts > 0]]
    assert all(len(patches) == 1 for patches in chosen)
    assert {patches[0] for patches in chosen} == set(range(9))
    assert not random_patch(50, 6, 6, 3, 0.0, torch.Generator()).masks(torch.arange(50)).any()


def test_an_image_has_the_same_gaps_in_whatever_batch():
    for gaps in (
        random_pixels(9, 4, 5, 0.5, torch.Generator().manual_seed(0)),
        random_patch(9, 4, 5, 2, 0.5, torch.Generator().manual_seed(0)),
    ):
        every = gaps.masks(torch.arange(9))
        assert torch.equal(gaps.masks(torch.tensor([7, 2])), every[[7, 2]])
