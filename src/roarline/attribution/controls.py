"""Controls: maps that know nothing of the network. A method that doesn't beat them tells nothing.

Shapes: B images, C channels, H × W px.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


def random(model: nn.Module, images_BCHW: Tensor, targets_B: Tensor, *, seeds: Sequence[int]) -> Tensor:
    """Uniform noise in [0, 1), fixed for each row by its seed.

    Args:
        seeds: One a row.

    Returns:
        [B, H, W], equal on every device.

    Source: control of Hooker et al. 2019, arXiv 1806.10758.
    Differs: one draw a pixel; the released code draws Bernoulli values for each pixel and channel, which tie.
    """
    height, width = images_BCHW.shape[2:]
    rows = [torch.rand((height, width), generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(rows).to(images_BCHW)


def constant(model: nn.Module, images_BCHW: Tensor, targets_B: Tensor, *, value: float = 1.0) -> Tensor:
    """The same value everywhere, so that only tie-breaking ranks the pixels.

    Returns:
        [B, H, W].
    """
    batch, _, height, width = images_BCHW.shape
    return images_BCHW.new_full((batch, height, width), value)


def centre_gaussian(model: nn.Module, images_BCHW: Tensor, targets_B: Tensor, *, sigma: float = 0.25) -> Tensor:
    """exp(-d² / 2s²) with d the distance of a pixel's centre to the image's centre.

    Args:
        sigma: s as a fraction of the shorter side.

    Returns:
        [B, H, W] in (0, 1].
    """
    batch, _, height, width = images_BCHW.shape
    rows = torch.arange(height, dtype=torch.float64) - (height - 1) / 2
    columns = torch.arange(width, dtype=torch.float64) - (width - 1) / 2
    squared_distance = rows[:, None] ** 2 + columns[None, :] ** 2
    gaussian = torch.exp(-squared_distance / (2 * (sigma * min(height, width)) ** 2))
    return gaussian.to(images_BCHW).expand(batch, height, width).clone()


def sobel(model: nn.Module, images_BCHW: Tensor, targets_B: Tensor) -> Tensor:
    """Edge strength of the normalised image: Euclidean norm of both Sobel derivatives over all channels.

    Borders are replicated. Derivatives are in units of value per pixel (the kernel is divided by 8).

    Returns:
        [B, H, W], 0 or more.

    Source: control of Hooker et al. 2019, arXiv 1806.10758.
    Differs: both axes; the released code takes one derivative, which is blind to edges along it.
    """
    channels = images_BCHW.shape[1]
    across = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8
    kernels = torch.stack([across, across.T]).to(images_BCHW)[:, None].repeat(channels, 1, 1, 1)
    padded = functional.pad(images_BCHW, (1, 1, 1, 1), mode="replicate")
    derivatives = functional.conv2d(padded, kernels, groups=channels)
    return derivatives.square().sum(dim=1).sqrt()


def ground_truth(
    model: nn.Module, images_BCHW: Tensor, targets_B: Tensor, *, ground_truth: Callable[[], Tensor]
) -> Tensor:
    """The perfect mask: 1 at pixels of the target's objects, 0 elsewhere, from segmentation, else from boxes.

    Args:
        ground_truth: Gives the masks [B, H, W].

    Returns:
        [B, H, W] in {0, 1}; where an image has no object of the target's class, its objects of all classes; where it
        has none at all, 0 everywhere, so that only tie-breaking ranks its pixels.

    Source: control; what every localization metric calls best.
    """
    return ground_truth().to(images_BCHW)
