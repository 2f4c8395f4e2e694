"""Network passes shared by the methods: which logit is explained, its gradient, passes filled up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from roarline.models.passes import pass_size


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
