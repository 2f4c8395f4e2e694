"""Ranks of pixels by relevance, with ties broken by a pseudo-random order that favours no side.

Shapes: B rows, H × W px.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from roarline.errors import MethodError
from roarline.imaging.hashed_noise import hashes

Ties = Literal["random", "index"]

# A product such as 0.3 * 10 or (k / n) * n is off by a few units in the last place (2.2e-16), never by this much.
_FLOAT_GUARD = 1e-12


def removal_count(removed_fraction: float, pixels: int) -> int:
    """How many pixels a fraction means: floor(removed_fraction · pixels), guarded against float error.

    Args:
        removed_fraction: In [0, 1]; 0 gives 0 and 1 gives all.
        pixels: H · W, at least 0.

    Returns:
        The count, in [0, pixels]; e.g. 3 for 0.3 of 10, though 0.1 * 3 * 10 is a little less than 3 in floats.

    Raises:
        ValueError: The fraction lies outside [0, 1], or pixels is negative.
    """
    if not 0.0 <= removed_fraction <= 1.0:
        raise ValueError(f"removed_fraction is {removed_fraction!r}, expected a number in [0, 1]")
    if pixels < 0:
        raise ValueError(f"pixels is {pixels}, expected 0 or more")
    return min(pixels, math.floor(removed_fraction * pixels * (1.0 + _FLOAT_GUARD)))


def rank_pixels(maps_BHW: Tensor, seeds: Sequence[int] | None, ties: Ties = "random") -> Tensor:
    """Rank every pixel of each map: 0 is the highest value, that is the most relevant pixel.

    Values are compared as float32, the precision in which maps are kept; -0.0 and 0.0 are equal.

    Args:
        maps_BHW: [B, H, W], finite, signed; any real dtype.
        seeds: One integer in [0, 2**63) a row, from which its tie order is drawn: a hash of (seed, pixel index), so
            that a row's ranks depend neither on the batch nor on its place in it. None only with ``ties="index"``.
        ties: ``random``; or ``index``, where of two equal pixels the one that comes later, row by row, counts as the
            more relevant. That is an ascending stable sort read from its end, as the original ROAR code reads its own.

    Returns:
        int32 [B, H, W], each row a permutation of 0 … H · W - 1, on the device of the maps.

    Raises:
        MethodError: A map has NaN or infinite values.
        ValueError: The shape is not [B, H, W], or seeds doesn't have a number for each row.
    """
    if maps_BHW.ndim != 3:
        raise ValueError(f"maps have shape {list(maps_BHW.shape)}, expected [B, H, W]")
    rows, height, width = maps_BHW.shape
    values = maps_BHW.reshape(rows, height * width).to(torch.float32)
    finite = torch.isfinite(values).all(dim=1)
    if not bool(finite.all()):
        bad = [row for row, good in enumerate(finite.tolist()) if not good]
        raise MethodError(f"map {bad[0]} of a batch of {rows} has NaN or infinite values: it can't be ranked")
    if ties == "index":
        index = torch.arange(height * width, device=values.device, dtype=torch.int64)
        tiebreak = (height * width - 1 - index).expand(rows, -1)
    elif seeds is None or len(seeds) != rows:
        given = "none" if seeds is None else str(len(seeds))
        raise ValueError(f"seeds: expected one for each of {rows} maps, got {given}")
    else:
        tiebreak = hashes(torch.tensor(list(seeds), dtype=torch.int64, device=values.device), height * width)
    # One sort does both: the value's order in the upper 32 bits, the order among equal values in the lower 32.
    keys = (_descending_order(values) << 32) | tiebreak
    order = torch.sort(keys, dim=1, stable=True).indices
    ranks = torch.empty(rows, height * width, dtype=torch.int32, device=values.device)
    positions = torch.arange(height * width, dtype=torch.int32, device=values.device).expand(rows, -1)
    return ranks.scatter_(1, order, positions).reshape(rows, height, width)


def _descending_order(values: Tensor) -> Tensor:
    """Signed 32-bit integers, as int64, that fall as the float32 values rise."""
    bits = (values + 0.0).view(torch.int32)  # adding 0.0 turns -0.0 into 0.0
    ascending = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return ~ascending.to(torch.int64)
