"""The ``classifier`` artifact: weights, architecture, preprocessing, accuracies, training curve. Imports no torch.

Files: ``weights.safetensors`` (the state dict), ``classifier.json`` (ClassifierCard), ``curve.csv`` (epoch,
learning_rate, train_loss, train_accuracy, validation_loss, validation_accuracy; where the loss has several terms, each
as train_<term> and validation_<term>).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from roarline.artifacts.files import read_json, write_json
from roarline.artifacts.tables import write_csv
from roarline.errors import ArtifactError

CARD_FILE, WEIGHTS_FILE, CURVE_FILE = "classifier.json", "weights.safetensors", "curve.csv"
CURVE_COLUMNS = (
    "epoch",
    "learning_rate",
    "train_loss",
    "train_accuracy",
    "validation_loss",
    "validation_accuracy",
)


class ClassifierCard(BaseModel):
    """``classifier.json``.

    Attributes:
        mean, std: Normalisation of [0, 1] pixel values, one number for each of the 3 input channels.
        input_size: [H, W] of network inputs in px, or None where images differ in size.
        resize_px, crop_px: How images were brought to that size: the shorter side resized (bilinear, antialiased), then
            a centre square cut; None: not.
        stretched: True where both sides were resized to resize_px; None: not.
        label_metrics: Of images with several labels: by split (``validation``, ``test``), what
            ``evaluation.label_metrics`` says; None for others.
        best_epoch: The epoch whose weights these are, from 1; None where weights were loaded.
        accuracies: In [0, 1]; for multi-label data the share of right (image, class) decisions, logit > 0. None where
            the split has no images. A fine-tuned copy was validated on images with gaps.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = 1
    arch: str
    params: dict[str, Any]
    class_names: list[str]
    multi_label: bool
    input_channels: int = 3
    input_size: list[int] | None
    mean: list[float]
    std: list[float]
    best_epoch: int | None
    epochs: int
    validation_accuracy: float | None
    test_accuracy: float | None
    parameters_count: int
    resize_px: int | None = None
    crop_px: int | None = None
    stretched: bool | None = None
    label_metrics: dict[str, Any] | None = None

    def write(self, folder: Path) -> None:
        """Write ``classifier.json``."""
        unset = {name for name in ("resize_px", "crop_px", "stretched", "label_metrics") if getattr(self, name) is None}
        write_json(folder / CARD_FILE, self.model_dump(mode="json", exclude=unset))

    @staticmethod
    def read(path: Path) -> ClassifierCard:
        """Read ``classifier.json``.

        Raises:
            ArtifactError: It is damaged.
        """
        try:
            return ClassifierCard.model_validate(read_json(path))
        except ValidationError as error:
            raise ArtifactError(
                f"{path}: damaged: {error.errors()[0]['msg']}; delete its folder and run again"
            ) from error


def write_curve(folder: Path, epochs: Sequence[Mapping[str, float | None]]) -> None:
    """Write ``curve.csv``.

    Args:
        epochs: A mapping for each epoch; CURVE_COLUMNS come first, empty where they are missing, then further loss
            terms and scores.
    """
    columns = dict.fromkeys((*CURVE_COLUMNS, *(name for epoch in epochs for name in epoch)))
    write_csv(folder / CURVE_FILE, {column: [epoch.get(column) for epoch in epochs] for column in columns})
