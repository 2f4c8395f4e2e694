"""A part of a split's images, drawn from the seed."""

from __future__ import annotations

import numpy as np

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
