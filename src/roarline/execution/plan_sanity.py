"""Jobs of evaluate-sanity: one a method, and what data randomisation needs beside. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from roarline.config.experiment import Method
from roarline.config.sanity import DATA_RANDOMISATION, STAGE, EvaluateSanity
from roarline.execution.plan_explainers import explainer_input
from roarline.execution.plan_maps import add_extraction, add_maps, method_parameters, sign
from roarline.execution.planned import Plan, as_json
from roarline.stages.job import Job

_COMPARISON = ("similarities", "normalisation", "window_px", "chance_draws", "limit", "threads")
_RANDOMISATION = ("order", "depth", "repeats", "bins")


def add_sanity(
    plan: Plan,
    section: EvaluateSanity,
    model: Mapping[str, Any],
    dataset: Job,
    classifier: Job,
    maps: Mapping[str, Job],
) -> dict[str, Job]:
    """Role to job: for each method one that randomises the network, and one that compares it with a network of
    shuffled labels, as far as metrics ask.

    Args:
        model: What of the network goes into train-cls's key.
        maps: Method to its maps of the test split.
    """
    jobs: dict[str, Job] = {}
    settings, local = section.model_dump(mode="json"), {"root": plan.experiment.data.root}
    compared = {name: settings[name] for name in _COMPARISON}
    with_network = [metric for metric in section.table_metrics if metric != DATA_RANDOMISATION]
    shuffled = (
        _add_shuffled_classifier(plan, section, model, dataset) if len(with_network) < len(section.metrics) else None
    )
    for method in plan.experiment.methods:
        shared = {**compared, "sign": sign(method), "seed": plan.experiment.seed}
        inputs = {"dataset": dataset, "classifier": classifier, "maps": maps[method.name]}
        inputs |= explainer_input(plan, method, dataset, classifier)
        if with_network:
            jobs[f"sanity:{method.name}"] = plan.add(
                STAGE,
                f"{STAGE} {method.name}",
                {
                    **method_parameters(method),
                    **shared,
                    **{name: settings[name] for name in _RANDOMISATION},
                    "metrics": with_network,
                    "noisy_copies": settings["smooth"],
                    "precision": plan.experiment.attribution.precision,
                },
                inputs,
                local=local,
                cost=10.0,
            )
        if shuffled is not None:
            other = _add_shuffled_maps(plan, method, section.limit, dataset, shuffled, maps[method.name])
            jobs[f"labels:{method.name}"] = plan.add(
                STAGE,
                f"{STAGE} {method.name}, shuffled labels",
                {**shared, "metrics": [DATA_RANDOMISATION]},
                {"dataset": dataset, "maps": maps[method.name], "shuffled_maps": other},
                local=local,
                cost=0.5,
            )
    return jobs


def _add_shuffled_classifier(plan: Plan, section: EvaluateSanity, model: Mapping[str, Any], dataset: Job) -> Job:
    experiment = plan.experiment
    training = section.training or experiment.train_cls
    return plan.add(
        "train-cls",
        f"train-cls {experiment.model.arch}, shuffled labels",
        {
            "model": {**model, "weights": None},  # weights that were learned elsewhere know something, too
            "training": training.model_dump(mode="json", exclude={"threads"}) if training else None,
            "normalization": as_json(experiment.data.normalization),
            "shuffle_labels": True,
            "seed": experiment.seed,
            "threads": training.threads if training else 2,
        },
        {"dataset": dataset},
        local={"root": experiment.data.root},
        cost=20.0,
        asked_by=STAGE,
    )


def _add_shuffled_maps(plan: Plan, method: Method, limit: int | None, dataset: Job, shuffled: Job, known: Job) -> Job:
    """Maps of the same images and classes as those of the true network."""
    inputs = {"dataset": dataset, "classifier": shuffled}
    if method.filter is not None:
        plain = method.model_copy(update={"filter": None})
        of_plain = add_maps(plan, plain, "test", dataset, _classifier_of(plan, known))
        inputs["maps"] = _add_shuffled_maps(plan, plain, limit, dataset, shuffled, of_plain)
    else:
        inputs["targets"] = known
        inputs |= explainer_input(plan, method, dataset, shuffled, of="shuffled labels", asked_by=STAGE)
    optional = {} if limit is None else {"limit": limit}
    return add_extraction(plan, method, "test", inputs, optional, of="shuffled labels", asked_by=STAGE)


def _classifier_of(plan: Plan, maps: Job) -> Job:
    _, key = maps.inputs["classifier"]
    return next(job for job in plan.jobs if job.key == key)
