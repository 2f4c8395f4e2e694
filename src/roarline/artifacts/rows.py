"""Rows of an HDF5 dataset, wherever they lie: read piece by piece, as h5py's own lists of rows are far slower."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

_GAP_BYTES = 2**18  # what is read and thrown away in about the time that another call takes


def read_rows(dataset: Any, rows: Sequence[int] | np.ndarray) -> np.ndarray:
    """Rows in the order asked for; some may stand twice.

    Neighbours, and rows with little between them, are read in one go.

    Args:
        dataset: An open h5py dataset [M, ...].
        rows: [B], each in [0, M).

    Returns:
        [B, ...] of the dataset's type.
    """
    unique, inverse = np.unique(np.asarray(rows, dtype=np.int64), return_inverse=True)
    values = np.empty((len(unique), *dataset.shape[1:]), dataset.dtype)
    gap = 1 + _GAP_BYTES // max(1, values[:1].nbytes)
    edges = [0, *(np.flatnonzero(np.diff(unique) > gap) + 1).tolist(), len(unique)]
    for start, stop in pairwise(edges):
        piece = unique[start:stop]
        if stop - start == 0:
            continue
        if piece[-1] - piece[0] == stop - start - 1:
            dataset.read_direct(values, np.s_[piece[0] : piece[-1] + 1], np.s_[start:stop])
        else:
            values[start:stop] = dataset[piece[0] : piece[-1] + 1][piece - piece[0]]
    in_order = len(inverse) == len(unique) and bool((inverse[1:] > inverse[:-1]).all())
    return values if in_order else values[inverse]
