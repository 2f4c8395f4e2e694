"""What the report says of sanity checks, from the summary and the artifacts behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from roarline.artifacts.classifier import CURVE_FILE
from roarline.artifacts.store import Artifact
from roarline.artifacts.tables import read_csv
from roarline.report.sanity import Sanity, build_sanity
from roarline.report.scores import Method, Scores


def sanity_section(
    section: Mapping[str, Any] | None, inputs: Mapping[str, Artifact], methods: Sequence[Method], scores: Scores
) -> Sanity:
    """The section; empty where the experiment has no evaluate-sanity.

    Args:
        section: The experiment's settings of the stage.
        inputs: Of the report.
    """
    if section is None:
        return Sanity()
    labels = next((inputs[role] for role in (f"labels:{method.name}" for method in methods) if role in inputs), None)
    accuracy = None if labels is None else _shuffled_accuracy(labels)
    return build_sanity(scores, methods, order=section["order"], shuffled_accuracy=accuracy)


def _shuffled_accuracy(labels: Artifact) -> float | None:
    """Training accuracy of the network of shuffled labels in its last epoch."""
    maps = labels.manifest.inputs["shuffled_maps"]
    entry = labels.store.open(maps.stage, maps.key).manifest.inputs["classifier"]
    classifier = labels.store.open(entry.stage, entry.key)
    if CURVE_FILE not in classifier.manifest.files:
        return None
    column = read_csv(classifier.file(CURVE_FILE)).get("train_accuracy", [])
    return float(column[-1]) if column and column[-1] else None
