"""Numbers in words."""

from __future__ import annotations

import pytest

from roarline.report import formatting


@pytest.mark.parametrize(
    ("metric", "value", "unit", "expected"),
    [
        ("roar_accuracy", 0.8767, "", "87.7 %"),
        ("kar_leakage", 1.0, "", "100.0 %"),
        ("morf", 0.12345, "", "0.123"),
        ("srg", -0.5, "", "−0.500"),
        ("srg", -0.0001, "", "0.000"),
        ("morf_deviation", 45.67, "%", "45.7 %"),
        ("morf", None, "", "–"),
    ],
)
def test_scores(metric: str, value: float | None, unit: str, expected: str):
    assert formatting.score_text(metric, value, unit) == expected


@pytest.mark.parametrize(
    ("metric", "value", "unit", "expected"),
    [
        ("roar_accuracy", 0.05, "", "+5.0 pp"),
        ("roar_accuracy", -0.05, "", "−5.0 pp"),
        ("morf", -0.25, "", "−0.250"),
        ("morf", -0.0004, "", "0.000"),
        ("roar_accuracy", 0.0004, "", "0.0 pp"),
        ("morf_deviation", 3.0, "%", "+3.0 %"),
        ("morf", None, "", "–"),
    ],
)
def test_differences(metric: str, value: float | None, unit: str, expected: str):
    assert formatting.difference_text(metric, value, unit) == expected


def test_intervals():
    assert formatting.interval_text("roar_accuracy", 0.1, 0.25) == "[10.0, 25.0]"
    assert formatting.interval_text("srg", -0.1, 0.25) == "[−0.100, 0.250]"
    assert formatting.interval_text("srg", None, 0.25) == ""


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.04, "0.0 s"), (9.96, "10.0 s"), (60, "60 s"), (600, "10.0 min"), (9000, "2.5 h")]
)
def test_durations(seconds: float, expected: str):
    assert formatting.duration(seconds) == expected


def test_fractions_are_as_short_as_they_can_be():
    assert [formatting.fraction_percent(value) for value in (0.1, 0.3, 0.005, 1.0)] == [
        "10 %",
        "30 %",
        "0.5 %",
        "100 %",
    ]


def test_lists():
    assert [formatting.join(list(words)) for words in ("", "a", "ab", "abc")] == ["", "a", "a and b", "a, b and c"]


def test_an_interval_that_excludes_0_does_not_end_in_it():
    assert formatting.interval_text("roar_accuracy", -0.052, -0.0002) == "[−5.20, −0.02]"
    assert formatting.interval_text("morf", 0.0001, 0.2) == "[0.0001, 0.2000]"
    assert formatting.interval_text("morf", -0.0001, 0.2) == "[0.000, 0.200]"
    assert formatting.interval_text("morf", 0.0, 0.2) == "[0.000, 0.200]"
