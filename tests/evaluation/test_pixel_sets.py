"""Random pixel sets, sensitivity-n and faithfulness correlation: linear networks, SciPy, Quantus and its defects."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr
from torch import Tensor

from roarline.evaluation.outcomes import OUTCOMES
from roarline.evaluation.pixel_sets import draw_pixel_sets, relevance_of, set_correlation
from tests.evaluation.tiny_net import tiny_net
from tests.golden_cases import case


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def statuses(outcomes: Tensor) -> list[str]:
    return [OUTCOMES[number] for number in outcomes.tolist()]


@given(st.integers(0, 2**40), st.integers(1, 9), st.integers(1, 9), st.data())
def test_sets_have_their_sizes_and_lie_within_each_other(
    seed: int, height: int, width: int, data: st.DataObject
) -> None:
    pixels = height * width
    sizes = sorted(data.draw(st.lists(st.integers(1, pixels), min_size=1, max_size=3)))
    masks = draw_pixel_sets(seeded(seed), 4, sizes, height, width).reshape(4, len(sizes), pixels)
    assert masks.sum(dim=2).tolist() == [sizes] * 4
    for smaller in range(len(sizes) - 1):
        assert (masks[:, smaller] <= masks[:, smaller + 1]).all()
    again = draw_pixel_sets(seeded(seed), 4, sizes, height, width).reshape(4, len(sizes), pixels)
    assert torch.equal(masks, again)


def test_every_set_is_as_likely_as_any_other() -> None:
    """Of 4 pixels there are 6 pairs; in 12,000 draws each is drawn 2,000 times, give or take 5 standard deviations."""
    draws = 12_000
    masks = draw_pixel_sets(seeded(3), draws, [2], 2, 2).reshape(draws, 4)
    _, counts = np.unique(masks.numpy(), axis=0, return_counts=True)
    assert len(counts) == 6
    assert np.abs(counts - draws / 6).max() < 5 * math.sqrt(draws / 6 * 5 / 6)


@pytest.mark.parametrize("size", [1, 5, 40, 63])
def test_a_linear_network_s_input_times_gradient_has_sensitivity_n_of_one(size: int) -> None:
    """Removing a set from w · x + b costs the sum of w · x over the set, for each n: Ancona et al., proposition 1."""
    image, weights = torch.randn(2, 3, 8, 8, generator=seeded(0), dtype=torch.float64)
    masks = draw_pixel_sets(seeded(1), 20, [size], 8, 8)
    map_HW = (image * weights).sum(dim=0)
    before = (image * weights).sum() + 0.3
    after = torch.stack([(image.masked_fill(mask, 0.0) * weights).sum() + 0.3 for mask in masks])
    relevance = relevance_of(masks, map_HW)
    for sign in (1, -1):
        found = set_correlation(sign * relevance[None], before[None], after[None])
        assert found.values.item() == pytest.approx(sign, abs=1e-9)


@settings(max_examples=30)
@given(st.integers(0, 2**20), st.floats(0.01, 100), st.floats(-3, 3))
def test_as_scipy_and_blind_to_scale_and_offset(seed: int, scale: float, offset: float) -> None:
    relevance, after = torch.randn(2, 4, 30, generator=seeded(seed), dtype=torch.float64)
    before = torch.randn(4, generator=seeded(seed + 1), dtype=torch.float64)
    found = set_correlation(relevance, before, after)
    assert statuses(found.outcomes) == ["ok"] * 4
    expected = [pearsonr(x, b - y).statistic for x, b, y in zip(relevance, before, after, strict=True)]
    np.testing.assert_allclose(found.values, expected, atol=1e-10)
    moved = set_correlation(scale * relevance + offset, before, after)
    np.testing.assert_allclose(moved.values, found.values, atol=1e-8)


def test_rows_without_variance_have_a_status_and_no_number() -> None:
    masks = draw_pixel_sets(seeded(0), 10, [7], 5, 5)
    varied = torch.randn(10, generator=seeded(1), dtype=torch.float64)
    signed = torch.randn(5, 5, generator=seeded(2))
    maps = [torch.full((5, 5), 0.1), torch.zeros(5, 5), signed, signed, signed]
    after = torch.stack(
        [varied, varied, torch.full_like(varied, 0.7), varied.index_fill(0, torch.tensor(3), math.nan), varied]
    )
    relevance = torch.stack([relevance_of(masks, map_HW) for map_HW in maps])
    found = set_correlation(relevance, torch.full((5,), 0.7), after)
    assert statuses(found.outcomes) == [
        "the map's relevance is the same for every pixel set",
        "the map's relevance is the same for every pixel set",
        "the classifier's output is the same for every pixel set",
        "the classifier's output is NaN or infinite",
        "ok",
    ]
    assert torch.isnan(found.values).tolist() == [True, True, True, True, False]


def test_scores_that_differ_by_rounding_are_the_same() -> None:
    """A softmax that is sure of itself gives 1 - 6e-8 or 1, whatever is removed."""
    after = torch.tensor([[1.0, 1 - 2**-24, 1.0, 1 - 2**-24]])
    found = set_correlation(torch.arange(4.0)[None], torch.ones(1), after)
    assert statuses(found.outcomes) == ["the classifier's output is the same for every pixel set"]


def quantus_sums_and_drops(variant: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What Quantus' SensitivityN collects: sums and drops [steps, images] as the most relevant features go one by one.

    As its golden case says: maps are copied to the channels, 16 features a step, features become the image's minimum.
    """
    arrays, params = case("q_faithfulness")
    step, model = params[f"sensitivityn_{variant}"]["features_in_step"], tiny_net(arrays)
    images, targets = torch.from_numpy(arrays["in_x"]), torch.from_numpy(arrays["in_y"])
    maps = np.broadcast_to(arrays["in_a"], images.shape).reshape(len(images), -1)
    if variant == "normabs":
        maps = np.abs(maps / np.abs(maps).max())  # of the whole batch
    order = np.argsort(-maps, axis=1)
    expected = arrays[f"out_sensitivityn_{variant}"]
    current, sums, drops = images.flatten(1).numpy().copy(), [], []

    def probabilities(pixels: np.ndarray) -> np.ndarray:
        output = model(torch.from_numpy(pixels).reshape(images.shape)).softmax(dim=1)
        return output.gather(1, targets[:, None])[:, 0].numpy()

    before = probabilities(current)
    for first in range(0, step * len(expected), step):
        chosen = order[:, first : first + step]
        np.put_along_axis(current, chosen, current.min(axis=1, keepdims=True), axis=1)
        sums.append(np.take_along_axis(maps, chosen, axis=1).sum(axis=1))
        drops.append(before - probabilities(current))
    return np.stack(sums), np.stack(drops), expected


@pytest.mark.parametrize("variant", ["raw", "normabs"])
def test_quantus_defect_sensitivity_n_correlates_images_and_not_sets(variant: str) -> None:
    """peers.md: as published, sets are random and the correlation is within an image, for all images.

    Quantus takes ever more of the most relevant features instead, and correlates over the images of the first batch;
    the number itself is then the same Pearson correlation as here.
    """
    sums, drops, expected = quantus_sums_and_drops(variant)
    found = set_correlation(torch.from_numpy(sums), torch.zeros(len(sums)), -torch.from_numpy(drops))
    # float32 passes, in another order of convolutions; drops of 0.05 and more.
    np.testing.assert_allclose(found.values, expected, atol=1e-3)
    assert sums.shape[1] == len(case("q_faithfulness")[0]["in_x"])
