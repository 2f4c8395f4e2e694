"""The section evaluate-perturbation: fills, and what of it goes into keys."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from roarline.config.fills import ConstantFill, fill_name
from roarline.config.perturbation import EvaluatePerturbation
from roarline.config.retraining import EvaluateRoar


def section(**changes: Any) -> EvaluatePerturbation:
    return EvaluatePerturbation.model_validate(changes)


def test_a_fill_is_a_name_or_a_stated_colour() -> None:
    assert section(fill="uniform_noise").fill == "uniform_noise"
    colour = section(fill={"kind": "constant", "value": 0.5}).fill
    assert colour == ConstantFill(kind="constant", value=[0.5])
    assert fill_name(colour) == fill_name({"kind": "constant", "value": [0.5]}) == "constant 0.5"
    assert fill_name("mean") == "mean"


@pytest.mark.parametrize(
    "fill", ["grey", {"kind": "constant"}, {"kind": "constant", "value": [0.1, 0.2]}, {"kind": "constant", "value": 2}]
)
def test_what_is_no_fill_is_refused(fill: Any) -> None:
    with pytest.raises(ValidationError):
        section(fill=fill)


def test_retraining_takes_no_fill_that_is_solved_for_each_batch() -> None:
    assert EvaluateRoar(fill="uniform_noise").fill == "uniform_noise"
    with pytest.raises(ValidationError):
        EvaluateRoar.model_validate({"fill": "noisy_linear"})


@pytest.mark.parametrize(
    ("changes", "read"),
    [
        ({}, set()),
        ({"metrics": ["road_morf"]}, {"road"}),
        ({"metrics": ["morf"], "fill": "noisy_linear"}, {"road"}),
        ({"metrics": ["irof"]}, {"irof"}),
        ({"metrics": ["irof"], "irof": {"fill": "noisy_linear"}}, {"irof", "road"}),
        ({"metrics": ["region_perturbation", "aopc"]}, {"region_perturbation"}),
        ({"metrics": ["morf"], "irof": {"fill": "noisy_linear"}}, set()),
    ],
)
def test_sections_that_nothing_reads_are_known(changes: dict[str, Any], read: set[str]) -> None:
    """They stay out of the key, so that a setting of IROF moves no result of MoRF."""
    curves = {"road", "irof", "region_perturbation"}
    assert curves - section(**changes).unused == read


def test_fractions_and_patches_are_checked() -> None:
    for wrong in ({"road": {"fractions": [0.5, 0.1]}}, {"region_perturbation": {"patch_px": [8, 8]}}):
        with pytest.raises(ValidationError):
            section(**wrong)
