"""What is taken away from images when a classifier is fine-tuned, as a job's parameters say it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from roarline.artifacts.dataset import DatasetFile
from roarline.imaging.fills import fill_image
from roarline.imaging.random_masks import Gaps, random_patch, random_pixels
from roarline.stages.splits import Alter, Normalization

PIXELS, PATCH = "pixels", "patch"


@dataclass(frozen=True)
class Alteration:
    """Random gaps in images.

    Attributes:
        parameters: ``kind`` (``pixels``: with ``most``; ``patch``: with ``grid`` and ``share``) and ``fill``.
        normalization: Of the images.
        fill_mean: The training split's mean colour.
    """

    parameters: Mapping[str, Any]
    normalization: Normalization
    fill_mean: Sequence[float]

    def of_batch(self, images_BCHW: Tensor, generator: torch.Generator) -> Tensor:
        """A batch of training images with gaps that the generator draws."""
        rows = len(images_BCHW)
        return self._altered(images_BCHW, self._gaps(rows, images_BCHW, generator), torch.arange(rows))

    def of_split(self, count: int, seed: int) -> Alter:
        """The images of a split with gaps that stay the same, whatever the batches: for validation.

        Args:
            count: Images of the split.
        """
        known: list[Gaps] = []

        def alter(images_BCHW: Tensor, places_B: Tensor) -> Tensor:
            if not known:
                known.append(self._gaps(count, images_BCHW, torch.Generator().manual_seed(seed)))
            return self._altered(images_BCHW, known[0], places_B.cpu())

        return alter

    def _gaps(self, count: int, images_BCHW: Tensor, generator: torch.Generator) -> Gaps:
        height, width = images_BCHW.shape[-2:]
        if self.parameters["kind"] == PIXELS:
            return random_pixels(count, height, width, self.parameters["most"], generator)
        return random_patch(count, height, width, self.parameters["grid"], self.parameters["share"], generator)

    def _altered(self, images_BCHW: Tensor, gaps: Gaps, rows_B: Tensor) -> Tensor:
        mean, std = self.normalization.mean, self.normalization.std
        fill = fill_image(images_BCHW, self.parameters["fill"], mean, std, fill_mean=self.fill_mean)
        gone_BHW = gaps.masks(rows_B).to(images_BCHW.device, non_blocking=True)
        return torch.where(gone_BHW[:, None], fill, images_BCHW)


def fill_colour(dataset: DatasetFile, mean: Sequence[float]) -> list[float]:
    """The training split's mean; where the data set has no training split, the mean that the classifier subtracts."""
    return list(mean) if dataset.mean is None else [float(value) for value in dataset.mean]
