"""From an experiment to jobs with keys, without running anything. Imports no torch."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from roarline.artifacts.files import file_sha256
from roarline.artifacts.keys import artifact_key
from roarline.config.component import MethodComponent, UserComponent, load_object, locate
from roarline.config.datasets import DATASETS
from roarline.config.experiment import Experiment, Method
from roarline.config.load import parse_params
from roarline.config.localization import MASKS_AS_THEY_ARE, OF_CLASSES, ON_GRIDS, EvaluateLocalization
from roarline.config.methods import METHODS
from roarline.config.models import MODELS
from roarline.config.perturbation import EvaluatePerturbation
from roarline.config.published_models import is_weights_path
from roarline.errors import UserInputError
from roarline.stages import STAGES
from roarline.stages.job import Job

PENDING = "pending"
_FREE_ARCHITECTURES = ("torchvision:", "timm:")
_LOCALIZATION = "evaluate-localization"


@dataclass
class Plan:
    """All jobs of one experiment, in an order in which they can run.

    Attributes:
        pending: Why keys are provisional (the raw data is missing), or None.
    """

    experiment: Experiment
    jobs: list[Job] = field(default_factory=list)
    pending: str | None = None

    def of(self, stage: str) -> list[Job]:
        """The jobs of one stage."""
        return [job for job in self.jobs if job.stage == stage]

    def needed_by(self, stage: str) -> list[Job]:
        """The jobs of one stage and all that they read, directly or not."""
        wanted = {job.key for job in self.of(stage)}
        for job in reversed(self.jobs):
            if job.key in wanted:
                wanted |= {key for _, key in job.inputs.values()}
        return [job for job in self.jobs if job.key in wanted]


def build_plan(experiment: Experiment) -> Plan:
    """Derive every job of an experiment.

    Raises:
        UserInputError: A component can't be found or its parameters are wrong.
    """
    plan = Plan(experiment)
    add = partial(_add, plan)
    dataset = add(
        "prepare-data", _data_label(experiment), _data_parameters(plan), {}, local={"root": experiment.data.root}
    )
    model, model_local = _model_parameters(experiment)
    training = experiment.train_cls.model_dump(mode="json", exclude={"threads"}) if experiment.train_cls else None
    classifier = add(
        "train-cls",
        f"train-cls {experiment.model.arch}",
        {
            "model": model,
            "training": training,
            "normalization": _dump(experiment.data.normalization),
            "seed": experiment.seed,
            "threads": experiment.train_cls.threads if experiment.train_cls else 2,
        },
        {"dataset": dataset},
        local={**model_local, "root": experiment.data.root},
        cost=20.0,
    )
    maps = {
        (method.name, split): _add_maps(plan, method, split, dataset, classifier)
        for method in experiment.methods
        for split in _splits(experiment)
    }
    scores: dict[str, Job] = {}
    if experiment.evaluate_perturbation:
        for method in experiment.methods:
            settings = _perturbation_settings(experiment.evaluate_perturbation)
            scores[method.name] = add(
                "evaluate-perturbation",
                f"evaluate-perturbation {method.name}",
                {**settings, "sign": _sign(method), "seed": experiment.seed},
                {"dataset": dataset, "classifier": classifier, "maps": maps[method.name, "test"]},
                local={"root": experiment.data.root},
                cost=2.0,
            )
    localization: dict[str, Job] = {}
    if experiment.evaluate_localization:
        for method in experiment.methods:
            localization |= _add_localization(plan, method, dataset, classifier, maps[method.name, "test"])
    cells = list(_add_cells(plan, model, dataset, maps)) if experiment.evaluate_roar else []
    _add_summary(plan, dataset, classifier, maps, scores, localization, cells)
    return plan


@dataclass(frozen=True)
class Cell:
    """One retraining: where it stands in the grid, and its job."""

    method: str | None
    mode: str
    removed_fraction: float
    repeat: int
    probe: bool
    job: Job

    @property
    def place(self) -> dict[str, Any]:
        """Its place, for tables."""
        return {
            "method": self.method,
            "mode": self.mode,
            "removed_fraction": self.removed_fraction,
            "repeat": self.repeat,
            "probe": self.probe,
        }


def _add(
    plan: Plan,
    stage: str,
    label: str,
    parameters: Mapping[str, Any],
    inputs: Mapping[str, Job],
    *,
    local: Mapping[str, Any] | None = None,
    cost: float = 1.0,
) -> Job:
    version = STAGES[stage].version
    key = artifact_key(stage, version, parameters, {role: job.key for role, job in inputs.items()})
    known = next((job for job in plan.jobs if job.key == key), None)
    if known is not None:
        return known
    job = Job(
        stage=stage,
        stage_version=version,
        key=key,
        label=label,
        parameters=dict(parameters),
        inputs={role: (job.stage, job.key) for role, job in inputs.items()},
        local={**(local or {})},
        cost=cost,
    )
    plan.jobs.append(job)
    return job


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
    if data.limit.per_class:
        parameters["limit_per_class"] = True
    if data.validation_per_class is not None:
        parameters["validation_per_class"] = data.validation_per_class
    if data.dataset in DATASETS:
        component = DATASETS[data.dataset]
        params = parse_params("dataset", data.dataset, component.params, data.params)
        parameters["params"] = params.model_dump(mode="json", exclude_none=True)
        raw = load_object(component.fingerprint)(data.root, parameters["params"])
        if raw is None:
            plan.pending = (
                f"the raw data of {data.dataset!r} is not at {data.root!r} yet: keys are provisional until it is there"
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
        parameters |= {"params": data.params, "fingerprint": raw or PENDING, **_user(user)}
    return parameters


def _model_parameters(experiment: Experiment) -> tuple[dict[str, Any], dict[str, Any]]:
    model = experiment.model
    parameters: dict[str, Any] = {"arch": model.arch, "params": model.params, "weights": model.weights}
    if model.arch in MODELS:
        parameters["params"] = parse_params("model", model.arch, MODELS[model.arch].params, model.params).model_dump(
            mode="json"
        )
    elif not model.arch.startswith(_FREE_ARCHITECTURES):
        parameters |= _user(locate(model.arch, "roarline.models"))
    local: dict[str, Any] = {}
    if model.weights is not None and is_weights_path(model.weights):
        path = Path(model.weights)
        if path.is_file():
            parameters["weights"] = f"sha256:{file_sha256(path)}"
        else:
            raise UserInputError(
                f"model.weights: {model.weights}: no such file (a weight name has no slash, e.g. IMAGENET1K_V2)"
            )
        local["weights"] = str(path)
    return parameters, local


def _splits(experiment: Experiment) -> tuple[str, ...]:
    return ("train", "validation", "test") if experiment.evaluate_roar else ("test",)


def _component(method: Method) -> MethodComponent | None:
    return METHODS.get(method.component)


def _sign(method: Method) -> str:
    component = _component(method)
    return method.sign or (component.sign if component else "signed")


def _channels(method: Method) -> str:
    component = _component(method)
    return method.channels or (component.channels if component else "sum")


def method_parameters(method: Method) -> dict[str, Any]:
    """What of a method goes into a key: everything but the name it has in this experiment."""
    component = _component(method)
    parameters: dict[str, Any] = {"method": method.component, "batched": method.batched, "channels": _channels(method)}
    if method.smooth is not None:
        parameters["smooth"] = _dump(method.smooth)
    if method.filter is not None:
        parameters["filter"] = _dump(method.filter)
    if component is not None:
        params = parse_params("method", method.component, component.params, method.params)
        return {**parameters, "params": params.model_dump(mode="json")}
    return {**parameters, "params": method.params, **_user(locate(method.component, "roarline.methods"))}


def _perturbation_settings(section: EvaluatePerturbation) -> dict[str, Any]:
    """What of the section goes into the scores' key: of own metrics what changes values, in an order of their own."""
    settings = {**section.model_dump(mode="json", exclude={"metrics"}), "metrics": section.table_metrics}
    if section.own_metrics:
        settings["own_metrics"] = [
            {
                "name": metric.name,
                "metric": metric.component,
                "params": metric.params,
                **_user(locate(metric.component, "roarline.metrics")),
            }
            for metric in sorted(section.own_metrics, key=lambda metric: metric.name)
        ]
    return settings


def _user(user: UserComponent) -> dict[str, Any]:
    return {"dotted_path": user.dotted_path, "source_sha256": user.source_sha256}


def _add_maps(plan: Plan, method: Method, split: str, dataset: Job, classifier: Job) -> Job:
    attribution = plan.experiment.attribution
    inputs = {"dataset": dataset, "classifier": classifier}
    if method.filter is not None:
        unfiltered = method.model_copy(update={"filter": None})
        inputs["maps"] = _add_maps(plan, unfiltered, split, dataset, classifier)
    limit = {} if attribution.limit is None else {"limit": attribution.limit}
    return _add(
        plan,
        "extract-attribution-maps",
        f"extract-attribution-maps {method.name} {split}",
        {
            **method_parameters(method),
            "split": split,
            "target": attribution.target,
            **limit,
            "dtype": attribution.dtype,
            "precision": attribution.precision,
            "seed": plan.experiment.seed,
            "threads": attribution.threads,
        },
        inputs,
        local={"root": plan.experiment.data.root},
        cost=0.2 if method.filter else 2.0,
    )


def _add_localization(plan: Plan, method: Method, dataset: Job, classifier: Job, maps: Job) -> dict[str, Job]:
    """Role to job: one that scores maps, and one that makes and scores maps of grids, as far as metrics ask."""
    section = plan.experiment.evaluate_localization or EvaluateLocalization()
    shared = {"sign": _sign(method), "seed": plan.experiment.seed}
    local, jobs = {"root": plan.experiment.data.root}, {}
    mask = method.mask or ("none" if method.component in MASKS_AS_THEY_ARE else "min_max")
    of_maps = [metric for metric in section.table_metrics if metric not in (*ON_GRIDS, *OF_CLASSES)]
    if of_maps:
        jobs[f"localization:{method.name}"] = _add(
            plan,
            _LOCALIZATION,
            f"{_LOCALIZATION} {method.name}",
            {
                **section.model_dump(mode="json", exclude={"metrics", "grid", "class_matrix"}),
                **shared,
                "metrics": of_maps,
                "mask": mask,
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
        "grids": (ON_GRIDS, {"grid": _dump(section.grid)}),
        "classes": (OF_CLASSES, {"class_matrix": _dump(section.class_matrix), "mask": mask, "compat": section.compat}),
    }
    for family, (metrics, settings) in made.items():  # these need maps of their own
        wanted = [metric for metric in section.table_metrics if metric in metrics]
        if wanted:
            jobs[f"{family}:{method.name}"] = _add(
                plan,
                _LOCALIZATION,
                f"{_LOCALIZATION} {method.name}, {family}",
                {**of_method, **settings, "metrics": wanted},
                {"dataset": dataset, "classifier": classifier},
                local=local,
                cost=2.0,
            )
    return jobs


def _add_cells(
    plan: Plan, model: Mapping[str, Any], dataset: Job, maps: Mapping[tuple[str, str], Job]
) -> Iterator[Cell]:
    experiment = plan.experiment
    roar = experiment.evaluate_roar
    training = (roar.training or experiment.train_cls) if roar else None
    if roar is None or training is None:  # the latter is refused by Experiment
        return
    shared = {
        "model": {key: value for key, value in model.items() if key != "weights"},
        "training": training.model_dump(mode="json", exclude={"threads"}),
        "normalization": _dump(experiment.data.normalization),
        "engine": roar.engine,
        "seed": experiment.seed,
        "threads": roar.threads,
    }

    def cell(method: Method | None, mode: str, fraction: float, repeat: int, *, probe: bool) -> Cell:
        parameters: dict[str, Any] = {
            **shared,
            "repeat": repeat,
            "probe": probe,
            "mode": mode,
            "removed_fraction": fraction,
        }
        inputs = {"dataset": dataset}
        if method is not None:
            parameters |= {
                "sign": _sign(method),
                "ties": roar.ties,
                "merge_normalization": method.merge_normalization or roar.merge_normalization,
                "compat": roar.compat,
            }
            if not probe:  # the probe sees no pixels, so that nothing is filled
                parameters["fill"] = roar.fill
            inputs |= {f"maps_{split}": maps[method.name, split] for split in _splits(experiment)}
        name = method.name if method else "nothing removed"
        label = f"evaluate-roar {name} {mode} {fraction:g} #{repeat}{' probe' if probe else ''}"
        return Cell(
            method.name if method else None,
            mode,
            fraction,
            repeat,
            probe,
            _add(plan, "evaluate-roar", label, parameters, inputs, local={"root": experiment.data.root}),
        )

    for repeat in range(roar.repeats):
        yield cell(None, "reference", 0.0, repeat, probe=False)
    for probe, repeats in ((False, roar.repeats), (True, roar.probe_repeats)):
        for method in experiment.methods:
            for mode in roar.modes:
                for fraction in roar.fractions:
                    for repeat in range(repeats):
                        yield cell(method, mode, fraction, repeat, probe=probe)


def _add_summary(
    plan: Plan,
    dataset: Job,
    classifier: Job,
    maps: Mapping[tuple[str, str], Job],
    scores: Mapping[str, Job],
    localization: Mapping[str, Job],
    cells: list[Cell],
) -> None:
    experiment = plan.experiment
    methods = [
        {
            "name": m.name,
            "sign": _sign(m),
            "baseline": m.baseline,
            **method_parameters(m),
        }
        for m in experiment.methods
    ]
    score_inputs = {f"scores:{name}": job for name, job in scores.items()}
    score_inputs |= localization
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
    summary = _add(
        plan,
        "aggregate-scores",
        "aggregate-scores",
        {**shared, **_dump(experiment.aggregate_scores)},
        {**score_inputs, **cell_inputs},
    )
    _add(
        plan,
        "report",
        "report",
        {
            **shared,
            "title": experiment.report.title or experiment.name,
            "description": experiment.description,
            "gallery_images": experiment.report.gallery_images,
            "confidence": experiment.aggregate_scores.confidence,
            "evaluate_roar": _dump(experiment.evaluate_roar) if experiment.evaluate_roar else None,
            "evaluate_perturbation": _dump(perturbation) if perturbation else None,
            "evaluate_localization": _dump(experiment.evaluate_localization),
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


def _dump(value: Any) -> Any:
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else value


def import_stage(stage: str) -> Any:
    """The function that runs a stage's jobs; imports torch."""
    module, _, name = STAGES[stage].implementation.partition(":")
    return getattr(importlib.import_module(module), name)
