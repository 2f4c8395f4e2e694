"""A part of a split's images, drawn from the seed; the seeds of noise in their pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from roarline.seeds import derive_seed


def draw_rows(rows: np.ndarray, limit: int | None, seed: int, purpose: str) -> np.ndarray:
    """Draw images without replacement, the same for every method.

    Args:
        rows: int64 [N], rows of the data set.
        limit: How many; None or more than there are means all.
        seed: The experiment's.
        purpose: What the images are for, e.g. the stage.

    Returns:
        int64 [min(limit, N)], rising.
    """
    if limit is None or limit >= len(rows):
        return rows
    generator = np.random.default_rng(derive_seed(seed, purpose, "limit"))
    return np.sort(generator.choice(rows, size=limit, replace=False))


def noise_seeds(seed: int, kind: str, sample_ids: Sequence[str], device: torch.device | str) -> Tensor:
    """int64 [B] in [0, 2**63): a seed for each sample, the same in every stage, for every method and at every step.

    Args:
        seed: The experiment's.
        kind: Of noise, e.g. ``uniform``.
    """
    seeds = [derive_seed(seed, "noise in pixels", kind, sample_id) for sample_id in sample_ids]
    return torch.tensor(seeds, dtype=torch.int64, device=device)
