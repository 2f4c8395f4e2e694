"""Jobs that fine-tune the classifier and ask the copy about maps: F-Fidelity and IDSDS. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from roarline.config.experiment import Experiment
from roarline.config.retraining import EvaluateFFidelity, EvaluateIdsds
from roarline.config.training import TrainCls
from roarline.execution.plan_maps import add_maps, sign
from roarline.execution.planned import Plan
from roarline.stages.job import Job

F_FIDELITY, IDSDS = "evaluate-f-fidelity", "evaluate-idsds"
_SLOWER = 0.1


def add_surrogates(
    plan: Plan, model: Mapping[str, Any], dataset: Job, classifier: Job, maps: Mapping[tuple[str, str], Job]
) -> dict[str, Job]:
    """Plan both evaluations, as far as the experiment has their sections.

    Args:
        model: The network's parameters.
        maps: (method, split) to the job of the classifier's own maps.

    Returns:
        Role to scoring job, one for each method and evaluation.
    """
    experiment = plan.experiment
    jobs: dict[str, Job] = {}
    if ffid := experiment.evaluate_f_fidelity:
        alteration = {"kind": "pixels", "most": ffid.beta, "fill": ffid.fill}
        tuned = _fine_tuned(plan, model, dataset, classifier, ffid, alteration, F_FIDELITY)
        jobs |= _scoring(plan, ffid, dataset, tuned, maps, F_FIDELITY, "f_fidelity")
    if idsds := experiment.evaluate_idsds:
        alteration = {"kind": "patch", "grid": idsds.grid, "share": idsds.deleted_share, "fill": idsds.fill}
        tuned = _fine_tuned(plan, model, dataset, classifier, idsds, alteration, IDSDS)
        jobs |= _scoring(plan, idsds, dataset, tuned, maps, IDSDS, "idsds")
    return jobs


def _fine_tuned(
    plan: Plan,
    model: Mapping[str, Any],
    dataset: Job,
    classifier: Job,
    section: EvaluateFFidelity | EvaluateIdsds,
    alteration: Mapping[str, Any],
    stage: str,
) -> Job:
    training = section.training or _gentler(plan.experiment)
    return plan.add(
        "train-cls",
        f"train-cls {model['arch']}, fine-tuned for {stage}",
        {
            "model": {key: value for key, value in model.items() if key != "weights"},
            "training": training.model_dump(mode="json", exclude={"threads"}),
            "alteration": dict(alteration),
            "seed": plan.experiment.seed,
            "threads": training.threads,
        },
        {"dataset": dataset, "classifier": classifier},
        local={"root": plan.experiment.data.root},
        cost=20.0,
        asked_by=stage,
    )


def _gentler(experiment: Experiment) -> TrainCls:
    """The classifier's own training with a tenth of its learning rate; Experiment sees that there is one."""
    training = (experiment.train_cls or TrainCls()).plain
    slower = training.optimizer.model_copy(update={"lr": training.optimizer.lr * _SLOWER})
    return training.model_copy(update={"optimizer": slower})


def _scoring(
    plan: Plan,
    section: EvaluateFFidelity | EvaluateIdsds,
    dataset: Job,
    tuned: Job,
    maps: Mapping[tuple[str, str], Job],
    stage: str,
    role: str,
) -> dict[str, Job]:
    settings = section.model_dump(mode="json", exclude={"training", "maps_of"})
    jobs = {}
    for method in plan.experiment.methods:
        own = maps[method.name, "test"]
        if section.maps_of == "fine_tuned":
            own = add_maps(plan, method, "test", dataset, tuned, of=f"fine-tuned for {stage}", asked_by=stage)
        jobs[f"{role}:{method.name}"] = plan.add(
            stage,
            f"{stage} {method.name}",
            {**settings, "sign": sign(method), "seed": plan.experiment.seed},
            {"dataset": dataset, "classifier": tuned, "maps": own},
            local={"root": plan.experiment.data.root},
            cost=2.0,
        )
    return jobs
