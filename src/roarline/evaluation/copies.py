"""Altered copies of images through a network: every pass full, whatever the number of copies, and what it says of them.

Shapes: B rows, C channels, H × W px, D copies of each row, N copies of one pass, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Alter = Callable[[int, int, int], Tensor]
"""From (row, first copy, last copy + 1) to those copies [n, C, H, W]."""


@dataclass(frozen=True)
class CopyOutputs:
    """What the classifier says of each row's target for each copy; NaN where its output is not finite.

    Attributes:
        logits: float32 [B, D].
        probabilities: float32 [B, D]: softmax, or for multi-label classifiers the sigmoid of the logit.
        right: bool [B, D]: the target has the largest logit; multi-label: a probability of 0.5 or more.
    """

    logits: Tensor
    probabilities: Tensor
    right: Tensor


@torch.inference_mode()
def outputs_of_copies(
    model: nn.Module,
    targets_B: Tensor,
    copies: int,
    alter: Alter,
    *,
    batch_size: int,
    multi_label: bool = False,
) -> CopyOutputs:
    """Pass ``copies`` altered copies of each row through the network, row after row.

    Args:
        model: In eval mode, [N, C, H, W] to logits [N, K].
        targets_B: int64 [B] in [0, K).
        copies: D.
        alter: Makes copies, normalised, in the memory format that the network is to see.
        batch_size: Copies of a pass.
        multi_label: Probabilities by sigmoid instead of softmax.

    Returns:
        On the device of the targets; nothing is waited for.
    """
    found = []
    for spans in spans_of_passes(len(targets_B), copies, batch_size):
        parts = [alter(row, first, last) for row, first, last in spans]
        inputs = parts[0] if len(parts) == 1 else torch.cat(parts)
        counts = torch.tensor([last - first for _, first, last in spans], device=targets_B.device)
        rows = slice(spans[0][0], spans[-1][0] + 1)
        targets = targets_B[rows].repeat_interleave(counts, output_size=len(inputs))
        found.append(_of_targets(model(inputs).float(), targets, multi_label=multi_label))
    if not found:
        nothing = torch.empty(len(targets_B), copies, device=targets_B.device)
        return CopyOutputs(nothing, nothing, nothing.bool())
    logits, probabilities, right = torch.cat(found, dim=1).reshape(3, len(targets_B), copies)
    return CopyOutputs(logits, probabilities, right == 1)


def spans_of_passes(rows: int, copies: int, size: int) -> Iterator[list[tuple[int, int, int]]]:
    """Cut rows × copies into passes of ``size``: each a list of (row, first copy, last copy + 1)."""
    total = rows * copies
    for start in range(0, total, size):
        stop = min(start + size, total)
        yield [
            (row, max(start - row * copies, 0), min(stop - row * copies, copies))
            for row in range(start // copies, (stop - 1) // copies + 1)
        ]


class BlockDraws:
    """Random draws for the copies of rows, made in blocks of a fixed number of copies, each from a seed of its own.

    What a copy gets depends neither on its pass nor on the other rows, and a generator is set up once a block.

    Args:
        seed_of: From (row, block) to a seed.
        draw: From a generator to the draws of a block, [size, ...].
        size: Copies of a block.
        device: Of the generators and the draws.
    """

    def __init__(
        self,
        seed_of: Callable[[int, int], int],
        draw: Callable[[torch.Generator], Tensor],
        size: int,
        device: torch.device,
    ) -> None:
        self._seed_of, self._draw, self._size, self._device = seed_of, draw, size, device
        self._latest: tuple[tuple[int, int], Tensor] | None = None

    def __call__(self, row: int, first: int, last: int) -> Tensor:
        """Draws [last - first, ...] of consecutive copies of a row."""
        blocks = range(first // self._size, (last - 1) // self._size + 1)
        parts = [
            self._block(row, block)[max(first - block * self._size, 0) : last - block * self._size] for block in blocks
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _block(self, row: int, block: int) -> Tensor:
        if self._latest is None or self._latest[0] != (row, block):  # copies are asked for in order
            generator = torch.Generator(self._device).manual_seed(self._seed_of(row, block))
            self._latest = (row, block), self._draw(generator)
        return self._latest[1]


def _of_targets(logits_NK: Tensor, targets_N: Tensor, *, multi_label: bool) -> Tensor:
    """float32 [3, N]: logit and probability of the target, and 1 where the classifier calls it, else 0."""
    probabilities = logits_NK.sigmoid() if multi_label else logits_NK.softmax(dim=1)
    logit, probability = (values.gather(1, targets_N[:, None])[:, 0] for values in (logits_NK, probabilities))
    right = probability >= 0.5 if multi_label else logit >= logits_NK.amax(dim=1)
    finite = torch.isfinite(logits_NK).all(dim=1)
    return torch.stack([logit.where(finite, torch.nan), probability.where(finite, torch.nan), right & finite])
