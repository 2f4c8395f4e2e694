"""What is taken away at random from images, for networks that are to know such images.

Shapes: N images, B of them, H × W px.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from roarline.imaging.patches import patch_index
from roarline.imaging.ranking import removal_count


class Gaps(Protocol):
    """What chance decided for N images."""

    def masks(self, rows_B: Tensor) -> Tensor:
        """bool [B, H, W] of some of the images, True where a pixel goes, on the CPU."""
        ...


@dataclass(frozen=True)
class PixelGaps:
    """Pixels in random places; see ``random_pixels``.

    Attributes:
        places_HW: int64, each pixel's place in a random order.
        starts_N: int64, where in that order an image's pixels begin.
        counts_N: int64, how many they are.
    """

    places_HW: Tensor
    starts_N: Tensor
    counts_N: Tensor

    def masks(self, rows_B: Tensor) -> Tensor:
        """See ``Gaps``."""
        starts, counts = self.starts_N[rows_B, None, None], self.counts_N[rows_B, None, None]
        return (self.places_HW - starts) % self.places_HW.numel() < counts


@dataclass(frozen=True)
class PatchGaps:
    """A patch of some images; see ``random_patch``.

    Attributes:
        patches_HW: int64, the patch that each pixel lies in.
        chosen_N: int64, the patch that goes; -1: none.
    """

    patches_HW: Tensor
    chosen_N: Tensor

    def masks(self, rows_B: Tensor) -> Tensor:
        """See ``Gaps``."""
        return self.patches_HW == self.chosen_N[rows_B, None, None]


def random_pixels(images: int, height: int, width: int, most: float, generator: torch.Generator) -> PixelGaps:
    """Of each image a number of pixels, uniform from none to ``most`` of them, in random places.

    One random order of the pixels serves all images, and each takes its pixels from a place of its own in it: every
    image's pixels are a uniform draw, though images are not independent.

    Args:
        images: N.
        most: In [0, 1]: largest share of the pixels.
        generator: On the CPU.

    Source: Zheng et al. 2024, arXiv 2410.02970, section 3: at most β of the input is removed in fine-tuning.
    """
    pixels = height * width
    return PixelGaps(
        torch.randperm(pixels, generator=generator).reshape(height, width),
        torch.randint(0, pixels, (images,), generator=generator),
        torch.randint(0, removal_count(most, pixels) + 1, (images,), generator=generator),
    )


def random_patch(
    images: int, height: int, width: int, grid: int, share: float, generator: torch.Generator
) -> PatchGaps:
    """Of some images one patch of a grid, of the others nothing.

    Args:
        images: N.
        grid: See ``patch_index``.
        share: In [0, 1]: probability that an image loses a patch.
        generator: On the CPU.

    Source: Hesse et al. 2024, arXiv 2407.11910, section 3: half of the images lose one patch in fine-tuning.
    """
    chosen = torch.randint(0, grid**2, (images,), generator=generator)
    loses = torch.rand(images, generator=generator) < share
    return PatchGaps(patch_index(height, width, grid), torch.where(loses, chosen, -1))
