"""Random crops and flips of whole batches, after removal, from draws that were made beforehand.

Shapes: B rows, C channels, H × W px.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from roarline.config.training import Augmentation


@dataclass(frozen=True)
class Draws:
    """What chance decided for N images: how far the crop lies from the padded image's corner, and who is mirrored.

    Attributes:
        top_N, left_N: int64, in [0, 2 · padding].
        flip_N: bool.
        padding_px: Zeros around the image.
    """

    top_N: Tensor
    left_N: Tensor
    flip_N: Tensor
    padding_px: int

    def __getitem__(self, rows: slice) -> Draws:
        """The draws of some of the images."""
        return Draws(self.top_N[rows], self.left_N[rows], self.flip_N[rows], self.padding_px)


def draw(settings: Augmentation, count: int, generator: torch.Generator, device: torch.device) -> Draws | None:
    """Decide for ``count`` images at once; None where nothing is to be changed.

    Args:
        generator: On the CPU, so that every device gets the same draws.
    """
    padding = settings.crop_padding_px
    if padding == 0 and not settings.horizontal_flip:
        return None
    corners = torch.randint(0, 2 * padding + 1, (2, count), generator=generator)
    flips = torch.rand(count, generator=generator) < (0.5 if settings.horizontal_flip else 0.0)
    return Draws(corners[0].to(device), corners[1].to(device), flips.to(device), padding)


def augment(images_BCHW: Tensor, draws: Draws) -> Tensor:
    """Pad with zeros (in normalised space: the normalisation's mean), cut the size back out, mirror left to right.

    Args:
        images_BCHW: [B, C, H, W].
        draws: Of these B images.

    Returns:
        [B, C, H, W], a new tensor.
    """
    rows, channels, height, width = images_BCHW.shape
    padded = F.pad(images_BCHW, [draws.padding_px] * 4)
    device = images_BCHW.device
    across = torch.arange(width, device=device)
    y_BH = draws.top_N[:, None] + torch.arange(height, device=device)
    x_BW = draws.left_N[:, None] + torch.where(draws.flip_N[:, None], width - 1 - across, across)
    row_B111 = torch.arange(rows, device=device)[:, None, None, None]
    channel_C11 = torch.arange(channels, device=device)[:, None, None]
    return padded[row_B111, channel_C11, y_BH[:, None, :, None], x_BW[:, None, None, :]]
