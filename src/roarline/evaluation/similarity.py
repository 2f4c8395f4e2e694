"""How alike two maps are: SSIM, Spearman's correlation, correlation of HOG features; batched, in float64.

A map that is constant has no ranks and no gradients: its correlation with a map that is not is 0, that of two constant
maps too; who calls these functions decides what two equal maps are. Shapes: B rows, N = H · W px.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Normalisation = Literal["second_moment", "min_max"]

_K1, _K2 = 0.01, 0.03  # Wang et al. 2004
_HYS_LIMIT, _HYS_EPSILON = 0.2, 1e-5  # Dalal and Triggs 2005, as scikit-image has them
_BLOCK_CELLS = 3
_CACHED_PX = 2**18  # of one intermediate result: what fits into a core's cache is not fetched from memory again


def normalised(maps_BHW: Tensor, how: Normalisation) -> Tensor:
    """Bring maps of different scale together.

    Args:
        how: ``second_moment``: divided by the root of the mean square, so that signs and zeros stay and one extreme
            pixel doesn't flatten the rest; ``min_max``: from the lowest to the highest value, as Adebayo et al. do.

    Returns:
        float64 [B, H, W]; a map of zeros stays, and with ``min_max`` a constant map becomes 0.

    Source: Binder et al. 2023, arXiv 2211.12486, section 3.
    """
    maps = maps_BHW.double()
    if how == "min_max":
        low = maps.amin(dim=(1, 2), keepdim=True)
        span = maps.amax(dim=(1, 2), keepdim=True) - low
        return (maps - low) / span.where(span > 0, 1.0)
    # Scaled first, since squares of small gradients vanish.
    largest = maps.abs().amax(dim=(1, 2), keepdim=True)
    maps = maps / largest.where(largest > 0, 1.0)
    root = maps.square().mean(dim=(1, 2), keepdim=True).sqrt()
    return maps / root.where(root > 0, 1.0)


def ssim(maps_BHW: Tensor, others_BHW: Tensor, range_B: Tensor, *, window_px: int = 7) -> Tensor:
    """Mean structural similarity with a square window, without the border that the window would leave.

    Args:
        maps_BHW: Float.
        others_BHW: Of the same shape.
        range_B: Range of the values, from which the two stabilising constants follow; 0 where all values are equal.
        window_px: Side of the window, odd, at most the maps' shorter side.

    Returns:
        float64 [B] in [-1, 1].

    Raises:
        ValueError: The window is even or larger than the maps.

    Source: Wang et al. 2004; equal to ``skimage.metrics.structural_similarity`` with its defaults.
    """
    height, width = maps_BHW.shape[1:]
    if window_px % 2 == 0 or window_px > min(height, width):
        raise ValueError(f"window_px is {window_px}, expected an odd number of at most {min(height, width)}")
    at_once = max(1, _CACHED_PX // (height * width))
    parts = [
        _ssim(first.double(), second.double(), spans.double(), window_px)
        for first, second, spans in zip(
            torch.split(maps_BHW, at_once),
            torch.split(others_BHW, at_once),
            torch.split(range_B, at_once),
            strict=True,
        )
    ]
    return torch.cat(parts)


def _ssim(first: Tensor, second: Tensor, range_B: Tensor, window_px: int) -> Tensor:
    count = window_px**2
    sample = count / (count - 1) if count > 1 else 1.0
    mean_1, mean_2 = _window_mean(first, window_px), _window_mean(second, window_px)
    variances = sample * (_window_mean(first**2 + second**2, window_px) - mean_1**2 - mean_2**2)
    covariance = sample * (_window_mean(first * second, window_px) - mean_1 * mean_2)
    range_B11 = range_B[:, None, None]
    c1, c2 = (_K1 * range_B11) ** 2, (_K2 * range_B11) ** 2
    above = (2 * mean_1 * mean_2 + c1) * (2 * covariance + c2)
    below = (mean_1**2 + mean_2**2 + c1) * (variances + c2)
    return torch.where(below > 0, above / below.where(below > 0, 1.0), 1.0).mean(dim=(1, 2))


def _window_mean(values_BHW: Tensor, side_px: int) -> Tensor:
    """Means of all whole windows: [B, H - side + 1, W - side + 1]."""
    height, width = (size - side_px + 1 for size in values_BHW.shape[1:])
    rows = values_BHW[:, :, :width].clone()
    for shift in range(1, side_px):
        rows += values_BHW[:, :, shift : shift + width]
    sums = rows[:, :height].clone()
    for shift in range(1, side_px):
        sums += rows[:, shift : shift + height]
    return sums / side_px**2


def joint_range(maps_BHW: Tensor, others_BHW: Tensor) -> Tensor:
    """Highest minus lowest value of both maps together: [B]. Source: Quantus takes this range for SSIM."""
    high = torch.maximum(maps_BHW.amax(dim=(1, 2)), others_BHW.amax(dim=(1, 2)))
    return high - torch.minimum(maps_BHW.amin(dim=(1, 2)), others_BHW.amin(dim=(1, 2)))


def average_ranks(values_BN: Tensor) -> Tensor:
    """Ranks from 1, equal values sharing the mean of their ranks: float64 [B, N]."""
    count = values_BN.shape[1]
    ordered, order = values_BN.sort(dim=1)
    index = torch.arange(count, device=values_BN.device).expand_as(order)
    differs = ordered[:, 1:] != ordered[:, :-1]
    edge = differs.new_ones((len(values_BN), 1))
    first = torch.where(torch.cat([edge, differs], dim=1), index, 0).cummax(dim=1).values
    last = torch.where(torch.cat([differs, edge], dim=1), index, count).flip(1).cummin(dim=1).values.flip(1)
    ranks = torch.empty(values_BN.shape, dtype=torch.float64, device=values_BN.device)
    return ranks.scatter_(1, order, (first + last).double() / 2 + 1)


def correlation(first_BN: Tensor, second_BN: Tensor) -> Tensor:
    """Pearson's correlation of each row: float64 [B] in [-1, 1]; 0 where a row is constant."""
    first = first_BN.double() - first_BN.double().mean(dim=1, keepdim=True)
    second = second_BN.double() - second_BN.double().mean(dim=1, keepdim=True)
    scale = first.square().sum(dim=1).sqrt() * second.square().sum(dim=1).sqrt()
    products = (first * second).sum(dim=1)
    return torch.where(scale > 0, products / scale.where(scale > 0, 1.0), 0.0).clamp(-1, 1)


def spearman(maps_BHW: Tensor, others_BHW: Tensor) -> Tensor:
    """Spearman's rank correlation over pixels, ties sharing ranks: float64 [B]; 0 where a map is constant."""
    return correlation(average_ranks(maps_BHW.flatten(1)), average_ranks(others_BHW.flatten(1)))


def hog_cell_px(height: int, width: int) -> int:
    """16 px as Adebayo et al. take, less where three cells of that side don't fit into the image."""
    return max(1, min(16, height // _BLOCK_CELLS, width // _BLOCK_CELLS))


def hog_features(maps_BHW: Tensor, cell_px: int, *, orientations: int = 9) -> Tensor:
    """Histograms of oriented gradients, blocks of 3 × 3 cells normalised by L2-Hys.

    Args:
        maps_BHW: At least three cells high and wide.
        cell_px: Side of a cell; what is left over at the right and lower border is left out.
        orientations: Bins of the half circle.

    Returns:
        float64 [B, F].

    Raises:
        ValueError: The maps are smaller than a block.

    Source: Dalal and Triggs 2005; equal to ``skimage.feature.hog`` with its defaults and this cell size.
    """
    maps = maps_BHW.double()
    rows, columns = maps.shape[1] // cell_px, maps.shape[2] // cell_px
    if min(rows, columns) < _BLOCK_CELLS:
        raise ValueError(
            f"maps of {maps.shape[1]}×{maps.shape[2]} px have {rows} × {columns} cells of {cell_px} px, expected at "
            f"least {_BLOCK_CELLS} each way; choose smaller cells"
        )
    down, across = torch.zeros_like(maps), torch.zeros_like(maps)
    down[:, 1:-1] = maps[:, 2:] - maps[:, :-2]
    across[:, :, 1:-1] = maps[:, :, 2:] - maps[:, :, :-2]
    magnitude = torch.hypot(across, down)
    angle = torch.rad2deg(torch.atan2(down, across)) % 180
    place = (angle / (180 / orientations)).floor()
    cells = torch.stack(
        [
            functional.avg_pool2d(magnitude.where(place == orientation, 0.0)[:, None], cell_px)[:, 0]
            for orientation in range(orientations)
        ],
        dim=-1,
    )  # [B, rows, columns, orientations]
    blocks = cells.unfold(1, _BLOCK_CELLS, 1).unfold(2, _BLOCK_CELLS, 1)  # … orientations, 3, 3
    blocks = blocks.permute(0, 1, 2, 4, 5, 3).flatten(3)
    blocks = _unit(blocks).clamp_max(_HYS_LIMIT)
    return _unit(blocks).flatten(1)


def _unit(blocks: Tensor) -> Tensor:
    return blocks / (blocks.square().sum(dim=-1, keepdim=True) + _HYS_EPSILON**2).sqrt()
