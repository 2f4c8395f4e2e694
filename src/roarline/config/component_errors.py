"""What is wrong with the names and parameters of components, found on the raw mapping beside the types' own errors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from roarline.config.component import NoParams, Params, locate
from roarline.config.datasets import DATASETS
from roarline.config.explainers import EXPLAINERS
from roarline.config.methods import METHODS
from roarline.config.metrics import METRICS
from roarline.config.models import MODELS
from roarline.config.published_models import has_timm, is_weights_path, torchvision_classifiers
from roarline.config.wording import say, suggest
from roarline.errors import UserInputError

Path_ = tuple[str | int, ...]
_NOT_JSON = "holds a date, bytes, NaN or infinity: expected JSON's types, finite"


def component_errors(data: dict[str, Any]) -> list[tuple[Path_, str]]:
    """Check names and parameters of components, on the raw mapping, so that they are reported with the rest."""
    found: list[tuple[Path_, str]] = []

    def check(
        kind: str,
        where: Path_,
        block: Any,
        key: str,
        table: Any,
        free: Sequence[str] = (),
        fallback: str = "",
    ) -> None:
        if not isinstance(block, dict):
            return
        named_by = key if block.get(key) is not None else fallback
        name = block.get(named_by) if named_by else None
        if not isinstance(name, str):
            return
        params = block.get("params") or {}
        if name not in table and not _is_json(params):
            found.append(((*where, "params"), _NOT_JSON))
        if name in table:
            if isinstance(params, dict):
                try:
                    table[name].params.model_validate(params)
                except ValidationError as error:
                    found.extend(
                        (
                            (*where, "params", *e["loc"]),
                            say(e, table[name].params) + _whose(kind, name, table[name].params),
                        )
                        for e in error.errors()
                    )
            return
        if any(name.startswith(prefix) for prefix in free):
            return
        try:
            locate(name, f"roarline.{kind}s")
        except UserInputError as error:
            hint = "" if "." in name else suggest(name, list(table))
            if kind == "method" and name in EXPLAINERS:
                hint = "; it is an explainer: train it in train-explainer, and name its entry there as `explainer`"
            found.append(
                (
                    (*where, named_by),
                    (f"no {kind} is named {name!r}" if "." not in name else str(error)) + hint,
                )
            )

    check("dataset", ("data",), data.get("data"), "dataset", DATASETS)
    check("model", ("model",), data.get("model"), "arch", MODELS, free=("torchvision:", "timm:"))
    found += _published_model_errors(data.get("model"))
    attribution = data.get("attribution")
    methods = attribution.get("methods") if isinstance(attribution, dict) else None
    for index, block in enumerate(methods if isinstance(methods, list) else []):
        if isinstance(block, dict) and block.get("explainer") is not None:
            continue  # its name is that of an entry of train-explainer
        check("method", ("attribution", "methods", index), block, "method", METHODS, fallback="name")
    explainers = data.get("train-explainer")
    for index, block in enumerate(explainers if isinstance(explainers, list) else []):
        where: Path_ = ("train-explainer", index)
        named_by = "explainer" if isinstance(block, dict) and block.get("explainer") is not None else "name"
        if isinstance(block, dict) and block.get(named_by) in EXPLAINERS:
            check("explainer", where, block, named_by, EXPLAINERS)
        elif isinstance(block, dict) and isinstance(block.get(named_by), str):
            said = f"no explainer is named {block[named_by]!r}{suggest(block[named_by], list(EXPLAINERS))}"
            found.append(((*where, named_by), said))
    perturbation = data.get("evaluate-perturbation")
    metrics = perturbation.get("metrics") if isinstance(perturbation, dict) else None
    for index, metric in enumerate(metrics if isinstance(metrics, list) else []):
        found += _metric_errors(("evaluate-perturbation", "metrics", index), metric)
    return found


def _published_model_errors(model: Any) -> list[tuple[Path_, str]]:
    """Names of other packages' networks and weights, where they can be known without importing the package."""
    if not isinstance(model, dict) or not isinstance(model.get("arch"), str):
        return []
    library, colon, name = model["arch"].partition(":")
    weights = model.get("weights")
    classifiers = torchvision_classifiers() if colon and library == "torchvision" else {}
    if classifiers and name not in classifiers:
        return [(("model", "arch"), f"torchvision has no classifier {name!r}{suggest(name, list(classifiers))}")]
    if colon and library == "timm" and not has_timm():
        return [(("model", "arch"), f"{model['arch']!r} needs the package timm: pip install timm")]
    if not isinstance(weights, str) or is_weights_path(weights):
        return []
    if colon and library == "torchvision":
        known = list(classifiers.get(name, ()))
        if known and weights not in known:
            return [(("model", "weights"), f"torchvision:{name} has no weights {weights!r}{suggest(weights, known)}")]
    elif colon and library == "timm":
        if weights != "pretrained":
            return [
                (
                    ("model", "weights"),
                    f"is {weights!r}: timm's weights are part of the model's name, e.g. timm:resnet50.a1_in1k with "
                    "weights: pretrained",
                )
            ]
    else:
        return [
            (
                ("model", "weights"),
                f"is {weights!r}: {model['arch']!r} has no published weights by name; give a path to a .safetensors or "
                ".pth file",
            )
        ]
    return []


def _metric_errors(where: Path_, metric: Any) -> list[tuple[Path_, str]]:
    """What is wrong with one entry of evaluate-perturbation.metrics: a name, or a mapping."""
    known = [name for name, entry in METRICS.items() if entry.stage == "evaluate-perturbation"]
    if isinstance(metric, str):
        if metric in METRICS and metric not in known:
            return [(where, f"{metric!r} is computed by {METRICS[metric].stage}{suggest('', known)}")]
        return [] if metric in known else _own_metric_errors(where, metric, known)
    if not isinstance(metric, dict):
        return []
    for key in ("name", "metric"):
        if metric.get(key) in METRICS:
            return [((*where, key), f"{metric[key]!r} is roarline's own: it stands in the list as a bare name")]
    found = []
    if not _is_json(metric.get("params") or {}):
        found.append(((*where, "params"), _NOT_JSON))
    key = "metric" if metric.get("metric") is not None else "name"
    if isinstance(metric.get(key), str):
        found += _own_metric_errors((*where, key), metric[key], known)
    return found


def _own_metric_errors(where: Path_, path: str, known: Sequence[str]) -> list[tuple[Path_, str]]:
    try:
        locate(path, "roarline.metrics")
    except UserInputError as error:
        said = str(error) if "." in path else f"no metric is named {path!r}{suggest(path, known)}"
        return [(where, said)]
    return []


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True


def _whose(kind: str, name: str, params: type[Params]) -> str:
    if params is NoParams:
        return f" ({kind} {name!r} has no parameters)"
    return ""
