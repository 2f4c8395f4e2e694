"""Jobs that make maps: what of a method goes into their keys. Imports no torch."""

from __future__ import annotations

from typing import Any

from roarline.config.component import MethodComponent, locate
from roarline.config.experiment import Experiment, Method
from roarline.config.load import parse_params
from roarline.config.methods import METHODS
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


def add_maps(plan: Plan, method: Method, split: str, dataset: Job, classifier: Job) -> Job:
    """Plan one method's maps of one split, and those that a filter reads."""
    attribution = plan.experiment.attribution
    inputs = {"dataset": dataset, "classifier": classifier}
    if method.filter is not None:
        unfiltered = method.model_copy(update={"filter": None})
        inputs["maps"] = add_maps(plan, unfiltered, split, dataset, classifier)
    limit = {} if attribution.limit is None else {"limit": attribution.limit}
    return plan.add(
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


def _component(method: Method) -> MethodComponent | None:
    return METHODS.get(method.component)
