"""Accuracy of a classifier's decisions."""

from __future__ import annotations

import torch
from torch import Tensor


def accuracy(correct_N: Tensor) -> float:
    """Mean of how right each image's decision is.

    Args:
        correct_N: [N] in [0, 1]: 0 or 1 where images have one label, else the share of right (image, class) decisions.

    Returns:
        In [0, 1].

    Raises:
        ValueError: There is no image, or a number lies outside [0, 1].
    """
    if correct_N.ndim != 1 or len(correct_N) == 0:
        raise ValueError(f"correct has shape {list(correct_N.shape)}, expected [N] with N at least 1")
    if not bool(((correct_N >= 0) & (correct_N <= 1)).all()):
        raise ValueError("correct has numbers outside [0, 1]")
    return float(correct_N.to(torch.float64).mean())
