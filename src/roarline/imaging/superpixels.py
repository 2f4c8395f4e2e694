"""Superpixels and grid cells: labels of regions, and the way from a number a region to a number a pixel.

Shapes: B images, C channels, H × W px, F regions, n states.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from skimage.segmentation import slic
from torch import Tensor

Superpixels = Literal["slic", "grid"]


def find_superpixels(
    images_BCHW: Tensor,
    kind: Superpixels,
    segments: int,
    *,
    compactness: float = 20.0,
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
) -> Tensor:
    """Cut each image into regions. SLIC runs on the CPU, image after image.

    Args:
        images_BCHW: Normalised: (pixel - mean) / std with pixels in [0, 1].
        kind: ``slic``: by colour and place; ``grid``: about square cells, the same for all images.
        segments: About how many; SLIC gives what the image suggests, the grid the nearest square number.
        compactness: SLIC: weight of place against colour (CIELAB where there are 3 channels). At 10, which is common, a
            finely patterned image such as a zebra's falls into far fewer regions than asked for.
        mean: Of the normalisation, 1 or C numbers.
        std: Of the normalisation, 1 or C numbers.

    Returns:
        int64 [B, H, W] on the images' device, each image's labels 0 … F - 1 without a gap.

    Raises:
        ValueError: There is no such kind.

    Source: Achanta et al. 2012, SLIC, TPAMI 34(11); scikit-image's implementation.
    """
    batch, _, height, width = images_BCHW.shape
    if kind == "grid":
        return grid_cells(height, width, max(1, round(segments**0.5)), images_BCHW.device).expand(batch, -1, -1)
    if kind != "slic":
        raise ValueError(f"superpixels are {kind!r}, expected slic or grid")
    scale = torch.tensor(list(std), dtype=torch.float64).reshape(1, -1, 1, 1)
    offset = torch.tensor(list(mean), dtype=torch.float64).reshape(1, -1, 1, 1)
    pixels = (images_BCHW.detach().cpu().double() * scale + offset).clamp(0, 1)
    labels = [_slic(image, segments, compactness) for image in pixels.permute(0, 2, 3, 1).numpy()]
    return torch.from_numpy(np.stack(labels)).to(images_BCHW.device)


def grid_cells(height: int, width: int, cells: int, device: torch.device | str = "cpu") -> Tensor:
    """A grid of cells as nearly equal as whole pixels allow.

    Args:
        cells: Along each side; no more than there are pixels.

    Returns:
        int64 [1, H, W], labels row by row.
    """
    rows = torch.arange(height, device=device) * min(cells, height) // height
    columns = torch.arange(width, device=device) * min(cells, width) // width
    return (rows[:, None] * min(cells, width) + columns[None, :])[None]


def patches(height: int, width: int, side_px: int, device: torch.device | str = "cpu") -> Tensor:
    """Squares of one size, from the upper left corner; those at the other borders are cut off.

    Args:
        side_px: Of a patch.

    Returns:
        int64 [1, H, W], labels row by row.
    """
    rows = torch.arange(height, device=device) // side_px
    columns = torch.arange(width, device=device) // side_px
    return (rows[:, None] * -(-width // side_px) + columns[None, :])[None]


def spread(values_BnF: Tensor, labels_BHW: Tensor) -> Tensor:
    """Give every pixel its region's value.

    Args:
        values_BnF: n states of the regions.
        labels_BHW: [B, H, W], or [1, H, W] where all images have the same regions.

    Returns:
        [B, n, H, W].
    """
    height, width = labels_BHW.shape[1:]
    if len(labels_BHW) == 1:
        return values_BnF.flatten(0, 1)[:, labels_BHW.flatten()].reshape(*values_BnF.shape[:2], height, width)
    index = labels_BHW.flatten(1)[:, None].expand(-1, values_BnF.shape[1], -1)
    return values_BnF.gather(2, index).reshape(*values_BnF.shape[:2], height, width)


def region_means(images_BCHW: Tensor, labels_BHW: Tensor) -> Tensor:
    """Each pixel replaced by the mean colour of its region, [B, C, H, W]."""
    flat, index = images_BCHW.flatten(2), labels_BHW.flatten(1)[:, None].expand(-1, images_BCHW.shape[1], -1)
    index = index.expand(len(flat), -1, -1)
    regions = int(labels_BHW.max()) + 1
    sums = flat.new_zeros((*flat.shape[:2], regions)).scatter_add_(2, index, flat)
    counts = flat.new_zeros(sums.shape).scatter_add_(2, index, torch.ones_like(flat))
    return (sums / counts.clamp(min=1)).gather(2, index).reshape(images_BCHW.shape)


def _slic(pixels_HWC: np.ndarray, segments: int, compactness: float) -> np.ndarray:
    found = slic(pixels_HWC, n_segments=segments, compactness=compactness, start_label=0, channel_axis=-1)
    return np.unique(found, return_inverse=True)[1].reshape(found.shape).astype(np.int64)
