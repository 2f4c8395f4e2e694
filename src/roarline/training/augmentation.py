"""Random crops and flips of whole batches, after removal, from draws that were made beforehand.

Shapes: B rows, C channels, H × W px.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from roarline.config.training import Augmentation

_LARGEST_RATIO = 4 / 3


@dataclass(frozen=True)
class Draws:
    """What chance decided for N images: how far the crop lies from the padded image's corner, and who is mirrored.

    Attributes:
        top_N, left_N: int64, in [0, 2 · padding].
        flip_N: bool.
        padding_px: Zeros around the image.
        boxes_N4: Crops that are resized to the whole image, as parts of its sides: top, left, height, width; or None.
    """

    top_N: Tensor
    left_N: Tensor
    flip_N: Tensor
    padding_px: int
    boxes_N4: Tensor | None = None

    def __getitem__(self, rows: slice | Tensor) -> Draws:
        """The draws of some of the images."""
        if isinstance(rows, Tensor):
            rows = rows.to(self.flip_N.device)
        boxes = None if self.boxes_N4 is None else self.boxes_N4[rows]
        return Draws(self.top_N[rows], self.left_N[rows], self.flip_N[rows], self.padding_px, boxes)


def draw(settings: Augmentation, count: int, generator: torch.Generator, device: torch.device) -> Draws | None:
    """Decide for ``count`` images at once; None where nothing is to be changed.

    Args:
        generator: On the CPU, so that every device gets the same draws.
    """
    padding, smallest = settings.crop_padding_px, settings.resized_crop
    if padding == 0 and not settings.horizontal_flip and smallest is None:
        return None
    corners = torch.randint(0, 2 * padding + 1, (2, count), generator=generator)
    flips = torch.rand(count, generator=generator) < (0.5 if settings.horizontal_flip else 0.0)
    boxes = None if smallest is None else _boxes(smallest, count, generator).to(device)
    return Draws(corners[0].to(device), corners[1].to(device), flips.to(device), padding, boxes)


def _boxes(smallest: float, count: int, generator: torch.Generator) -> Tensor:
    """Boxes of a uniform share of the area and a log-uniform ratio of their sides, anywhere within the image."""
    area, ratio, top, left = torch.rand((4, count), generator=generator, dtype=torch.float64)
    sides = (smallest + (1 - smallest) * area).sqrt()
    stretch = (math.log(_LARGEST_RATIO) * (2 * ratio - 1)).exp().sqrt()
    height, width = (sides / stretch).clamp(max=1), (sides * stretch).clamp(max=1)
    return torch.stack([top * (1 - height), left * (1 - width), height, width], 1).float()


def augment(images_BCHW: Tensor, draws: Draws) -> Tensor:
    """Pad with zeros (in normalised space: the normalisation's mean), cut the size back out, mirror left to right.

    With boxes, the box is cut out and resized (bilinear) to the whole image before that.

    Args:
        images_BCHW: [B, C, H, W].
        draws: Of these B images.

    Returns:
        [B, C, H, W], a new tensor.

    Differs: a box that is too wide or too high is cut at the image's sides, while torchvision's RandomResizedCrop draws
    another; and boxes are cut from the stored images, which data.crop_px may have cut before.
    """
    if draws.boxes_N4 is not None:
        images_BCHW = _cut_out(images_BCHW, draws.boxes_N4)
    rows, channels, height, width = images_BCHW.shape
    padded = F.pad(images_BCHW, [draws.padding_px] * 4)
    device = images_BCHW.device
    across = torch.arange(width, device=device)
    y_BH = draws.top_N[:, None] + torch.arange(height, device=device)
    x_BW = draws.left_N[:, None] + torch.where(draws.flip_N[:, None], width - 1 - across, across)
    row_B111 = torch.arange(rows, device=device)[:, None, None, None]
    channel_C11 = torch.arange(channels, device=device)[:, None, None]
    return padded[row_B111, channel_C11, y_BH[:, None, :, None], x_BW[:, None, None, :]]


def _cut_out(images_BCHW: Tensor, boxes_B4: Tensor) -> Tensor:
    """Each image's box, resized to the whole image."""
    top, left, height, width = boxes_B4.to(images_BCHW.dtype).unbind(1)
    zero = torch.zeros_like(top)
    across = torch.stack([width, zero, 2 * left + width - 1], 1)  # in grid_sample's coordinates, -1 to 1
    down = torch.stack([zero, height, 2 * top + height - 1], 1)
    grid = F.affine_grid(torch.stack([across, down], 1), list(images_BCHW.shape), align_corners=False)
    return F.grid_sample(images_BCHW, grid, padding_mode="border", align_corners=False)
