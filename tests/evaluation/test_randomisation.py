"""What is left of a map: similarity of equal maps, chance, entropy; parity with Quantus's arrays."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import entropy

from roarline.evaluation.randomisation import (
    Planes,
    Reference,
    histogram_entropy,
    relative_rise,
)
from roarline.evaluation.similarity import spearman
from tests.golden_cases import case

EVERY = ["ssim", "spearman", "spearman_abs", "hog"]


def maps(rows: int = 4, side: int = 12, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(rows, side, side))).float()


def planes(values: torch.Tensor) -> Planes:
    return Planes.of(values, "signed")


def test_unchanged_maps_have_similarity_1_also_constant_ones() -> None:
    values = maps()
    values[1] = 0
    values[2] = -7
    found = Reference(planes(values), EVERY).similarity(planes(values.clone()))
    assert (found == 1).all()


def test_negated_maps_are_the_same_in_magnitude_and_opposite_in_sign() -> None:
    found = Reference(planes(maps()), ["spearman", "spearman_abs"]).similarity(planes(-maps()))
    assert found[:, 0].tolist() == pytest.approx([-1] * 4)
    assert found[:, 1].tolist() == pytest.approx([1] * 4)


def test_a_map_that_became_constant_shares_no_order_and_no_shape() -> None:
    found = Reference(planes(maps()), ["spearman", "spearman_abs", "hog"]).similarity(planes(torch.zeros(4, 12, 12)))
    assert (found == 0).all()


def test_ssim_and_hog_see_maps_as_they_are_ranked_and_spearman_as_they_came() -> None:
    signed, absolute = Planes.of(maps(), "absolute"), Planes.of(-maps(), "absolute")
    found = Reference(signed, EVERY).similarity(absolute)
    assert found[:, 0].tolist() == pytest.approx([1] * 4)
    assert found[:, 1].tolist() == pytest.approx([-1] * 4)
    assert found[:, 3].tolist() == pytest.approx([1] * 4)


def test_a_pixel_of_a_map_with_channels_counts_as_its_largest_one() -> None:
    values = torch.stack([maps(seed=1), maps(seed=2)], dim=1)
    found = Planes.of(values, "absolute")
    torch.testing.assert_close(found.signed, values.amax(dim=1))
    torch.testing.assert_close(found.read, values.abs().amax(dim=1))
    torch.testing.assert_close(found.magnitude, found.read)


def test_the_mean_rank_correlation_over_all_displacements_is_0() -> None:
    """What ``chance`` says without drawing any."""
    first, second = maps(1, 5, 1), maps(1, 5, 2)
    every = [spearman(first, second.roll((down, right), (1, 2))).item() for down in range(5) for right in range(5)]
    assert math.fsum(every) == pytest.approx(0, abs=1e-12)
    assert Reference(planes(first), ["spearman", "spearman_abs"]).chance(planes(second), [[0]]).tolist() == [[0, 0]]


def test_displaced_maps_keep_their_values_and_neighbours_whatever_the_batch() -> None:
    values = planes(maps())
    moved = values.displaced([11, 12, 13, 14])
    for row in range(4):
        found = [
            shift for shift in np.ndindex(12, 12) if torch.equal(values.read[row].roll(shift, (0, 1)), moved.read[row])
        ]
        assert len(found) == 1
    alone = planes(maps()[2:3]).displaced([13])
    torch.testing.assert_close(alone.signed[0], moved.signed[2])


def test_chance_is_what_unrelated_maps_have_0_for_ssim_and_more_for_hog() -> None:
    """On a grid of pixels noise has preferred directions, too: histograms of unrelated maps correlate."""
    values = planes(maps(side=24))
    reference = Reference(values, ["ssim", "hog"])
    chance = reference.chance(values, [[draw * 10 + row for row in range(4)] for draw in range(8)])
    assert chance[:, 0].abs().max() < 0.05
    assert chance[:, 1].min() > 0.1
    assert chance[:, 1].max() < 0.9
    assert (reference.similarity(values) == 1).all()


def test_chance_of_constant_maps_is_0_so_that_an_unchanged_one_is_above_it() -> None:
    flat = planes(torch.ones(2, 12, 12))
    assert (Reference(flat, EVERY).chance(flat, [[1, 2]]) == 0).all()


def test_maps_smaller_than_the_window_get_a_smaller_one() -> None:
    values = planes(maps(side=4))
    assert Reference(values, ["ssim"], window_px=7).window_px == 3


@pytest.mark.parametrize("bins", [2, 10, 100])
def test_entropy_is_that_of_numpys_histogram(bins: int) -> None:
    values = maps()
    values[1] = values[1].round()  # values on the borders of bins
    values[2] = torch.linspace(0, 1, 144).reshape(12, 12)
    expected = [entropy(np.histogram(row.double().numpy(), bins=bins)[0]) for row in values]
    assert histogram_entropy(values, bins=bins).tolist() == pytest.approx(expected, abs=1e-12)


def test_entropy_of_a_constant_map_is_0_and_of_an_even_one_log_bins() -> None:
    even = torch.arange(100.0).reshape(1, 10, 10)
    assert histogram_entropy(torch.ones(1, 5, 5)).item() == 0
    assert histogram_entropy(even, bins=10).item() == pytest.approx(math.log(10))


def test_entropy_does_not_depend_on_scale_and_offset() -> None:
    torch.testing.assert_close(histogram_entropy(maps()), histogram_entropy(maps().double() * 4 - 2))


def test_relative_rise_has_no_value_where_there_was_nothing() -> None:
    rise = relative_rise(torch.tensor([2.0, 1.0, 0.0]), torch.tensor([3.0, 0.5, 1.0]))
    assert rise[:2].tolist() == [0.5, -0.5]
    assert torch.isnan(rise[2])


@pytest.mark.parametrize("order", ["top_down", "independent"])
def test_golden_correlations_of_quantus(order: str) -> None:
    arrays, parameters = case("q_mprt")
    layers = parameters[f"layers_{order}"]
    original = torch.from_numpy(arrays["in_a"])[:, 0]
    for row, layer in enumerate(layers):
        randomised = torch.from_numpy(arrays[f"out_expl_{order}_{layer}"])[:, 0]
        for kind, similarity in (("raw", "spearman"), ("normabs", "spearman_abs")):
            found = Reference(planes(original), [similarity]).similarity(planes(randomised))[:, 0]
            expected = arrays[f"out_{order}_{kind}"][row]
            # Dividing by the largest value in float32 joins some pairs of near values.
            np.testing.assert_allclose(found.numpy(), expected, atol=1e-7 if kind == "raw" else 1e-5)
