"""The jobs of evaluate-perturbation: one a method, and one a method for each point of the sweep. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from roarline.config.component import locate
from roarline.config.experiment import Experiment, Method
from roarline.config.fills import fill_name
from roarline.config.perturbation import EvaluatePerturbation
from roarline.config.probes import CALL_THE_METHOD
from roarline.config.sweep import FACTORS
from roarline.execution.plan_explainers import explainer_input
from roarline.execution.plan_maps import method_parameters, sign
from roarline.execution.planned import Plan, user_parameters
from roarline.stages.job import Job

_STAGE = "evaluate-perturbation"
_FILLED = ("irof", "region_perturbation")
"""Metrics whose fill stands in a section of their own name."""


@dataclass(frozen=True)
class Perturbation:
    """The planned jobs.

    Attributes:
        jobs: Role to job, ``scores:METHOD`` and ``sweep:NUMBER:METHOD``.
        sweep: Role of a point, ``sweep:NUMBER``, to what it changes.
    """

    jobs: dict[str, Job] = field(default_factory=dict)
    sweep: dict[str, dict[str, str]] = field(default_factory=dict)


def add_perturbation(plan: Plan, dataset: Job, classifier: Job, maps: Mapping[tuple[str, str], Job]) -> Perturbation:
    """Plan the section's jobs; none without the section."""
    section, seed = plan.experiment.evaluate_perturbation, plan.experiment.seed
    if section is None:
        return Perturbation()

    def add(method: Method, settings: Mapping[str, Any], seed: int, what: str) -> Job:
        calls = set(settings["metrics"]) & set(CALL_THE_METHOD)
        called = {"attribution": attribution_parameters(plan.experiment, method)} if calls else {}
        drawn_by = explainer_input(plan, method, dataset, classifier) if calls else {}
        return plan.add(
            _STAGE,
            f"{_STAGE} {method.name}{what}",
            {**settings, **called, "sign": sign(method), "seed": seed},
            {"dataset": dataset, "classifier": classifier, "maps": maps[method.name, "test"], **drawn_by},
            local={"root": plan.experiment.data.root},
            cost=2.0,
        )

    settings = perturbation_settings(section)
    jobs = {f"scores:{method.name}": add(method, settings, seed, "") for method in plan.experiment.methods}
    sweep: dict[str, dict[str, str]] = {}
    for factor, value in section.sweep.points if section.sweep else []:
        changed = _changed(section, factor, value)
        own_seed = value if factor == "seed" else seed
        if not changed.metrics or (factor == "seed" and value == seed):
            continue  # the point is the base
        role, shown = f"sweep:{len(sweep)}", fill_name(value) if "fill" in factor else str(value)
        sweep[role] = {"factor": factor, "value": shown}
        settings = perturbation_settings(changed)
        for method in plan.experiment.methods:
            jobs[f"{role}:{method.name}"] = add(method, settings, own_seed, f", {factor} {shown}")
    return Perturbation(jobs, sweep)


def perturbation_settings(section: EvaluatePerturbation) -> dict[str, Any]:
    """What of the section goes into the scores' key: of own metrics what changes values, in an order of their own."""
    settings = {
        **section.model_dump(mode="json", exclude={"metrics", "sweep", *section.unused}),
        "metrics": section.table_metrics,
    }
    if section.own_metrics:
        settings["own_metrics"] = [
            {
                "name": metric.name,
                "metric": metric.component,
                "params": metric.params,
                **user_parameters(locate(metric.component, "roarline.metrics")),
            }
            for metric in sorted(section.own_metrics, key=lambda metric: metric.name)
        ]
    return settings


def attribution_parameters(experiment: Experiment, method: Method) -> dict[str, Any]:
    """How a method is called, for metrics that call it again: what went into its maps' key, but for which rows."""
    attribution = experiment.attribution
    how = {"dtype": attribution.dtype, "precision": attribution.precision, "seed": experiment.seed}
    return {**method_parameters(method), **how}


def _changed(section: EvaluatePerturbation, factor: str, value: Any) -> EvaluatePerturbation:
    """The section with one thing changed, and only the metrics that this changes."""
    metrics = [metric for metric in section.table_metrics if metric in FACTORS[factor] or factor == "seed"]
    update: dict[str, Any] = {} if factor == "seed" else {factor: value}
    if factor == "fill":
        update["deletion_fill"] = value
        update |= {name: getattr(section, name).model_copy(update={"fill": value}) for name in _FILLED}
        metrics = [metric for metric in metrics if _fill_of(section, metric) != value]
    elif factor != "seed" and getattr(section, factor) == value:
        metrics = []
    return section.model_copy(update={**update, "metrics": metrics})


def _fill_of(section: EvaluatePerturbation, metric: str) -> Any:
    if metric in _FILLED:
        return getattr(section, metric).fill
    return section.deletion_fill if metric == "deletion" else section.fill
