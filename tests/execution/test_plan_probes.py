"""Keys of evaluate-perturbation with probes: what changes them, and what does not."""

from __future__ import annotations

from typing import Any

import pytest

from roarline.config.experiment import Experiment
from roarline.execution.plan import build_plan
from roarline.stages.job import Job


def jobs(metrics: list[str], method: dict[str, Any] | None = None, **section: Any) -> dict[str, Job]:
    """Method to its job."""
    experiment = Experiment.model_validate(
        {
            "name": "probes",
            "data": {"dataset": "shapes"},
            "model": {"arch": "small_cnn"},
            "train-cls": {},
            "attribution": {"methods": [{"name": "gradient", **(method or {})}], "baselines": ["random"]},
            "evaluate-perturbation": {"metrics": metrics, **section},
        }
    )
    return {job.label.rpartition(" ")[2]: job for job in build_plan(experiment).of("evaluate-perturbation")}


def test_a_section_counts_only_where_its_metric_is_asked_for() -> None:
    many, few = {"subsets": 100}, {"subsets": 10}
    assert jobs(["morf"], sensitivity_n=many)["gradient"].key == jobs(["morf"], sensitivity_n=few)["gradient"].key
    asked = [jobs(["sensitivity_n"], sensitivity_n=subsets)["gradient"] for subsets in (many, few)]
    assert asked[0].key != asked[1].key
    assert "infidelity" not in asked[0].parameters


@pytest.mark.parametrize("metric", ["max_sensitivity", "avg_sensitivity"])
def test_how_the_method_is_called_stands_in_the_key_of_what_calls_it(metric: str) -> None:
    plain = jobs([metric])
    entry = plain["gradient"].parameters["attribution"]
    assert entry["method"] == "gradient"
    assert entry["channels"] == "max_abs"
    assert plain["random"].parameters["attribution"]["method"] == "random"
    smooth = jobs([metric], {"smooth": {"samples": 3}})["gradient"].parameters["attribution"]
    assert smooth["smooth"]["samples"] == 3
    blurred = jobs([metric], {"filter": {"kind": "blur", "sigma_px": 1.0}})["gradient"].parameters["attribution"]
    assert blurred["filter"]["kind"] == "blur"


def test_metrics_that_read_maps_alone_do_not_know_the_method() -> None:
    assert "attribution" not in jobs(["sensitivity_n", "infidelity", "aic"])["gradient"].parameters
