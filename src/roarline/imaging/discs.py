"""Soft discs at an image's centre, of which one may be enough to hide its object."""

from __future__ import annotations

import torch
from torch import Tensor

from roarline.imaging.smoothing import gaussian_blur

# Published for images of 224 px.
_SIDE_PX, _RADII_PX, _SIGMA_PX = 224, range(0, 175, 5), 10.0


def centred_discs(height: int, width: int) -> Tensor:
    """Discs of growing radius, their edges under a Gaussian; radii and edges scale with the longer side.

    Returns:
        [35, H, W] float64 in [0, 1]; the largest covers the image.

    Source: ruthcfong/perturb_explanations: radii 0, 5, … 170 px, σ 10 px.
    """
    scale = max(height, width) / _SIDE_PX
    rows = torch.arange(height, dtype=torch.float64) - (height - 1) / 2
    columns = torch.arange(width, dtype=torch.float64) - (width - 1) / 2
    distance = torch.hypot(rows[:, None], columns[None, :])
    discs = torch.stack([(distance <= radius * scale).double() for radius in _RADII_PX])
    return gaussian_blur(discs, _SIGMA_PX * scale)
