"""What sections must have because of what others say, found on the raw mapping. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from roarline.config.component_errors import Path_
from roarline.config.datasets import DATASETS
from roarline.config.explainer_errors import explainer_errors

_TRAINS = ("evaluate-roar", "evaluate-f-fidelity", "evaluate-idsds")


def section_errors(data: Mapping[str, Any]) -> list[tuple[Path_, str]]:
    """Compare sections; what is of a wrong type is left to the types' own errors.

    Args:
        data: The configuration; sections may be missing or None.

    Returns:
        (key path, what is wrong) of every problem.
    """

    def section(name: str) -> Mapping[str, Any] | None:
        value = data.get(name)
        return value if isinstance(value, Mapping) else None

    found: list[tuple[Path_, str]] = []
    model, trained = section("model"), data.get("train-cls") is not None
    if not trained and model is not None and model.get("weights") is None:
        found.append((("model",), "needs a train-cls section (to train the classifier) or model.weights (to load it)"))
    for name in _TRAINS:
        evaluation = section(name)
        if evaluation is not None and evaluation.get("training") is None and not trained:
            found.append(((name,), "needs a training section of its own where there is no train-cls section"))
    attribution = section("attribution") or {}
    if section("evaluate-roar") is not None and attribution.get("limit") is not None:
        found.append(
            (("attribution", "limit"), "evaluate-roar needs maps of all images: leave it out, or use data.limit")
        )
    images = section("data") or {}
    several = _several_labels(images)
    if several and attribution.get("target") == "label":
        either = ", or max_shapes: 1" if images["dataset"] == "shapes" else ""
        said = f"is label, and images of {images['dataset']} may have several: use predicted or every-label{either}"
        found.append((("attribution", "target"), said))
    return found + explainer_errors(data, several_labels=several)


def _several_labels(images: Mapping[str, Any]) -> bool:
    """Whether images may have several labels; False where the section data itself is wrong."""
    dataset = DATASETS.get(images["dataset"]) if isinstance(images.get("dataset"), str) else None
    if dataset is None:
        return False
    try:
        return dataset.multi_label(dataset.params.model_validate(images.get("params") or {}))
    except ValidationError:
        return False
