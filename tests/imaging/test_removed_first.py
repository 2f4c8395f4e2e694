"""Ranks of images from which pixels are gone already."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from roarline.imaging.ranking import rank_pixels
from roarline.imaging.removal import removal_mask
from roarline.imaging.removed_first import removed_first


def drawn(seed: int, gone: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ranks of two maps with ties, and masks of ``gone`` pixels."""
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randint(0, 6, (2, 4, 5), generator=generator).float()
    ranks = rank_pixels(maps, [seed, seed + 1])
    removed = rank_pixels(torch.rand(2, 4, 5, generator=generator), [1, 2]) < gone
    return ranks, removed


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 999), gone=st.integers(0, 20))
def test_what_is_gone_comes_first_and_the_order_within_both_groups_stays(seed, gone):
    ranks, removed = drawn(seed, gone)
    new = removed_first(ranks, removed)
    assert new.dtype == ranks.dtype
    for row in range(2):
        pixels = ranks[row].flatten().argsort().tolist()
        flags = removed[row].flatten().tolist()
        expected = [p for p in pixels if flags[p]] + [p for p in pixels if not flags[p]]
        assert new[row].flatten().argsort().tolist() == expected


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 999), gone=st.integers(0, 20), more=st.integers(0, 20))
def test_removal_is_nested_and_of_the_exact_count(seed, gone, more):
    ranks, removed = drawn(seed, gone)
    count = min(20, gone + more)
    after = removal_mask(removed_first(ranks, removed), count)
    assert after.flatten(1).sum(1).tolist() == [count, count]
    assert bool((after | ~removed).all())


def test_small_integer_ranks_keep_their_type():
    ranks = torch.arange(36, dtype=torch.uint8).reshape(1, 6, 6)
    removed = torch.zeros(1, 6, 6, dtype=torch.bool)
    removed[0, 5, 5] = True
    new = removed_first(ranks, removed)
    assert new.dtype == torch.uint8
    assert int(new[0, 5, 5]) == 0
    assert int(new[0, 0, 0]) == 1
