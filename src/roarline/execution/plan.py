"""From an experiment to jobs with keys, without running anything. Imports no torch."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from roarline.config.component import load_object, locate
from roarline.config.datasets import DATASETS
from roarline.config.experiment import Experiment, Method
from roarline.config.load import parse_params
from roarline.config.localization import DIFFICULT_SUBSET, MASKS_AS_THEY_ARE, OF_CLASSES, ON_GRIDS, EvaluateLocalization
from roarline.config.models import MODELS
from roarline.execution.plan_explainers import add_explainer, explainer_input
from roarline.execution.plan_maps import add_maps, method_parameters, sign, splits
from roarline.execution.plan_perturbation import Perturbation, add_perturbation
from roarline.execution.plan_retraining import Cell, add_cells
from roarline.execution.plan_sanity import add_sanity
from roarline.execution.plan_surrogates import add_surrogates
from roarline.execution.planned import PENDING, as_json, fixed_content, fixed_weights, user_parameters
from roarline.execution.planned import Plan as Plan
from roarline.stages import STAGES
from roarline.stages.job import Job

_FREE_ARCHITECTURES = ("torchvision:", "timm:")
_LOCALIZATION = "evaluate-localization"


def build_plan(experiment: Experiment) -> Plan:
    """Derive every job of an experiment.

    Raises:
        UserInputError: A component can't be found or its parameters are wrong.
    """
    plan = Plan(experiment)
    dataset = plan.add(
        "prepare-data", _data_label(experiment), _data_parameters(plan), {}, local={"root": experiment.data.root}
    )
    model, model_local = _model_parameters(plan)
    training = experiment.train_cls.model_dump(mode="json", exclude={"threads"}) if experiment.train_cls else None
    classifier = plan.add(
        "train-cls",
        f"train-cls {experiment.model.arch}",
        {
            "model": model,
            "training": training,
            "normalization": as_json(experiment.data.normalization),
            "seed": experiment.seed,
            "threads": experiment.train_cls.threads if experiment.train_cls else 2,
        },
        {"dataset": dataset},
        local={
            **model_local,
            "root": experiment.data.root,
            "layers": {method.name: method.layers for method in experiment.methods if method.layers},
        },
        cost=20.0,
    )
    for entry in experiment.train_explainer:
        add_explainer(plan, entry, dataset, classifier)
    maps = {
        (method.name, split): add_maps(plan, method, split, dataset, classifier)
        for method in experiment.methods
        for split in splits(experiment)
    }
    perturbation = add_perturbation(plan, dataset, classifier, maps)
    localization: dict[str, Job] = {}
    if experiment.evaluate_localization:
        for method in experiment.methods:
            localization |= _add_localization(plan, method, dataset, classifier, maps[method.name, "test"])
    if experiment.evaluate_sanity:
        of_test = {method.name: maps[method.name, "test"] for method in experiment.methods}
        localization |= add_sanity(plan, experiment.evaluate_sanity, model, dataset, classifier, of_test)
    localization |= add_surrogates(plan, model, dataset, classifier, maps)
    cells = list(add_cells(plan, model, dataset, maps)) if experiment.evaluate_roar else []
    _add_summary(plan, dataset, classifier, maps, perturbation, localization, cells)
    return plan


def _data_label(experiment: Experiment) -> str:
    return f"prepare-data {experiment.data.dataset}"


def _data_parameters(plan: Plan) -> dict[str, Any]:
    data = plan.experiment.data
    parameters: dict[str, Any] = {
        "dataset": data.dataset,
        "validation_fraction": data.validation_fraction,
        "limit": data.limit.model_dump(mode="json", exclude={"per_class"}),
        "resize_px": data.resize_px,
        "crop_px": data.crop_px,
        "pack_limit_mb": data.pack_limit_mb,
        "seed": plan.experiment.seed,
        "threads": 1,
    }
    if data.aspect == "stretch":
        parameters["aspect"] = data.aspect
    if data.limit.per_class:
        parameters["limit_per_class"] = True
    if data.validation_per_class is not None:
        parameters["validation_per_class"] = data.validation_per_class
    if data.validation_annotated:
        parameters["validation_annotated"] = True
    if data.dataset in DATASETS:
        component = DATASETS[data.dataset]
        params = parse_params("dataset", data.dataset, component.params, data.params)
        parameters["params"] = params.model_dump(mode="json", exclude_none=True)
        raw = load_object(component.fingerprint)(data.root, parameters["params"])
        if raw is None:
            plan.pending = (
                f"the raw data of {data.dataset!r} is not at {data.root!r} (data.root: not there, or without images in "
                "the layout of this data set, which docs/datasets.md describes): keys are provisional until it is"
                if data.root
                else f"data set {data.dataset!r} needs data.root, the folder of its raw data"
            )
        parameters["fingerprint"] = raw or PENDING
    else:
        user = locate(data.dataset, "roarline.datasets")
        raw = load_object("roarline.data.fingerprint:any_files")(data.root)
        if raw is None:
            plan.pending = (
                f"the raw data of {data.dataset!r} is not at {data.root!r}: keys are provisional until it is there"
            )
        parameters |= {"params": data.params, "fingerprint": raw or PENDING, **user_parameters(user)}
    return parameters


def _model_parameters(plan: Plan) -> tuple[dict[str, Any], dict[str, Any]]:
    model = plan.experiment.model
    parameters: dict[str, Any] = {"arch": model.arch, "params": model.params, "weights": model.weights}
    if model.arch in MODELS:
        parameters["params"] = parse_params("model", model.arch, MODELS[model.arch].params, model.params).model_dump(
            mode="json"
        )
    elif not model.arch.startswith(_FREE_ARCHITECTURES):
        parameters |= user_parameters(locate(model.arch, "roarline.models"))
    parameters["weights"], local = fixed_weights(plan, model.weights, "model.weights")
    return parameters, local


def _add_localization(plan: Plan, method: Method, dataset: Job, classifier: Job, maps: Job) -> dict[str, Job]:
    """Role to job: one that scores maps, and one that makes and scores maps of grids, as far as metrics ask."""
    section = plan.experiment.evaluate_localization or EvaluateLocalization()
    shared = {"sign": sign(method), "seed": plan.experiment.seed}
    local, jobs = {"root": plan.experiment.data.root}, {}
    mask = method.mask or ("none" if method.component in MASKS_AS_THEY_ARE else "min_max")
    known = DATASETS.get(plan.experiment.data.dataset)
    pointed_at = known.pointed_at if known else None
    of_maps = [metric for metric in section.table_metrics if metric not in (*ON_GRIDS, *OF_CLASSES)]
    subset: dict[str, str] = {}
    if DIFFICULT_SUBSET in of_maps and section.difficult_subset:
        key = f"{_LOCALIZATION}.difficult_subset"
        subset = {"difficult_subset": fixed_content(plan, section.difficult_subset, key)}
        local["difficult_subset"] = section.difficult_subset
    if of_maps:
        jobs[f"localization:{method.name}"] = plan.add(
            _LOCALIZATION,
            f"{_LOCALIZATION} {method.name}",
            {
                **section.model_dump(mode="json", exclude={"metrics", "grid", "class_matrix", "difficult_subset"}),
                **shared,
                "metrics": of_maps,
                "mask": mask,
                "ground_truth": section.kinds(pointed_at),
                **subset,
                **({"perfect": True} if _is_perfect(method) else {}),
            },
            {"dataset": dataset, "classifier": classifier, "maps": maps},
            local=local,
        )
    of_method = {
        **method_parameters(method),
        **shared,
        "precision": plan.experiment.attribution.precision,
        "threads": section.threads,
    }
    made: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
        "grids": (ON_GRIDS, {"grid": as_json(section.grid)}),
        "classes": (
            OF_CLASSES,
            {"class_matrix": as_json(section.class_matrix), "mask": mask, "compat": section.compat},
        ),
    }
    for family, (metrics, settings) in made.items():  # these need maps of their own
        wanted = [metric for metric in section.table_metrics if metric in metrics]
        if wanted:
            jobs[f"{family}:{method.name}"] = plan.add(
                _LOCALIZATION,
                f"{_LOCALIZATION} {method.name}, {family}",
                {**of_method, **settings, "metrics": wanted},
                {"dataset": dataset, "classifier": classifier, **explainer_input(plan, method, dataset, classifier)},
                local=local,
                cost=2.0,
            )
    return jobs


def _is_perfect(method: Method) -> bool:
    """The control that every metric of ground truth is to call best; filtered it is a method like others."""
    return method.component == "ground_truth" and not (method.filter or method.smooth)


def _add_summary(
    plan: Plan,
    dataset: Job,
    classifier: Job,
    maps: Mapping[tuple[str, str], Job],
    planned: Perturbation,
    localization: Mapping[str, Job],
    cells: list[Cell],
) -> None:
    experiment = plan.experiment
    methods = [
        {
            "name": m.name,
            "sign": sign(m),
            "baseline": m.baseline,
            **method_parameters(m),
        }
        for m in experiment.methods
    ]
    score_inputs = {role: job for role, job in planned.jobs.items() if role.startswith("scores:")}
    score_inputs |= localization
    swept_inputs = {role: job for role, job in planned.jobs.items() if role.startswith("sweep:")}
    cell_inputs = {f"cell:{index}": cell.job for index, cell in enumerate(cells)}
    places = {f"cell:{index}": cell.place for index, cell in enumerate(cells)}
    shared = {
        "experiment": experiment.name,
        "dataset": experiment.data.dataset,
        "model": experiment.model.arch,
        "methods": methods,
        "cells": places,
        "seed": experiment.seed,
        "threads": 1,
    }
    perturbation = experiment.evaluate_perturbation
    if perturbation and perturbation.own_metrics:
        shared["own_metrics"] = [
            {"name": m.name, "metric": m.component, "higher_is_better": m.higher_is_better, "unit": m.unit}
            for m in perturbation.own_metrics
        ]
    summary = plan.add(
        "aggregate-scores",
        "aggregate-scores",
        {**shared, **({"sweep": planned.sweep} if planned.sweep else {}), **as_json(experiment.aggregate_scores)},
        {**score_inputs, **swept_inputs, **cell_inputs},
    )
    plan.add(
        "report",
        "report",
        {
            **shared,
            "title": experiment.report.title or experiment.name,
            "description": experiment.description,
            "gallery_images": experiment.report.gallery_images,
            "confidence": experiment.aggregate_scores.confidence,
            "evaluate_roar": as_json(experiment.evaluate_roar) if experiment.evaluate_roar else None,
            "evaluate_perturbation": as_json(perturbation) if perturbation else None,
            "evaluate_localization": as_json(experiment.evaluate_localization),
            **({"evaluate_sanity": as_json(experiment.evaluate_sanity)} if experiment.evaluate_sanity else {}),
        },
        {
            "summary": summary,
            "dataset": dataset,
            "classifier": classifier,
            **{f"maps:{method.name}": maps[method.name, "test"] for method in experiment.methods},
            **score_inputs,
            **cell_inputs,
        },
        local={"root": experiment.data.root},
    )


def import_stage(stage: str, *, stacked: bool = False) -> Any:
    """The function that runs a stage's jobs, one or (stacked) several at a time; imports torch."""
    spec = STAGES[stage]
    module, _, name = ((spec.stacked if stacked else None) or spec.implementation).partition(":")
    return getattr(importlib.import_module(module), name)
