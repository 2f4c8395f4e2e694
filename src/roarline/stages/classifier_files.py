"""What makes an artifact a classifier that other stages load, its card and its weights; and which images it takes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from roarline.artifacts.classifier import WEIGHTS_FILE, ClassifierCard
from roarline.artifacts.dataset import DatasetFile
from roarline.artifacts.files import atomic_path
from roarline.errors import DataError, ModelError
from roarline.stages.splits import Normalization


def write_classifier(
    folder: Path,
    model: nn.Module,
    spec: Mapping[str, Any],
    dataset: DatasetFile,
    normalization: Normalization,
    *,
    epochs: int,
    best_epoch: int | None,
    validation_accuracy: float | None,
    test_accuracy: float | None,
    label_metrics: Mapping[str, Any] | None = None,
) -> None:
    """Write ``classifier.json`` and ``weights.safetensors``.

    Args:
        spec: ``arch`` and ``params`` of the network.
        dataset: What it was trained on.
        epochs: Of its training; 0 where weights were loaded.
        label_metrics: By split, of images with several labels.
    """
    ClassifierCard(
        arch=spec["arch"],
        params=spec["params"],
        class_names=dataset.class_names,
        multi_label=dataset.multi_label,
        input_size=list(dataset.image_size) if dataset.image_size else None,
        mean=normalization.mean,
        std=normalization.std,
        best_epoch=best_epoch,
        epochs=epochs,
        validation_accuracy=validation_accuracy,
        test_accuracy=test_accuracy,
        parameters_count=sum(parameter.numel() for parameter in model.parameters()),
        resize_px=dataset.resize_px,
        crop_px=dataset.crop_px,
        stretched=dataset.stretched or None,
        label_metrics=dict(label_metrics) if label_metrics else None,
    ).write(folder)
    write_weights(folder / WEIGHTS_FILE, model)


def write_weights(path: Path, model: nn.Module) -> None:
    """Write the state dict as safetensors; a tensor that two names share is written under both."""
    state = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}
    with atomic_path(path) as partial:
        save_file(state, partial)


def size_for(dataset: DatasetFile, card: ClassifierCard) -> tuple[int, int]:
    """(H, W) in px of the data set's images, which are those that a classifier takes.

    Raises:
        DataError: They differ in size.
        ModelError: The classifier takes others.
    """
    size = dataset.image_size
    if size is None:
        raise DataError(
            f"images of {dataset.name!r} differ in size, and a batch and its maps have one size; "
            "set data.resize_px and data.crop_px"
        )
    if card.input_size is not None and tuple(card.input_size) != size:
        raise ModelError(
            f"the classifier takes images of {card.input_size[0]}×{card.input_size[1]} px, those of {dataset.name!r} "
            f"are {size[0]}×{size[1]} px; set data.resize_px and data.crop_px to its size"
        )
    return size
