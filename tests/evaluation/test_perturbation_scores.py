"""From curves to a number and a status a row."""

from __future__ import annotations

import math

import torch

from roarline.config.metrics import METRICS
from roarline.evaluation.perturbation_scores import CURVES_OF, CurveScores, curves_for, metric_scores

FRACTIONS = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)


def curve(*rows: list[float]) -> CurveScores:
    probabilities = torch.tensor(rows)
    return CurveScores(FRACTIONS, probabilities * 10, probabilities)


def test_every_metric_of_the_stage_knows_its_curves() -> None:
    stage = {name for name, metric in METRICS.items() if metric.stage == "evaluate-perturbation"}
    assert stage == set(CURVES_OF)


def test_only_the_needed_curves_are_made() -> None:
    settings = {"fractions": [0, 1], "steps": 2, "fill": "mean", "insertion_fill": "blur", "deletion_fill": "zero"}
    assert list(curves_for(["insertion"], **settings)) == ["insertion"]  # type: ignore[arg-type]
    assert list(curves_for(["srg", "lerf_deviation"], **settings)) == ["morf", "lerf"]  # type: ignore[arg-type]
    assert curves_for(["deletion"], **settings)["deletion"].fractions == (0.0, 0.5, 1.0)  # type: ignore[arg-type]


def test_areas_are_of_the_scores_and_deviations_of_the_probabilities() -> None:
    curves = {"morf": curve([1.0, 0.5, 0.0]), "lerf": curve([1.0, 1.0, 0.0])}
    before = torch.tensor([1.0])
    (morf,) = metric_scores("morf", curves, before)
    (srg,) = metric_scores("srg", curves, before)
    assert (morf.setting, morf.values.tolist(), morf.statuses) == ("", [5.0], ["ok"])
    assert srg.values.tolist() == [7.5 - 5.0]
    deviations = metric_scores("morf_deviation", curves, before)
    assert [found.setting for found in deviations] == [f"removed_fraction={f}" for f in ("0", "0.5", "1")]
    assert [found.values.item() for found in deviations] == [0.0, 50.0, 100.0]


def test_a_failed_row_says_why_and_leaves_the_others_alone() -> None:
    curves = {"morf": curve([0.5, math.nan, 0.1], [0.4, 0.2, 0.0], [0.0, 0.2, 0.0])}
    before = torch.tensor([0.5, 0.4, 0.0])
    (morf,) = metric_scores("morf", curves, before)
    assert [status == "ok" for status in morf.statuses] == [False, True, True]
    assert "NaN" in morf.statuses[0]
    at_zero, at_half, _ = metric_scores("morf_deviation", curves, before)
    assert [status == "ok" for status in at_zero.statuses] == [True, True, False]
    assert [status == "ok" for status in at_half.statuses] == [False, True, False]
    assert "probability is 0" in at_half.statuses[2]
    assert torch.isnan(at_half.values).tolist() == [True, False, True]
