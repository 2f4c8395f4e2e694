"""Integrated gradients: gradients averaged along a straight path from a constant baseline to the image.

captum's IntegratedGradients leaves more of the network's speed unused (`task bench` measures both), so the path is
walked here; tests hold it against captum.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from roarline.attribution.passes import accumulate_passes


def integrated_gradients(
    model: nn.Module,
    images_BCHW: Tensor,
    targets_B: Tensor,
    *,
    steps: int = 50,
    baseline: float = 0.0,
    rule: str = "gausslegendre",
    multiply_by_inputs: bool = True,
) -> Tensor:
    """Integrate the gradient from the baseline to the image; attributions sum to the difference of the two logits.

    Args:
        targets_B: int64 in [0, K).
        steps: Points on the path.
        baseline: Its value in normalised space, the same everywhere.
        rule: ``gausslegendre``, ``riemann_middle`` or ``riemann_trapezoid``.
        multiply_by_inputs: True multiplies by image - baseline.

    Returns:
        [B, C, H, W].

    Source: Sundararajan et al. 2017, arXiv 1703.01365, equation 1.
    Differs: captum's trapezoid weights sum to (steps - 1) / steps; here every rule's weights sum to 1.
    """
    places, weights = (torch.from_numpy(values).to(images_BCHW) for values in path_rule(rule, steps))
    difference = images_BCHW - baseline
    total = torch.zeros_like(images_BCHW)

    def vary(image: int, start: int, stop: int) -> Tensor:
        return baseline + places[start:stop, None, None, None] * difference[image]

    def collect(image: int, start: int, stop: int, gradients: Tensor) -> None:
        total[image] += torch.einsum("n,nchw->chw", weights[start:stop], gradients)

    accumulate_passes(model, images_BCHW, targets_B, steps, vary, collect)
    return total * difference if multiply_by_inputs else total


def path_rule(rule: str, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Where on the path [0, 1] the gradient is taken, and with which weight.

    Returns:
        Places and weights, each [steps] float64; weights sum to 1.

    Raises:
        ValueError: There is no such rule.
    """
    if rule == "gausslegendre":
        places, weights = np.polynomial.legendre.leggauss(steps)
        return (places + 1) / 2, weights / 2
    if rule == "riemann_middle":
        return (np.arange(steps) + 0.5) / steps, np.full(steps, 1 / steps)
    if rule == "riemann_trapezoid":
        if steps == 1:
            return np.array([0.5]), np.array([1.0])
        weights = np.full(steps, 1 / (steps - 1))
        weights[[0, -1]] /= 2
        return np.linspace(0, 1, steps), weights
    raise ValueError(f"rule {rule!r}, expected gausslegendre, riemann_middle or riemann_trapezoid")
