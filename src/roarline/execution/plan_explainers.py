"""Jobs of train-explainer, and which job's explainer a method draws with. Imports no torch."""

from __future__ import annotations

from typing import Any

from roarline.config.component import locate
from roarline.config.experiment import Method
from roarline.config.explainers import EXPLAINERS, Explainer
from roarline.config.load import parse_params
from roarline.config.masker_params import BUILT_IN_INFILLERS
from roarline.execution.planned import Plan, fixed_weights, user_parameters
from roarline.stages.job import Job

STAGE = "train-explainer"


def explainer_input(
    plan: Plan, method: Method, dataset: Job, classifier: Job, *, of: str = "", asked_by: str | None = None
) -> dict[str, Job]:
    """The input that a method which is an explainer needs wherever it is called; none for other methods.

    Args:
        classifier: A job whose artifact is the classifier that is explained.
        of: Whose explainer it is, for the label, where not the experiment's classifier's.
        asked_by: See ``Job``.
    """
    if method.explainer is None:
        return {}
    entry = next(entry for entry in plan.experiment.train_explainer if entry.name == method.explainer)
    return {"explainer": add_explainer(plan, entry, dataset, classifier, of=of, asked_by=asked_by)}


def add_explainer(
    plan: Plan, entry: Explainer, dataset: Job, classifier: Job, *, of: str = "", asked_by: str | None = None
) -> Job:
    """Plan the training of one explainer for one classifier.

    Args:
        of: As ``explainer_input`` takes it.
        asked_by: See ``Job``.
    """
    component = EXPLAINERS[entry.component]
    params = parse_params("explainer", entry.component, component.params, entry.params).model_dump(mode="json")
    local: dict[str, Any] = {"root": plan.experiment.data.root}
    if "weights" in params["network"]:
        where = f"train-explainer.{entry.name}.params.network.weights"
        params["network"]["weights"], found = fixed_weights(plan, params["network"]["weights"], where)
        local |= found
    parameters: dict[str, Any] = {
        "explainer": entry.component,
        "params": params,
        "training": entry.training.model_dump(mode="json"),
        "seed": plan.experiment.seed,
        "threads": entry.threads,
    }
    infiller = params["losses"].get("infill", {}).get("infiller", "none")
    if infiller not in BUILT_IN_INFILLERS:
        parameters["infiller"] = user_parameters(locate(infiller, "roarline.infillers"))
    if entry.images_per_class is not None:
        parameters["images_per_class"] = entry.images_per_class
    if classifier.parameters.get("shuffle_labels"):  # what the classifier learned, its explainer is to explain
        parameters["shuffle_labels"] = True
    label = f"{STAGE} {entry.name}{f', {of}' if of else ''}"
    inputs = {"dataset": dataset, "classifier": classifier}
    return plan.add(STAGE, label, parameters, inputs, local=local, cost=20.0, asked_by=asked_by)
