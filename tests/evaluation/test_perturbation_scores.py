"""From curves to a number and a status a row."""

from __future__ import annotations

import math

import pytest
import torch

from roarline.config.metrics import METRICS
from roarline.evaluation.curves import mean_drop
from roarline.evaluation.perturbation_scores import (
    CURVES_OF,
    NEED_UNTOUCHED,
    CurveScores,
    CurveSettings,
    Untouched,
    curves_for,
    metric_scores,
)

FRACTIONS = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)


def curve(*rows: list[float]) -> CurveScores:
    probabilities = torch.tensor(rows)
    return CurveScores(FRACTIONS, probabilities * 10, probabilities)


def untouched(*probabilities: float) -> Untouched:
    return Untouched(torch.tensor(probabilities) * 10, torch.tensor(probabilities))


def test_every_metric_of_curves_stands_in_the_table() -> None:
    assert all(METRICS[name].stage == "evaluate-perturbation" for name in CURVES_OF)
    assert set(NEED_UNTOUCHED) <= set(CURVES_OF)


def test_only_the_needed_curves_are_made() -> None:
    settings = CurveSettings(
        (0.0, 1.0), 2, "mean", "blur", "zero", road_fractions=(0.1, 0.9), irof_steps=4, patch_px=(4, 7),
        patch_fractions=(0.0, 0.5), patch_fill="uniform_noise",
    )  # fmt: skip
    assert list(curves_for(["insertion"], settings)) == ["insertion"]
    assert list(curves_for(["srg", "lerf_deviation"], settings)) == ["morf", "lerf"]
    assert list(curves_for(["aopc"], settings)) == ["morf"]
    assert curves_for(["deletion"], settings)["deletion"].fractions == (0.0, 0.5, 1.0)
    assert list(curves_for(["road_combined"], settings)) == ["road_morf", "road_lerf"]
    assert curves_for(["irof"], settings)["irof"].fractions == (0.0, 0.25, 0.5, 0.75, 1.0)
    patches = curves_for(["region_perturbation"], settings)
    assert [(name, curve.unit, curve.fill) for name, curve in patches.items()] == [
        ("region_perturbation_4", "patches_4", "uniform_noise"),
        ("region_perturbation_7", "patches_7", "uniform_noise"),
    ]


def test_areas_are_of_the_scores_and_deviations_of_the_probabilities() -> None:
    curves = {"morf": curve([1.0, 0.5, 0.0]), "lerf": curve([1.0, 1.0, 0.0])}
    before = untouched(1.0)
    (morf,) = metric_scores("morf", curves, before)
    (srg,) = metric_scores("srg", curves, before)
    assert (morf.setting, morf.values.tolist(), morf.statuses) == ("", [5.0], ["ok"])
    assert srg.values.tolist() == [7.5 - 5.0]
    deviations = metric_scores("morf_deviation", curves, before)
    assert [found.setting for found in deviations] == [f"removed_fraction={f}" for f in ("0", "0.5", "1")]
    assert [found.values.item() for found in deviations] == [0.0, 50.0, 100.0]


def test_a_failed_row_says_why_and_leaves_the_others_alone() -> None:
    curves = {"morf": curve([0.5, math.nan, 0.1], [0.4, 0.2, 0.0], [0.0, 0.2, 0.0])}
    before = untouched(0.5, 0.4, 0.0)
    (morf,) = metric_scores("morf", curves, before)
    assert [status == "ok" for status in morf.statuses] == [False, True, True]
    assert "NaN" in morf.statuses[0]
    at_zero, at_half, _ = metric_scores("morf_deviation", curves, before)
    assert [status == "ok" for status in at_zero.statuses] == [True, True, False]
    assert [status == "ok" for status in at_half.statuses] == [False, True, False]
    assert "probability is 0" in at_half.statuses[2]
    assert torch.isnan(at_half.values).tolist() == [True, False, True]


def test_road_is_the_mean_over_fractions_and_combined_half_the_difference() -> None:
    """pytorch-grad-cam: (LeRF - MoRF) / 2, averaged over the percentiles."""
    curves = {"road_morf": curve([0.6, 0.3, 0.0]), "road_lerf": curve([0.9, 0.9, 0.6])}
    (morf,), (lerf,), (both,) = (metric_scores(f"road_{name}", curves) for name in ("morf", "lerf", "combined"))
    torch.testing.assert_close(morf.values, torch.tensor([3.0], dtype=torch.float64))
    torch.testing.assert_close(lerf.values, torch.tensor([8.0], dtype=torch.float64))
    torch.testing.assert_close(both.values, torch.tensor([2.5], dtype=torch.float64))


def test_aopc_and_region_perturbation_are_mean_drops_of_the_score() -> None:
    curves = {"morf": curve([1.0, 0.5, 0.3]), "region_perturbation_8": curve([1.0, 0.1, 0.0])}
    (aopc,) = metric_scores("aopc", curves, untouched(1.0))
    (regions,) = metric_scores("region_perturbation", curves, untouched(1.0))
    assert aopc.values.item() == pytest.approx((0 + 5 + 7) / 3)
    assert regions.values.item() == pytest.approx((0 + 9 + 10) / 3)
    assert regions.setting == "patch_px=8"


def test_the_untouched_image_counts_once_in_a_mean_drop() -> None:
    """Whether 0 is among the fractions or not, as the sum from k = 0 to L has it."""
    with_zero, without = torch.tensor([0.0, 0.2, 0.4]), torch.tensor([0.2, 0.4])
    scores, before = torch.tensor([[0.9, 0.5, 0.1]]), torch.tensor([0.9])
    assert torch.equal(mean_drop(with_zero, scores, before), mean_drop(without, scores[:, 1:], before))


def test_irof_needs_a_score_above_zero() -> None:
    """1 - (1 + 0.5 + 0.5 + 0) / 4 for the first row, by the trapezoid rule on three equal steps."""
    found = CurveScores(FRACTIONS, *2 * [torch.tensor([[0.8, 0.4, 0.0], [-1.0, -2.0, -3.0], [0.0, 0.1, 0.2]])])
    before = Untouched(*2 * [torch.tensor([0.8, -1.0, 0.0])])
    (irof,) = metric_scores("irof", {"irof": found}, before)
    assert irof.values[0].item() == pytest.approx(0.5)
    assert irof.statuses[0] == "ok"
    assert [status.startswith("the target's score is not above 0") for status in irof.statuses[1:]] == [True, True]
    assert torch.isnan(irof.values).tolist() == [False, True, True]


def test_scores_of_the_untouched_image_are_asked_for() -> None:
    with pytest.raises(ValueError, match="irof needs the scores of untouched images"):
        metric_scores("irof", {"irof": curve([1.0, 0.5, 0.0])})
