"""A small U-Net for images of 20 to 96 px that trains on a CPU within minutes.

Shapes: B images, K classes, H × W px.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LightUnet(nn.Module):
    """Two convolutions a scale on the way down, one on the way up, which sees the features of its size again.

    How far a place sees is a choice: about 13, 33, 70 px with 1, 2, 3 levels. Where that is about an object, the maps
    of an image's classes come apart, since what shows one object alone is learned from images with one; a place that
    sees the whole image may just as well spread each class over all objects.

    Args:
        num_classes: K.
        width: Channels at the image's own size; twice as many with every level.
        levels: How often the sides are halved.
    """

    def __init__(self, num_classes: int, width: int, levels: int) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(levels + 1)]
        self.stem = _convolution(3, width)
        self.down = nn.ModuleList(
            nn.Sequential(_convolution(fine, coarse, stride=2), _convolution(coarse, coarse))
            for fine, coarse in pairwise(widths)
        )
        self.up = nn.ModuleList(_convolution(fine + coarse, fine) for fine, coarse in pairwise(widths))
        self.maps = nn.Conv2d(width, num_classes, 1)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Maps [B, K, H, W] of normalised images [B, 3, H, W]."""
        features = [self.stem(images_BCHW)]
        for down in self.down:
            features.append(down(features[-1]))
        joined = features.pop()
        for up in reversed(self.up):
            finer = features.pop()
            coarser = F.interpolate(joined, size=finer.shape[-2:], mode="bilinear", align_corners=False)
            joined = up(torch.cat([finer, coarser], dim=1))
        maps: Tensor = self.maps(joined)
        return maps


def _convolution(inputs: int, outputs: int, *, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())
