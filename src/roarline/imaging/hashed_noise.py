"""Noise by hashing (seed, index): each row's numbers come from its own seed, all rows at once, on any device.

Shapes: B rows, n numbers a row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_LOW_32 = 0xFFFFFFFF
_AT_ONCE = 2**22  # hashes at a time, so that the 64-bit intermediates stay small


def hashes(seeds_B: Tensor, count: int, first: int = 0) -> Tensor:
    """int64 [B, count] in [0, 2**32): a pseudo-random number for each seed and index first … first + count - 1.

    Args:
        seeds_B: int64 in [0, 2**63).
    """
    index = torch.arange(first, first + count, device=seeds_B.device, dtype=torch.int64)
    low, high = (seeds_B & _LOW_32)[:, None], (seeds_B >> 32)[:, None]
    return _mix(_mix(_mix(index[None, :] + 0x9E3779B9) ^ low) ^ high)


def uniform_noise(seeds_B: Tensor, shape: Sequence[int]) -> Tensor:
    """Evenly distributed in [0, 1): float32 [B, *shape], multiples of 2**-24.

    Args:
        seeds_B: int64 [B] in [0, 2**63).
        shape: Of one row.
    """
    return _in_blocks(seeds_B, shape, lambda seeds, count: _unit(hashes(seeds, count)))


def normal_noise(seeds_B: Tensor, shape: Sequence[int]) -> Tensor:
    """Normally distributed with mean 0 and standard deviation 1, within ± 5.8: float32 [B, *shape].

    Args:
        seeds_B: int64 [B] in [0, 2**63).
        shape: Of one row.

    Source: Box & Muller 1958.
    """

    def draw(seeds: Tensor, count: int) -> Tensor:
        radius = (-2 * (1 - _unit(hashes(seeds, count))).log()).sqrt()  # 1 - [0, 1) has no 0
        return radius * (2 * math.pi * _unit(hashes(seeds, count, count))).cos()

    return _in_blocks(seeds_B, shape, draw)


def _in_blocks(seeds_B: Tensor, shape: Sequence[int], draw: Callable[[Tensor, int], Tensor]) -> Tensor:
    count = math.prod(shape)
    noise = torch.empty(len(seeds_B), count, device=seeds_B.device)
    rows = max(1, _AT_ONCE // max(1, count))
    for start in range(0, len(seeds_B), rows):
        noise[start : start + rows] = draw(seeds_B[start : start + rows], count)
    return noise.reshape(len(seeds_B), *shape)


def _unit(hashed: Tensor) -> Tensor:
    """float32 in [0, 1), of the upper 24 bits, which float32 holds exactly."""
    return (hashed >> 8).to(torch.float32) * 2.0**-24


def _mix(value: Tensor) -> Tensor:
    """MurmurHash3's 32-bit finaliser, a bijection of [0, 2**32) in which every input bit moves every output bit.

    Source: Appleby, MurmurHash3 (public domain). In int64, whose products wrap alike on every device.
    """
    value = value & _LOW_32
    value = ((value ^ (value >> 16)) * 0x85EBCA6B) & _LOW_32
    value = ((value ^ (value >> 13)) * 0xC2B2AE35) & _LOW_32
    return value ^ (value >> 16)
