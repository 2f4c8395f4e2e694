"""Infidelity: how far the relevance of a perturbation is from what the perturbation costs.

A perturbation is a weight a pixel: the share of the way from the pixel to the fill that it goes, in all channels. A map
is read as the relevance of each pixel's presence (what captum calls global attribution), so that it can be summed over
channels before. Shapes: B rows, D perturbations a row, N perturbations of one pass, C channels, H × W px.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from roarline.evaluation.outcomes import OUTPUT_NOT_FINITE, Judged, judged


def square_weights(generator: torch.Generator, count: int, height: int, width: int, sides_px: Sequence[int]) -> Tensor:
    """1 in a random square that lies within the image, else 0.

    Args:
        generator: Each square draws its side, then its place, from it.
        count: N.
        sides_px: One is drawn for each square; none is longer than the image's shorter side.

    Returns:
        float32 [N, H, W] on the generator's device.
    """
    device = generator.device
    chosen, down, right = torch.rand(3, count, generator=generator, device=device, dtype=torch.float64)
    sides = torch.tensor(list(sides_px), device=device)[(chosen * len(sides_px)).long()]
    top, left = (down * (height - sides + 1)).long(), (right * (width - sides + 1)).long()
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    in_rows = (rows >= top[:, None]) & (rows < (top + sides)[:, None])
    in_columns = (columns >= left[:, None]) & (columns < (left + sides)[:, None])
    inside: Tensor = in_rows[:, :, None] & in_columns[:, None, :]
    return inside.float()


def noise_weights(generator: torch.Generator, count: int, height: int, width: int, deviation: float) -> Tensor:
    """Gaussian weights, independent from pixel to pixel.

    Args:
        deviation: Standard deviation; the mean is 0.

    Returns:
        float32 [N, H, W] on the generator's device.
    """
    return torch.randn(count, height, width, generator=generator, device=generator.device).mul_(deviation)


def perturb(image_1CHW: Tensor, weights_NHW: Tensor, fill: Tensor) -> Tensor:
    """Move each pixel towards the fill by its share of the way; a share of 1 replaces it, one below 0 moves it away.

    Args:
        image_1CHW: Normalised.
        weights_NHW: Of ``square_weights`` or ``noise_weights``.
        fill: Broadcastable to the image, in its space.

    Returns:
        [N, C, H, W], of the image's dtype and memory format.
    """
    channels_last = not image_1CHW.is_contiguous() and image_1CHW.is_contiguous(memory_format=torch.channels_last)
    moved = torch.lerp(image_1CHW, fill.to(image_1CHW.dtype).expand_as(image_1CHW), weights_NHW[:, None])
    return moved.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def infidelity(relevance_BD: Tensor, before_B: Tensor, after_BD: Tensor, *, normalise: bool = True) -> Judged:
    """Mean squared difference of the relevance of a perturbation and the drop of the score.

    Args:
        relevance_BD: float64 [B, D], sum of the map times the weights of each perturbation.
        before_B: Score of the whole image.
        after_BD: Score of the perturbed images.
        normalise: Relevance is scaled by the factor that fits the drops best, one for each row, so that a map's unit
            plays no part; a map of zeros explains nothing and has the mean squared drop.

    Returns:
        Values of 0 or more, in squares of the score.

    Source: Yeh et al. 2019, arXiv 1901.09392, definition 2.1, with the square removal and the noise of section 2;
        the factor is that of the authors' code and of captum's ``infidelity(normalize=True)``.
    Differs: noise is a share of the way to the fill, not added to channels, so that a linear network's input times
        gradient is free of infidelity under it, too.
    """
    relevance, drops = relevance_BD.double(), before_B.double()[:, None] - after_BD.double()
    if normalise:
        power = relevance.square().mean(dim=1, keepdim=True)
        shared = (relevance * drops).mean(dim=1, keepdim=True)
        relevance = relevance * torch.where(power > 0, shared / power.where(power > 0, 1.0), 0.0)
    values = (relevance - drops).square().mean(dim=1)
    return judged(values, (OUTPUT_NOT_FINITE, ~torch.isfinite(drops).all(dim=1)))
