"""Ranks: exact counts, ties without a preferred side, independence of the batch."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from roarline.errors import MethodError
from roarline.imaging.ranking import rank_pixels, removal_count
from roarline.imaging.removal import removal_mask
from roarline.seeds import derive_seed

SMALL_MAPS = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=7),
    elements=st.floats(-8, 8, width=32),
)


def seeds_for(rows: int) -> list[int]:
    return [derive_seed(0, "ties", f"sample-{row}") for row in range(rows)]


@given(st.integers(1, 10**6), st.data())
def test_removal_count_of_k_out_of_n_is_k(pixels: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, pixels))
    assert removal_count(count / pixels, pixels) == count


@given(st.decimals(0, 1, places=4), st.integers(0, 10**6))
def test_removal_count_of_a_decimal_is_the_floor_of_exact_arithmetic(fraction: object, pixels: int) -> None:
    assert removal_count(float(str(fraction)), pixels) == math.floor(Fraction(str(fraction)) * pixels)


def test_removal_count_survives_float_error() -> None:
    assert 0.1 * 3 * 10 != 3  # what floats say
    assert removal_count(0.3, 10) == 3
    assert removal_count(0.1 + 0.2, 10) == 3
    assert removal_count(0.1 * 0.1 * 0.1, 1000) == 1
    assert removal_count(1 - 0.9, 10) == 1  # 0.09999999999999998


def test_removal_count_at_both_ends() -> None:
    assert removal_count(0.0, 50176) == 0
    assert removal_count(1.0, 50176) == 50176
    assert removal_count(0.0099, 100) == 0


@pytest.mark.parametrize("fraction", [-0.1, 1.1, math.nan])
def test_removal_count_refuses_what_is_no_fraction(fraction: float) -> None:
    with pytest.raises(ValueError, match="removed_fraction"):
        removal_count(fraction, 10)


@given(SMALL_MAPS, st.sampled_from(["random", "index"]))
def test_every_row_is_a_permutation_that_falls_with_the_value(maps: np.ndarray, ties: str) -> None:
    ranks = rank_pixels(torch.from_numpy(maps), seeds_for(len(maps)), ties=ties).numpy()
    for row_map, row_ranks in zip(maps.reshape(len(maps), -1), ranks.reshape(len(maps), -1), strict=True):
        assert sorted(row_ranks) == list(range(row_map.size))
        in_order = row_map[np.argsort(row_ranks)]
        assert (np.diff(in_order) <= 0).all()


@given(SMALL_MAPS)
def test_strictly_rising_maps_of_values_leave_ranks_unchanged(maps: np.ndarray) -> None:
    # Quantised so that the monotone maps below are exactly strictly rising in float32; ties stay ties.
    maps = np.round(maps * 4) / 4
    seeds = seeds_for(len(maps))
    ranks = rank_pixels(torch.from_numpy(maps), seeds)
    for monotone in (lambda v: 2 * v + 64, lambda v: v**3, np.exp):
        assert torch.equal(rank_pixels(torch.from_numpy(monotone(maps).astype(np.float32)), seeds), ranks)


@given(SMALL_MAPS, st.integers(0, 1000))
def test_ranks_depend_neither_on_batch_size_nor_on_place(maps: np.ndarray, order_seed: int) -> None:
    seeds = seeds_for(len(maps))
    together = rank_pixels(torch.from_numpy(maps), seeds)
    order = np.random.default_rng(order_seed).permutation(len(maps))
    shuffled = rank_pixels(torch.from_numpy(maps[order]), [seeds[i] for i in order])
    assert torch.equal(shuffled, together[torch.from_numpy(order)])
    for row in range(len(maps)):
        assert torch.equal(rank_pixels(torch.from_numpy(maps[row : row + 1]), seeds[row : row + 1])[0], together[row])


def test_ties_are_broken_by_the_seed() -> None:
    flat = torch.zeros(2, 16, 16)
    ranks = rank_pixels(flat, [1, 2])
    assert not torch.equal(ranks[0], ranks[1])
    assert torch.equal(ranks, rank_pixels(flat, [1, 2]))
    # Seeds that differ only above or only below the 32nd bit differ as well.
    for other in (1 + 2**32, 1 + 2**62, 3):
        assert not torch.equal(rank_pixels(flat[:1], [other])[0], ranks[0])


def test_minus_zero_ties_with_zero() -> None:
    signed = torch.zeros(1, 8, 8)
    signed[0, :4] = -0.0
    assert torch.equal(rank_pixels(signed, [5]), rank_pixels(torch.zeros(1, 8, 8), [5]))


def test_a_flat_map_loses_no_side_first() -> None:
    """Over n rows, the removed share of any fixed quarter of a flat map is 1/4 on average.

    For one row, how many of 64 removed pixels fall into a quarter of the 256 is hypergeometric with mean 16 and
    variance 64 · 1/4 · 3/4 · 192/255 ≈ 9.04; the mean over 400 rows has σ ≈ 0.1503. Eight comparisons (four sides, both
    ends) at 5 σ fail by chance with probability below 5e-6; the seeds are fixed anyway.
    """
    rows, side, removed = 400, 16, 64
    ranks = rank_pixels(torch.full((rows, side, side), 0.25), seeds_for(rows))
    variance = removed * 0.25 * 0.75 * (side * side - removed) / (side * side - 1)
    bound = 5 * math.sqrt(variance / rows)
    for order in ("most_relevant_first", "least_relevant_first"):
        gone = removal_mask(ranks, removed, order).float()
        for quarter in (gone[:, :4], gone[:, -4:], gone[:, :, :4], gone[:, :, -4:]):
            assert abs(quarter.sum(dim=(1, 2)).mean().item() - removed / 4) < bound


def test_tie_orders_of_neighbouring_seeds_and_pixels_are_uncorrelated() -> None:
    """Spearman correlations of independent orders of n pixels have σ = 1 / sqrt(n - 1)."""
    side = 64
    ranks = rank_pixels(torch.zeros(8, side, side), list(range(8))).reshape(8, -1).double()
    correlations = torch.corrcoef(ranks)[~torch.eye(8, dtype=torch.bool)]
    assert correlations.abs().max() < 5 / math.sqrt(side * side - 1)
    for row in ranks:
        assert abs(torch.corrcoef(torch.stack([row[:-1], row[1:]]))[0, 1]) < 5 / math.sqrt(side * side - 2)


def test_ties_by_index_read_an_ascending_stable_sort_from_its_end() -> None:
    maps = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    ascending = np.argsort(maps.numpy().ravel(), kind="stable")
    ranks = rank_pixels(maps, None, ties="index").numpy().ravel()
    assert list(np.argsort(ranks)) == list(ascending[::-1])


def test_float64_integers_and_half_precision_are_ranked() -> None:
    values = torch.arange(12).reshape(1, 3, 4)
    expected = (11 - values).to(torch.int32)
    for dtype in (torch.uint8, torch.int64, torch.float16, torch.bfloat16, torch.float64):
        assert torch.equal(rank_pixels(values.to(dtype), [0]), expected)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_map_that_is_not_finite_is_refused_by_its_number(bad: float) -> None:
    maps = torch.zeros(3, 2, 2)
    maps[1, 0, 1] = bad
    with pytest.raises(MethodError, match="map 1 of a batch of 3"):
        rank_pixels(maps, [0, 1, 2])


def test_missing_seeds_and_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="seeds"):
        rank_pixels(torch.zeros(2, 2, 2), [1])
    with pytest.raises(ValueError, match="seeds"):
        rank_pixels(torch.zeros(2, 2, 2), None)
    with pytest.raises(ValueError, match="expected"):
        rank_pixels(torch.zeros(2, 2), [1, 2])


def test_arguments_stay_unchanged() -> None:
    maps = torch.tensor([[[-0.0, 1.0], [2.0, -3.0]]])
    kept = maps.clone()
    rank_pixels(maps, [1])
    assert torch.equal(maps.view(torch.int32), kept.view(torch.int32))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_ranks_are_the_same_on_a_gpu() -> None:
    maps = torch.randn(5, 33, 17, generator=torch.Generator().manual_seed(0))
    maps[:, ::2] = maps[:, ::2].clamp_min(0)  # ties, as after a ReLU
    for ties in ("random", "index"):
        expected = rank_pixels(maps, seeds_for(5), ties=ties)
        assert torch.equal(rank_pixels(maps.cuda(), seeds_for(5), ties=ties).cpu(), expected)
