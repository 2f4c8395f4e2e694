"""The sections of probes: defaults that make sense, values that are refused, every metric with its section."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from roarline.config.metrics import METRICS
from roarline.config.perturbation import EvaluatePerturbation
from roarline.config.probe_metrics import PROBE_METRICS
from roarline.config.probes import PROBES, FaithfulnessCorrelation, Infidelity, SensitivityN


def test_every_probe_has_a_section_and_a_line() -> None:
    assert {metric for metrics in PROBES.values() for metric in metrics} == set(PROBE_METRICS)
    assert set(PROBE_METRICS) <= set(METRICS)
    assert set(PROBES) <= set(EvaluatePerturbation.model_fields)


def test_correlations_share_their_sets_by_default() -> None:
    both, one = SensitivityN(), FaithfulnessCorrelation()
    assert one.fraction in both.fractions
    assert (one.fill, one.subsets) == (both.fill, both.subsets)


def test_fractions_come_in_order() -> None:
    assert SensitivityN(fractions=[0.5, 0.1]).fractions == [0.1, 0.5]


@pytest.mark.parametrize(
    ("section", "values"),
    [
        (SensitivityN, {"fractions": [0.1, 1.0]}),  # all pixels: there is one such set
        (SensitivityN, {"fractions": [0.1, 0.1]}),
        (SensitivityN, {"subsets": 2}),  # two points lie on a line
        (Infidelity, {"perturbations": ["square", "square"]}),
        (Infidelity, {"sides": []}),
        (Infidelity, {"noise": 0}),
    ],
)
def test_impossible_values_are_refused(section: Any, values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        section(**values)
