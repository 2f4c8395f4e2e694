"""Images as a network of recursive ROAR was trained on them: without what had been removed by then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from roarline.artifacts.removed import RemovedFile
from roarline.imaging.fills import Fill, fill_image
from roarline.stages.draws import noise_seeds


@dataclass(frozen=True)
class RetrainedImages:
    """Takes pixels away from images, joined to their masks by sample id.

    Attributes:
        removed: Of the network's artifact, open.
        fill: What stands in place of removed pixels.
        mean, std: Of the normalisation.
        fill_mean: The training split's mean colour.
        seed: The experiment's.
    """

    removed: RemovedFile
    fill: Fill
    mean: Sequence[float]
    std: Sequence[float]
    fill_mean: Sequence[float]
    seed: int

    def __call__(self, images_BCHW: Tensor, sample_ids: Sequence[str]) -> Tensor:
        """Normalised images [B, C, H, W] to such images without the removed pixels."""
        gone_BHW = torch.from_numpy(self.removed.masks(sample_ids)).to(images_BCHW.device, non_blocking=True)
        seeds_B = noise_seeds(self.seed, "uniform", sample_ids, images_BCHW.device)
        fill = fill_image(images_BCHW, self.fill, self.mean, self.std, fill_mean=self.fill_mean, seeds_B=seeds_B)
        return torch.where(gone_BHW[:, None], fill, images_BCHW)
