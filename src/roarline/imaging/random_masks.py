"""What is taken away at random from the images of a batch, for networks that are to know such images.

Shapes: B rows, H × W px.
"""

from __future__ import annotations

import torch
from torch import Tensor

from roarline.imaging.patches import patch_index
from roarline.imaging.ranking import removal_count


def random_pixels(rows: int, height: int, width: int, most: float, generator: torch.Generator) -> Tensor:
    """Of each image a number of pixels, uniform from none to ``most`` of them, in random places.

    One random order of the pixels serves all rows, and each takes its pixels from a place of its own in it: every
    row's pixels are a uniform draw, though rows are not independent.

    Args:
        most: In [0, 1]: largest share of the pixels.
        generator: On the CPU.

    Returns:
        bool [B, H, W], True where a pixel goes.

    Source: Zheng et al. 2024, arXiv 2410.02970, section 3: at most β of the input is removed in fine-tuning.
    """
    pixels = height * width
    order = torch.randperm(pixels, generator=generator)
    counts_B1 = torch.randint(0, removal_count(most, pixels) + 1, (rows, 1), generator=generator)
    starts_B1 = torch.randint(0, pixels, (rows, 1), generator=generator)
    return ((order - starts_B1) % pixels < counts_B1).reshape(rows, height, width)


def random_patch(rows: int, height: int, width: int, grid: int, share: float, generator: torch.Generator) -> Tensor:
    """Of some images one patch of a grid, of the others nothing.

    Args:
        grid: See ``patch_index``.
        share: In [0, 1]: probability that an image loses a patch.
        generator: On the CPU.

    Returns:
        bool [B, H, W], True where a pixel goes.

    Source: Hesse et al. 2024, arXiv 2407.11910, section 3: half of the images lose one patch in fine-tuning.
    """
    chosen_B = torch.randint(0, grid**2, (rows,), generator=generator)
    loses_B = torch.rand(rows, generator=generator) < share
    return (patch_index(height, width, grid) == chosen_B[:, None, None]) & loses_B[:, None, None]
