"""Jobs that make maps: what of a method goes into their keys. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from roarline.config.component import MethodComponent, locate
from roarline.config.experiment import Experiment, Method
from roarline.config.load import parse_params
from roarline.config.methods import METHODS
from roarline.execution.plan_explainers import explainer_input
from roarline.execution.planned import Plan, as_json, user_parameters
from roarline.stages.job import Job


def splits(experiment: Experiment) -> tuple[str, ...]:
    """The splits that every method has maps of."""
    return ("train", "validation", "test") if experiment.evaluate_roar else ("test",)


def sign(method: Method) -> str:
    """How a method's values are read where pixels are ranked."""
    component = _component(method)
    return method.sign or (component.sign if component else "signed")


def method_parameters(method: Method) -> dict[str, Any]:
    """What of a method goes into a key: everything but the name it has in this experiment."""
    component = _component(method)
    channels = method.channels or (component.channels if component else "sum")
    parameters: dict[str, Any] = {"method": method.component, "batched": method.batched, "channels": channels}
    if method.smooth is not None:
        parameters["smooth"] = as_json(method.smooth)
    if method.filter is not None:
        parameters["filter"] = as_json(method.filter)
    if component is not None:
        params = parse_params("method", method.component, component.params, method.params)
        return {**parameters, "params": params.model_dump(mode="json")}
    own = user_parameters(locate(method.component, "roarline.methods"))
    return {**parameters, "params": method.params, **own}


def add_maps(
    plan: Plan,
    method: Method,
    split: str,
    dataset: Job,
    classifier: Job,
    *,
    removed_fill: Any = None,
    of: str = "",
    asked_by: str | None = None,
) -> Job:
    """Plan one method's maps of one split, and those that a filter reads.

    Args:
        classifier: A job whose artifact is a classifier: of train-cls, or a cell of recursive ROAR.
        removed_fill: For such a cell: what stands in place of the pixels that it removed.
        of: Whose maps they are, for the label, where not the experiment's classifier's.
        asked_by: See ``Job``.
    """
    attribution = plan.experiment.attribution
    inputs = {"dataset": dataset, "classifier": classifier}
    if method.filter is not None:
        unfiltered = method.model_copy(update={"filter": None})
        inputs["maps"] = add_maps(
            plan, unfiltered, split, dataset, classifier, removed_fill=removed_fill, of=of, asked_by=asked_by
        )
    else:
        inputs |= explainer_input(plan, method, dataset, classifier, of=of, asked_by=asked_by)
    optional: dict[str, Any] = {} if attribution.limit is None else {"limit": attribution.limit}
    if removed_fill is not None:
        optional["removed_fill"] = removed_fill
    return add_extraction(plan, method, split, inputs, optional, of=of, asked_by=asked_by)


def add_extraction(
    plan: Plan,
    method: Method,
    split: str,
    inputs: Mapping[str, Job],
    optional: Mapping[str, Any],
    *,
    of: str = "",
    asked_by: str | None = None,
) -> Job:
    """Plan one job of extract-attribution-maps.

    Args:
        inputs: Role to job.
        optional: Parameters that stand in the key only where they are set.
        of: As ``add_maps`` takes it.
        asked_by: See ``Job``.
    """
    attribution = plan.experiment.attribution
    return plan.add(
        "extract-attribution-maps",
        f"extract-attribution-maps {method.name} {split}{f', {of}' if of else ''}",
        {
            **method_parameters(method),
            "split": split,
            "target": attribution.target,
            **optional,
            "dtype": attribution.dtype,
            "precision": attribution.precision,
            "seed": plan.experiment.seed,
            "threads": attribution.threads,
        },
        inputs,
        local={"root": plan.experiment.data.root, "map_compression": plan.experiment.runtime.map_compression},
        cost=0.2 if method.filter else 2.0,
        asked_by=asked_by,
    )


def _component(method: Method) -> MethodComponent | None:
    return METHODS.get(method.component)
