"""The ``explainer`` artifact: a network that draws masks, and all that is needed to use it. Imports no torch.

Files: ``weights.safetensors`` (its state dict; nothing of the classifier, but for explainers that train a copy of it),
``explainer.json`` (ExplainerCard), ``curve.csv`` (epoch, learning_rate, train_<term> and validation_<term>: each loss
term with its weight, ``loss`` their sum; scores).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from roarline.artifacts.files import read_json, write_json
from roarline.artifacts.tables import write_csv
from roarline.errors import ArtifactError

EXPLAINER_FILE, EXPLAINER_WEIGHTS_FILE, EXPLAINER_CURVE_FILE = "explainer.json", "weights.safetensors", "curve.csv"


class ExplainedClassifier(BaseModel):
    """The classifier that an explainer was trained for.

    Attributes:
        key, digest: Of its artifact.
        arch: Its architecture, for people.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    digest: str
    arch: str


class ExplainerCard(BaseModel):
    """``explainer.json``.

    Attributes:
        explainer: A name of ``roarline list explainers``.
        params: Its ``network`` and ``losses``.
        one_mask: True where its mask is the same for every class.
        input_size: [H, W] of the images in px.
        mean, std: Normalisation of [0, 1] pixel values: the classifier's.
        epochs, best_epoch: How long it trained, and which epoch's weights these are, from 1.
        validation: Loss terms and scores of that epoch; empty without a validation split.
        training_images: How many it saw.
        images_per_class: What they were drawn by; None: all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = 1
    explainer: str
    params: dict[str, Any]
    one_mask: bool
    classifier: ExplainedClassifier
    class_names: list[str]
    multi_label: bool
    input_size: list[int]
    mean: list[float]
    std: list[float]
    epochs: int
    best_epoch: int
    validation: dict[str, float]
    training_images: int
    images_per_class: int | None
    parameters_count: int

    def write(self, folder: Path) -> None:
        """Write ``explainer.json``."""
        write_json(folder / EXPLAINER_FILE, self.model_dump(mode="json"))

    @staticmethod
    def read(path: Path) -> ExplainerCard:
        """Read ``explainer.json``.

        Raises:
            ArtifactError: It is damaged.
        """
        try:
            return ExplainerCard.model_validate(read_json(path))
        except ValidationError as error:
            raise ArtifactError(
                f"{path}: damaged: {error.errors()[0]['msg']}; delete its folder and run again"
            ) from error


def write_explainer_curve(folder: Path, epochs: Sequence[Mapping[str, float | None]]) -> None:
    """Write ``curve.csv``, a row an epoch, its columns in the order in which they first come."""
    columns = dict.fromkeys(name for epoch in epochs for name in epoch)
    write_csv(folder / EXPLAINER_CURVE_FILE, {name: [epoch.get(name) for epoch in epochs] for name in columns})
