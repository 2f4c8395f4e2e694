"""How altered images go through a network without gradients: how many at once, and how laid out in memory."""

from __future__ import annotations

import torch

from roarline.config.models import MODELS

# What one pass may hold, in pixels. On a CPU small passes keep activations in the cache, and below the size from which
# the allocator takes every large tensor anew from the operating system; a GPU wants to be filled.
_CPU_PASS_PX = 4 * 224 * 224
_GPU_PASS_PX = 256 * 224 * 224
_MAX_PASS = 1024


def pass_size(height: int, width: int, device: torch.device) -> int:
    """How many images of H × W px go through at once: a power of two, at most 1024.

    A fixed rule of the image's size and the kind of device, and no measurement, so that results do not depend on how
    busy a machine was.
    """
    budget = _CPU_PASS_PX if device.type == "cpu" else _GPU_PASS_PX
    return min(_MAX_PASS, 1 << (max(1, budget // (height * width)).bit_length() - 1))


def memory_format(arch: str) -> torch.memory_format:
    """Channels-last, where convolutions are fastest; contiguous for a user's own network, which may count on it."""
    known = arch in MODELS or arch.startswith(("torchvision:", "timm:"))
    return torch.channels_last if known else torch.contiguous_format
