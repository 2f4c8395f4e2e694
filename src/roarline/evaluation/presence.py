"""Rows that lack the same values, so that each group can be computed without looking for what is missing."""

from __future__ import annotations

import numpy as np


def rows_by_presence(present_PN: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Group rows by which of their values are there.

    Args:
        present_PN: bool.

    Returns:
        (bool [N] which values are there, int64 numbers of the rows) for each pattern; every row is in one group.
    """
    if present_PN.all():
        return [(np.ones(present_PN.shape[1], dtype=bool), np.arange(len(present_PN)))]
    _, first, pattern = np.unique(np.packbits(present_PN, axis=1), axis=0, return_index=True, return_inverse=True)
    return [(present_PN[row], np.flatnonzero(pattern.ravel() == index)) for index, row in enumerate(first)]
