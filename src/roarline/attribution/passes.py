"""Network passes shared by the methods: which logit is explained, its gradient, how many images go into one pass."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar

import torch
from torch import Tensor, nn

# Measured with torchvision's networks at 224 px and the CIFAR-form networks at 8 and 32 px. On a CPU the best pass
# shrinks with the image's side, not its area, since networks for small images keep their size through the first layers;
# of large images half as many go best where no activation is kept for a backward pass to the input: what is freed at
# once is taken again from the cache, up to the size from which the allocator asks the operating system each time (16
# images of 224 px go at half the speed of 4 through MobileNetV2). A GPU wants to be filled.
_CPU_SIDES_PX, _CPU_LARGE_PX = 2048, 128
_GPU_PX = 64 * 224 * 224
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


def pass_size(height: int, width: int, device: torch.device, *, keeps_activations: bool = True) -> int:
    """How many images go through the network at once: a power of two from the image's size and the kind of device.

    A fixed rule and no measurement, so that a batch is the same batch on every machine of a kind; where memory ran out,
    ``at_most`` lowers it.

    Args:
        keeps_activations: The pass is recorded for a backward pass to the input.
    """
    side = math.sqrt(height * width)
    if device.type == "cpu":
        fitting = _CPU_SIDES_PX / side * (0.5 if side >= _CPU_LARGE_PX and not keeps_activations else 1)
    else:
        fitting = _GPU_PX / side**2
    return min(MAX_PASS, 1 << (max(1, int(fitting)).bit_length() - 1), _AT_MOST.get() or MAX_PASS)


def choose_targets(logits_BK: Tensor, targets_B: Tensor) -> Tensor:
    """Replace every target of -1 by the class of the largest logit.

    Args:
        logits_BK: Logits.
        targets_B: int64, a class, or -1 for "the predicted class".

    Returns:
        [B] int64 in [0, K).
    """
    return torch.where(targets_B < 0, logits_BK.detach().argmax(dim=1), targets_B)


def target_logit_gradient(model: nn.Module, inputs_BCHW: Tensor, targets_B: Tensor) -> Tensor:
    """Gradient of each image's target logit with respect to that image: one forward and one backward pass.

    Args:
        model: Classifier in evaluation mode, [B, C, H, W] → [B, K].
        inputs_BCHW: Network inputs.
        targets_B: int64; -1 means the predicted class.

    Returns:
        [B, C, H, W].
    """
    with torch.enable_grad():
        leaf = inputs_BCHW.detach().requires_grad_()
        logits = model(leaf)
        chosen = choose_targets(logits, targets_B)
        (gradient,) = torch.autograd.grad(logits.gather(1, chosen[:, None]).sum(), leaf)
    return gradient


def accumulate_passes(
    model: nn.Module,
    images_BCHW: Tensor,
    targets_B: Tensor,
    repeats: int,
    vary: Callable[[int, int, int], Tensor],
    collect: Callable[[int, int, int, Tensor], None],
) -> None:
    """Run ``repeats`` altered copies of every image through the network in full passes, image after image.

    Args:
        images_BCHW: Network inputs.
        targets_B: [B] int64 in [0, K).
        vary: From (image, first copy, last copy + 1) to those altered copies [n, C, H, W].
        collect: Is given (image, first copy, last copy + 1, gradients [n, C, H, W]) of each.
    """
    in_full_passes(images_BCHW, repeats, vary, copy_gradients(model, targets_B), collect)


def copy_gradients(model: nn.Module, targets_B: Tensor) -> Callable[[Tensor, Sequence[tuple[int, int]]], Tensor]:
    """What ``in_full_passes`` evaluates for gradients: from inputs and their (image, copy) pairs to [n, C, H, W]."""

    def gradients(inputs: Tensor, copies: Sequence[tuple[int, int]]) -> Tensor:
        owners = torch.tensor([image for image, _ in copies], device=targets_B.device)
        return target_logit_gradient(model, inputs, targets_B[owners])

    return gradients


def in_full_passes(
    images_BCHW: Tensor,
    repeats: int,
    vary: Callable[[int, int, int], Tensor],
    evaluate: Callable[[Tensor, Sequence[tuple[int, int]]], Tensor],
    collect: Callable[[int, int, int, Tensor], None],
    *,
    keeps_activations: bool = True,
) -> None:
    """Evaluate ``repeats`` altered copies of every image, as many at once as fill a pass, image after image.

    Args:
        images_BCHW: Network inputs.
        vary: From (image, first copy, last copy + 1) to those altered copies [n, C, H, W].
        evaluate: From inputs [n, C, H, W] and their (image, copy) pairs to results [n, ...].
        collect: Is given (image, first copy, last copy + 1, results [n, ...]) of each image in a pass.
        keeps_activations: As ``pass_size`` takes it.
    """
    height, width = images_BCHW.shape[2:]
    size = pass_size(height, width, images_BCHW.device, keeps_activations=keeps_activations)
    for spans in _full_passes(len(images_BCHW), repeats, size):
        inputs = torch.cat([vary(image, start, stop) for image, start, stop in spans])
        results = evaluate(inputs, [(image, copy) for image, start, stop in spans for copy in range(start, stop)])
        for (image, start, stop), part in zip(
            spans, torch.split(results, [stop - start for _, start, stop in spans]), strict=True
        ):
            collect(image, start, stop, part)


def _full_passes(images: int, repeats: int, size: int) -> Iterator[list[tuple[int, int, int]]]:
    """Cut images × repeats into passes of ``size``; a pass is a list of (image, first copy, last copy + 1)."""
    spans: list[tuple[int, int, int]] = []
    free = size
    for image in range(images):
        start = 0
        while start < repeats:
            stop = min(repeats, start + free)
            spans.append((image, start, stop))
            free -= stop - start
            start = stop
            if free == 0:
                yield spans
                spans, free = [], size
    if spans:
        yield spans
