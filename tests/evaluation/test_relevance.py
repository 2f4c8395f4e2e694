"""Relevance mass, rank and top-k: Quantus, perfect masks, expectations, invariances, void pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from roarline.evaluation.relevance import positive_shares, relevance_mass, relevance_rank, topk_intersection
from tests.golden_cases import case

METRICS = (relevance_mass, relevance_rank, topk_intersection)


@pytest.fixture
def quantus() -> tuple[Tensor, Tensor, dict[str, np.ndarray]]:
    arrays, _ = case("q_localisation_complexity")
    return torch.from_numpy(arrays["in_a"])[:, 0], torch.from_numpy(arrays["in_s"])[:, 0].bool(), arrays


def some(seed: int) -> tuple[Tensor, Tensor]:
    """Signed maps and masks, [4, 8, 9]."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.rand(4, 8, 9, generator=generator) < 0.4
    masks[:, 2, 2] = True
    return torch.randn(4, 8, 9, generator=generator), masks


def test_mass_as_quantus_of_magnitudes(quantus: tuple[Tensor, Tensor, dict[str, np.ndarray]]) -> None:
    maps, masks, arrays = quantus
    # Quantus sums float32 magnitudes that it has divided by their maximum.
    for name in ("relevancemass", "attributionlocalisation"):
        np.testing.assert_allclose(relevance_mass(maps.abs(), masks), arrays[f"out_{name}_normabs"], rtol=1e-5)


def test_mass_of_signed_maps_is_that_of_their_positive_values_as_quantus_can_have_it(
    quantus: tuple[Tensor, Tensor, dict[str, np.ndarray]],
) -> None:
    maps, masks, arrays = quantus
    expected = arrays["out_attributionlocalisation_positive_raw"]  # positive_attributions=True, summed in float32
    np.testing.assert_allclose(relevance_mass(maps, masks), expected, rtol=1e-5)


def test_quantus_defect_a_share_of_signed_sums_leaves_zero_to_one(
    quantus: tuple[Tensor, Tensor, dict[str, np.ndarray]],
) -> None:
    maps, masks, arrays = quantus
    assert arrays["out_relevancemass_raw"].min() < 0
    mass = relevance_mass(maps, masks)
    assert ((mass >= 0) & (mass <= 1)).all()


@pytest.mark.parametrize("variant", ["raw", "normabs"])
def test_rank_and_topk_as_quantus(quantus: tuple[Tensor, Tensor, dict[str, np.ndarray]], variant: str) -> None:
    maps, masks, arrays = quantus
    maps = maps.abs() if variant == "normabs" else maps
    np.testing.assert_allclose(relevance_rank(maps, masks), arrays[f"out_relevancerank_{variant}"], rtol=1e-12)
    k = case("q_localisation_complexity")[1][f"topk_{variant}"]["k"]
    found = topk_intersection(maps, masks, fraction=k / maps[0].numel())
    np.testing.assert_allclose(found, arrays[f"out_topk_{variant}"], rtol=1e-12)


@given(st.integers(0, 2**20))
def test_perfect_mask_is_best(seed: int) -> None:
    _, masks = some(seed)
    perfect = masks.float()
    assert (relevance_mass(perfect, masks) == 1).all()
    assert (relevance_rank(perfect, masks) == 1).all()
    assert (topk_intersection(perfect, masks, fraction=1 / 72) == 1).all()


def test_an_object_smaller_than_k_bounds_topk() -> None:
    mask = torch.zeros(1, 10, 10, dtype=torch.bool)
    mask[0, 0, :2] = True
    assert topk_intersection(mask.float(), mask, fraction=0.08)[0] == 0.25


@pytest.mark.parametrize("value", [0.0, -1.0, 2.5])
def test_constant_maps_have_the_area_share(value: float) -> None:
    _, masks = some(3)
    for metric in METRICS:
        found = metric(torch.full(masks.shape, value), masks)
        torch.testing.assert_close(found, masks.double().mean(dim=(1, 2)))


def test_random_maps_have_the_area_share_on_average() -> None:
    mask = torch.zeros(12, 12, dtype=torch.bool)
    mask[2:8, 3:9] = True
    maps = torch.rand(3000, 12, 12, generator=torch.Generator().manual_seed(0))
    for metric in METRICS:
        found = metric(maps, mask.expand(3000, -1, -1))
        assert found.mean().item() == pytest.approx(0.25, abs=5 * found.std().item() / 3000**0.5)


@given(st.integers(0, 2**20), st.floats(0.1, 50))
def test_invariances(seed: int, scale: float) -> None:
    maps, masks = some(seed)
    torch.testing.assert_close(relevance_mass(maps * scale, masks), relevance_mass(maps, masks), rtol=1e-5, atol=1e-7)
    for metric in (relevance_rank, topk_intersection):
        torch.testing.assert_close(metric(maps.double().exp(), masks), metric(maps, masks))
    for metric in METRICS:
        torch.testing.assert_close(metric(maps.flip(1), masks.flip(1)), metric(maps, masks))
        torch.testing.assert_close(metric(maps[1:2], masks[1:2])[0], metric(maps, masks)[1])


@given(st.integers(0, 2**20))
def test_void_pixels_count_neither_way(seed: int) -> None:
    maps, masks = some(seed)
    valid = torch.rand(masks.shape, generator=torch.Generator().manual_seed(seed + 1)) < 0.8
    valid[:, 2, 2] = True
    other = torch.where(valid, maps, maps + 100)
    for metric in METRICS:
        found = metric(maps, masks, valid)
        torch.testing.assert_close(metric(other, masks, valid), found)
        torch.testing.assert_close(metric(maps, masks | ~valid, valid), found)


def test_without_an_object_there_is_no_value() -> None:
    maps, masks = some(0)
    for metric in METRICS:
        assert torch.isnan(metric(maps, torch.zeros_like(masks))).all()


def test_shares_add_up_to_one_for_huge_and_tiny_values() -> None:
    maps = torch.stack([torch.full((4, 4), 3e38), torch.full((4, 4), 1e-44), torch.zeros(4, 4)])
    torch.testing.assert_close(positive_shares(maps), torch.full((3, 4, 4), 1 / 16, dtype=torch.float64))
