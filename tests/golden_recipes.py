"""Weights of golden cases that are too large to store: they are computed from a recipe."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor


def recipe_tensor(shape: tuple[int, ...], name: str, position: int, seed: int) -> Tensor:
    """One tensor of s4_resnet8.npz: a hash of position and index, see ``weight_recipe`` in its params."""
    index = np.arange(math.prod(shape), dtype=np.uint64)
    low = np.uint64(0xFFFFFFFF)
    h = (index * np.uint64(2654435761) + np.uint64(position * 40503 * 65537 + seed * 97 + 12345)) & low
    h ^= h >> np.uint64(15)
    h = (h * np.uint64(2246822519)) & low
    h ^= h >> np.uint64(13)
    h = (h * np.uint64(3266489917)) & low
    h ^= h >> np.uint64(16)
    u = (2 * h.astype(np.float64) / 2**32 - 1) * math.sqrt(3)
    if len(shape) > 1:
        u = u * math.sqrt(2 / math.prod(shape[1:]))
    elif name.endswith("running_var"):
        u = 1 + 0.4 * u
    elif name.endswith("weight"):
        u = 1 + 0.1 * u
    else:
        u = 0.1 * u
    return torch.from_numpy(u.reshape(shape))
