"""A small U-Net for images of 20 to 96 px that trains on a CPU within minutes.

Shapes: B images, K classes, H × W px.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LightUnet(nn.Module):
    """Three scales down and up again, each way joined with the features of the same size.

    The image's own size has ``width`` channels, the half 2 × and the quarter 4 × as many; at the quarter two dilated
    convolutions see 60 px around a place, all of an image or most of it. The last convolution works at the image's own
    size, so that masks can have sharp edges.

    Args:
        num_classes: K.
        width: Channels at the image's own size.
    """

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.at_whole = _convolution(3, width)
        self.at_half = nn.Sequential(_convolution(width, 2 * width, stride=2), _convolution(2 * width, 2 * width))
        self.at_quarter = nn.Sequential(
            _convolution(2 * width, 4 * width, stride=2),
            _convolution(4 * width, 4 * width, dilation=2),
            _convolution(4 * width, 4 * width, dilation=4),
        )
        self.at_half_again = _convolution(6 * width, 2 * width)
        self.at_whole_again = _convolution(3 * width, width)
        self.maps = nn.Conv2d(width, num_classes, 1)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Maps [B, K, H, W] of normalised images [B, 3, H, W]."""
        whole = self.at_whole(images_BCHW)
        half = self.at_half(whole)
        quarter = self.at_quarter(half)
        half = self.at_half_again(torch.cat([half, _resized(quarter, half)], dim=1))
        whole = self.at_whole_again(torch.cat([whole, _resized(half, whole)], dim=1))
        maps: Tensor = self.maps(whole)
        return maps


def _convolution(inputs: int, outputs: int, *, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=dilation, dilation=dilation, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


def _resized(features: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(features, size=like.shape[-2:], mode="bilinear", align_corners=False)
