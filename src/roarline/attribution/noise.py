"""Gradients of noisy copies of the image: their mean, mean square and variance.

captum's NoiseTunnel draws from the global generator for a whole batch, so that a map would depend on its neighbours;
here every image has a generator of its own. Tests hold the three against NoiseTunnel given the same noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from roarline.attribution.passes import copy_gradients, in_full_passes


def smoothgrad(
    model: nn.Module,
    images_BCHW: Tensor,
    targets_B: Tensor,
    *,
    samples: int = 25,
    noise: float = 0.15,
    seeds: Sequence[int],
) -> Tensor:
    """Mean of the gradients of noisy copies.

    Args:
        targets_B: int64 in [0, K).
        samples: Noisy copies an image.
        noise: Standard deviation as a fraction of the image's own range, max - min over all its normalised values.
        seeds: One a row.

    Returns:
        [B, C, H, W].

    Source: Smilkov et al. 2017, arXiv 1706.03825.
    """
    return _moments(model, images_BCHW, targets_B, samples, noise, seeds)[0]


def smoothgrad_squared(
    model: nn.Module,
    images_BCHW: Tensor,
    targets_B: Tensor,
    *,
    samples: int = 25,
    noise: float = 0.15,
    seeds: Sequence[int],
) -> Tensor:
    """Mean of the squared gradients of noisy copies; arguments as ``smoothgrad``.

    Returns:
        [B, C, H, W], 0 or more.

    Source: Hooker et al. 2019, arXiv 1806.10758, section 3.
    """
    mean, variance = _moments(model, images_BCHW, targets_B, samples, noise, seeds)
    return variance + mean.square()


def vargrad(
    model: nn.Module,
    images_BCHW: Tensor,
    targets_B: Tensor,
    *,
    samples: int = 25,
    noise: float = 0.15,
    seeds: Sequence[int],
) -> Tensor:
    """Variance of the gradients of noisy copies (divided by ``samples``); arguments as ``smoothgrad``.

    Returns:
        [B, C, H, W], 0 or more.

    Source: Adebayo et al. 2018, arXiv 1810.03307.
    """
    return _moments(model, images_BCHW, targets_B, samples, noise, seeds)[1]


def _moments(
    model: nn.Module, images_BCHW: Tensor, targets_B: Tensor, samples: int, noise: float, seeds: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Mean and variance over the copies, [B, C, H, W] each."""
    return noisy_moments(images_BCHW, samples, noise, seeds, copy_gradients(model, targets_B))


def noisy_moments(
    images_BCHW: Tensor,
    samples: int,
    noise: float,
    seeds: Sequence[int],
    evaluate: Callable[[Tensor, Sequence[tuple[int, int]]], Tensor],
    *,
    keeps_activations: bool = True,
) -> tuple[Tensor, Tensor]:
    """Mean and variance of something over noisy copies of each image.

    Deviations are taken from the first copy's result: the plain difference of mean square and squared mean cancels
    where results hardly vary, and may fall below 0.

    Args:
        samples: Noisy copies an image.
        noise: Standard deviation as a fraction of the image's own range, max - min over all its normalised values.
        seeds: One a row.
        evaluate: From noisy inputs [n, C, H, W] and their (image, copy) pairs to results [n, ...], e.g. gradients.
        keeps_activations: Its passes are recorded for a backward pass to the input.

    Returns:
        Mean and variance (divided by ``samples``), [B, ...] each.
    """
    generators = [torch.Generator(images_BCHW.device).manual_seed(seed) for seed in seeds]
    deviation_B = noise * (images_BCHW.amax(dim=(1, 2, 3)) - images_BCHW.amin(dim=(1, 2, 3)))
    first: dict[int, Tensor] = {}
    shifted: dict[int, Tensor] = {}
    squared: dict[int, Tensor] = {}

    def vary(image: int, start: int, stop: int) -> Tensor:
        copies = [
            torch.randn(
                images_BCHW.shape[1:], generator=generators[image], device=images_BCHW.device, dtype=images_BCHW.dtype
            )
            for _ in range(start, stop)
        ]
        return images_BCHW[image] + deviation_B[image] * torch.stack(copies)

    def collect(image: int, start: int, stop: int, results: Tensor) -> None:
        if start == 0:
            first[image] = results[0].clone()
            shifted[image], squared[image] = torch.zeros_like(results[0]), torch.zeros_like(results[0])
        deviations = results - first[image]
        shifted[image] += deviations.sum(dim=0)
        squared[image] += deviations.square().sum(dim=0)

    in_full_passes(images_BCHW, samples, vary, evaluate, collect, keeps_activations=keeps_activations)
    rows = range(len(images_BCHW))
    offset = torch.stack([shifted[row] for row in rows]) / samples
    mean_square = torch.stack([squared[row] for row in rows]) / samples
    return torch.stack([first[row] for row in rows]) + offset, (mean_square - offset.square()).clamp(min=0)
