"""All that the page shows except times and versions; ``report.json`` is this, with pictures as hashes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from roarline.report.class_matrix import ClassMatrix
from roarline.report.comparisons import Comparisons
from roarline.report.gallery import Item
from roarline.report.leaderboard import Leaderboard
from roarline.report.panels import Panel
from roarline.report.pictures import picture_sha256
from roarline.report.sanity import Sanity
from roarline.report.scores import Method, Score
from roarline.report.text import Passage

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Failure:
    """Values that are missing, and why.

    Attributes:
        count: How many samples (or rows) failed so.
        examples: A few sample ids.
    """

    method: str
    metric: str
    setting: str
    count: int
    status: str
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClassifierFacts:
    """What the page says of the classifier; accuracies in [0, 1], None where a split has no images."""

    arch: str
    params: Mapping[str, Any]
    parameters_count: int
    input_size: tuple[int, ...] | None
    epochs: int
    best_epoch: int | None
    train_accuracy: float | None
    validation_accuracy: float | None
    test_accuracy: float | None
    multi_label: bool


@dataclass(frozen=True)
class Content:
    """The page's content.

    Attributes:
        sanity: What is left of maps where the network knows nothing.
        settings: (name, value) pairs in words: what the experiment asked for.
        leaderboard: What was measured with the classifier; ``localization``: against ground truth, and of maps alone.
        retraining: Mode (``roar``, ``kar``, ``recursive_roar``) to its panels: accuracy, leakage; ``f_fidelity``: two.
        comparisons: How far the ranking can be trusted; ``words``: what its pictures' words mean.
        class_matrices: What the classifier says of a class where only one class's mask is left, a method each.
        removed_fraction: Share of pixels removed in the gallery's masked images.
    """

    title: str
    question: str
    answer: str
    settings: tuple[tuple[str, str], ...]
    methods: tuple[Method, ...]
    confidence: float
    leaderboard: Leaderboard
    localization: Leaderboard
    passages: tuple[Passage, ...]
    retraining: Mapping[str, tuple[Panel, ...]]
    perturbation: tuple[Panel, ...]
    training: tuple[Panel, ...]
    gallery: tuple[Item, ...]
    removed_fraction: float
    fill: str
    classifier: ClassifierFacts
    failures: tuple[Failure, ...]
    scores: tuple[Score, ...]
    comparisons: Comparisons = field(default_factory=Comparisons)
    words: tuple[tuple[str, str], ...] = ()
    sanity: Sanity = field(default_factory=Sanity)
    class_matrices: tuple[ClassMatrix, ...] = ()

    @property
    def panels(self) -> tuple[Panel, ...]:
        """Every figure of the page."""
        retraining = (panel for mode in self.retraining.values() for panel in mode)
        return (*retraining, *self.perturbation, *self.sanity.panels, *self.training)


def as_json(content: Content) -> dict[str, Any]:
    """The content as JSON types: equal inputs give equal JSON."""
    plain = _plain(content)
    return {"schema_version": SCHEMA_VERSION, **plain}


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return picture_sha256(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value
