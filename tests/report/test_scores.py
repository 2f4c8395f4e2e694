"""Verdicts and look-ups on the summary's rows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from roarline.report.scores import REFERENCE, Score, Scores, scores_from_columns
from tests.report.make_experiment import Recipe, summary_columns

_ROW = Score("m", "morf", "", 0.5, 0.4, 0.6, 10, 0, False, "", 0.1, 0.05, 0.15, 1, "ok")


@pytest.mark.parametrize(
    ("higher_is_better", "low", "high", "expected"),
    [
        (True, 0.01, 0.2, "better"),
        (True, -0.2, -0.01, "worse"),
        (False, 0.01, 0.2, "worse"),
        (False, -0.2, -0.01, "better"),
        (True, -0.1, 0.1, "undecided"),
        (False, 0.0, 0.1, "undecided"),
        (None, 0.01, 0.2, "unknown"),
        (True, None, None, "unknown"),
    ],
)
def test_a_verdict_needs_an_interval_that_excludes_zero(
    higher_is_better: bool | None, low: float | None, high: float | None, expected: str
):
    row = replace(_ROW, higher_is_better=higher_is_better, difference_low=low, difference_high=high)
    assert row.verdict == expected


def test_look_ups_find_the_rows_of_the_summary():
    scores = scores_from_columns(summary_columns(Recipe()))
    assert scores.metrics[:2] == ["morf", "lerf"]
    assert scores.settings("roar_accuracy") == ["mean over fractions"]
    assert list(scores.overall("roar_accuracy")) == ["integrated_gradients", "gradient", "sobel", "random"]
    rows = scores.by_fraction("roar_leakage")["random"]
    assert [row.removed_fraction for row in rows] == [0.1, 0.5, 0.9]
    reference = scores.reference("kar_accuracy")
    assert reference is not None
    assert (reference.method, reference.metric, reference.value) == (REFERENCE, "kar_accuracy", 0.95)


def test_fractions_rise_whatever_the_rows_order():
    rows = [replace(_ROW, metric="roar_accuracy", setting=f"removed_fraction={f}") for f in ("0.9", "0.1", "0.05")]
    assert [row.removed_fraction for row in Scores(rows).by_fraction("roar_accuracy")["m"]] == [0.05, 0.1, 0.9]


def test_without_a_reference_there_is_none():
    assert Scores([_ROW]).reference("roar_accuracy") is None
    assert Scores([]).metrics == []
    assert Scores([]).overall("morf") == {}
