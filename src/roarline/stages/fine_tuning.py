"""What is taken away from training images when a classifier is fine-tuned, as a job's parameters say it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from roarline.artifacts.dataset import DatasetFile
from roarline.imaging.fills import Fill, fill_image
from roarline.imaging.random_masks import random_patch, random_pixels
from roarline.stages.splits import Normalization
from roarline.training.loop import AlterBatch

PIXELS, PATCH = "pixels", "patch"


def alteration(parameters: Mapping[str, Any], dataset: DatasetFile, normalization: Normalization) -> AlterBatch:
    """How every batch of training images is altered.

    Args:
        parameters: ``kind`` (``pixels``: with ``most``; ``patch``: with ``grid`` and ``share``) and ``fill``.
    """
    fill_mean = fill_colour(dataset, normalization.mean)

    def alter(images_BCHW: Tensor, generator: torch.Generator) -> Tensor:
        rows, _, height, width = images_BCHW.shape
        if parameters["kind"] == PIXELS:
            gone_BHW = random_pixels(rows, height, width, parameters["most"], generator)
        else:
            gone_BHW = random_patch(rows, height, width, parameters["grid"], parameters["share"], generator)
        kind: Fill = parameters["fill"]
        fill = fill_image(images_BCHW, kind, normalization.mean, normalization.std, fill_mean=fill_mean)
        return torch.where(gone_BHW.to(images_BCHW.device)[:, None], fill, images_BCHW)

    return alter


def fill_colour(dataset: DatasetFile, mean: Sequence[float]) -> list[float]:
    """The training split's mean; where the data set has no training split, the mean that the classifier subtracts."""
    return list(mean) if dataset.mean is None else [float(value) for value in dataset.mean]
