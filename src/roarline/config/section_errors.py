"""What sections must have because of what others say, found on the raw mapping. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from roarline.config.component_errors import Path_
from roarline.config.dataset_params import ShapesParams

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
    most = (images.get("params") or {}).get("max_shapes", ShapesParams().max_shapes)
    if images.get("dataset") == "shapes" and attribution.get("target") == "label" and most != 1:
        found.append(
            (
                ("attribution", "target"),
                "is label, and images of shapes may have several: use predicted or every-label, or max_shapes: 1",
            )
        )
    return found
