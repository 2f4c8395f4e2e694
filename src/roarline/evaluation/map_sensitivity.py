"""How much a map changes as slight noise is added to the image.

Shapes: B rows, C channels, H × W px, D noisy copies a row.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from roarline.evaluation.outcomes import ZERO_MAP, Judged, judged


def uniform_noise(generator: torch.Generator, count: int, height: int, width: int, radius_C: Sequence[float]) -> Tensor:
    """Noise from the cube around 0.

    Args:
        generator: What is drawn depends on it and on the shape alone.
        count: N.
        radius_C: Half the side of the cube, one number a channel, in units of the network's input.

    Returns:
        float32 [N, C, H, W] in [-radius, radius) on the generator's device.
    """
    device = generator.device
    noise = torch.rand(count, len(radius_C), height, width, generator=generator, device=device)
    radius_C11 = torch.tensor(list(radius_C), dtype=noise.dtype, device=device)[:, None, None]
    return noise.mul_(2).sub_(1) * radius_C11


def relative_change(maps_BHW: Tensor, noisy_BHW: Tensor) -> Tensor:
    """Euclidean distance of two maps of each row, as a share of the first one's norm.

    Returns:
        float64 [B]; NaN or infinite where the first map is zero everywhere.
    """
    maps, noisy = maps_BHW.flatten(1).double(), noisy_BHW.flatten(1).double()
    change: Tensor = torch.linalg.vector_norm(noisy - maps, dim=1) / torch.linalg.vector_norm(maps, dim=1)
    return change


def largest_change(changes_BD: Tensor) -> Judged:
    """Max-sensitivity: the largest change over the noisy copies.

    Args:
        changes_BD: Of ``relative_change``.

    Returns:
        Values of 0 or more; a row whose map is zero everywhere fails.

    Source: Yeh et al. 2019, arXiv 1901.09392, definition 3.1, estimated from uniform draws; captum ``sensitivity_max``.
    Differs: as captum and Quantus do, changes are taken relative to the map's norm, since methods have no common scale;
        captum takes a norm of 0 for 1.
    """
    return judged(changes_BD.amax(dim=1), (ZERO_MAP, _undefined(changes_BD)))


def mean_change(changes_BD: Tensor) -> Judged:
    """Average sensitivity: the mean change over the noisy copies; as ``largest_change`` otherwise."""
    return judged(changes_BD.mean(dim=1), (ZERO_MAP, _undefined(changes_BD)))


def _undefined(changes_BD: Tensor) -> Tensor:
    return ~torch.isfinite(changes_BD).all(dim=1)
