"""How images go through a network: how many at once, and how laid out in memory."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from contextvars import ContextVar

import torch

from roarline.config.models import MODELS

# Measured with torchvision's networks at 64 to 224 px and the CIFAR-form networks at 8 and 32 px, freed memory kept
# (execution.allocator). On a CPU the best pass shrinks with the image's side, not its area, since networks for small
# images keep their size through the first layers; more gains nothing and takes memory. A GPU wants to be filled.
_CPU_SIDES_PX = 4096
_GPU_PX, _GPU_FORWARD_PX = 64 * 224 * 224, 256 * 224 * 224
MAX_PASS = 1024
_AT_MOST: ContextVar[int | None] = ContextVar("at_most", default=None)


@contextlib.contextmanager
def at_most(images: int | None) -> Iterator[None]:
    """Inside, no pass has more images than this; None: only the rule of ``pass_size`` counts."""
    token = _AT_MOST.set(images)
    try:
        yield
    finally:
        _AT_MOST.reset(token)


def pass_size(height: int, width: int, device: torch.device, *, keeps_activations: bool = False) -> int:
    """How many images go through the network at once: a power of two from the image's size and the kind of device.

    A fixed rule and no measurement, so that a batch is the same batch on every machine of a kind, however busy; where
    memory ran out, ``at_most`` lowers it.

    Args:
        height: Of an image, px.
        width: Of an image, px.
        keeps_activations: The pass is recorded for a backward pass, whose activations a GPU must hold.

    Returns:
        1 to ``MAX_PASS``.
    """
    if device.type == "cpu":
        fitting = _CPU_SIDES_PX / math.sqrt(height * width)
    else:
        fitting = (_GPU_PX if keeps_activations else _GPU_FORWARD_PX) / (height * width)
    return min(MAX_PASS, 1 << (max(1, int(fitting)).bit_length() - 1), _AT_MOST.get() or MAX_PASS)


def memory_format(arch: str) -> torch.memory_format:
    """Channels-last, where convolutions are fastest; contiguous for a user's own network, which may count on it."""
    return torch.channels_last if is_published(arch) else torch.contiguous_format


def is_published(arch: str) -> bool:
    """Ours, torchvision's or timm's; not a user's own, of which nothing is known."""
    return arch in MODELS or arch.startswith(("torchvision:", "timm:"))
