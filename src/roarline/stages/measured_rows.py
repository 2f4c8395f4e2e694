"""What the measures of evaluate-perturbation are given, and what they give: rows, the network, named columns.

Shapes: B rows, C channels, H × W px, D copies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from roarline.artifacts.classifier import ClassifierCard
from roarline.evaluation.copies import Alter, BlockDraws, CopyOutputs, outputs_of_copies
from roarline.evaluation.outcomes import Judged
from roarline.imaging.fills import fill_image
from roarline.models.passes import pass_size
from roarline.seeds import derive_seed

Column = tuple[str, str]
"""(metric, setting)."""


@dataclass(frozen=True)
class Network:
    """A classifier on its device, and how its output is read.

    Attributes:
        model: What images go through.
        as_built: The same function with all of its modules, for code of users.
        score: ``probability`` or ``logit``.
        fill_mean: The training split's mean, in [0, 1].
        mixed: bfloat16 in the network's passes.
        seed: The experiment's.
        threads: CPU threads for work outside of the network.
        timed: From a name to a context whose seconds count under it: costly work outside of the network.
    """

    model: nn.Module
    as_built: nn.Module
    card: ClassifierCard
    device: torch.device
    score: str
    fill_mean: Sequence[float]
    mixed: bool
    seed: int
    threads: int = 1
    timed: Callable[[str], AbstractContextManager[None]] = lambda name: nullcontext()

    def outputs(self, rows: MeasuredRows, copies: int, alter: Alter) -> CopyOutputs:
        """Pass altered copies of each row through the network, in full batches."""
        size = pass_size(rows.images.shape[2], rows.images.shape[3], self.device)
        multi_label = self.card.multi_label
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.mixed):
            return outputs_of_copies(self.model, rows.targets, copies, alter, batch_size=size, multi_label=multi_label)

    def scores(self, outputs: CopyOutputs) -> Tensor:
        """The score that the experiment asks for, [B, D]."""
        return outputs.logits if self.score == "logit" else outputs.probabilities

    def fill(self, images_BCHW: Tensor, kind: Any) -> Tensor:
        """What stands in place of removed pixels, [B or 1, C, H or 1, W or 1]."""
        return fill_image(images_BCHW, kind, self.card.mean, self.card.std, fill_mean=self.fill_mean)

    def draws(
        self, rows: MeasuredRows, purpose: str, draw: Callable[[torch.Generator], Tensor], size: int
    ) -> BlockDraws:
        """Draws for copies of rows: the same for every method and target of an image."""

        def seed_of(row: int, block: int) -> int:
            return derive_seed(self.seed, purpose, rows.sample_ids[row], block)

        return BlockDraws(seed_of, draw, size, self.device)


@dataclass(frozen=True)
class MeasuredRows:
    """Some rows as measures see them.

    Attributes:
        pixels: uint8 [B, C, H, W] on the CPU.
        images: [B, C, H, W], normalised, on the network's device in its memory format.
        maps: [B, H, W], larger is more relevant.
        targets: int64 [B].
        sample_ids: [B].
        ranks: int [B, H, W]; read by measures that say so.
        network: What the images go through.
        known: Logits and probabilities [2, B] of the untouched images, where a curve has them.
    """

    pixels: Tensor
    images: Tensor
    maps: Tensor
    targets: Tensor
    sample_ids: Sequence[str]
    ranks: Tensor | None
    network: Network
    known: Tensor | None = None

    @cached_property
    def untouched(self) -> CopyOutputs:
        """What the classifier says of the images as they are, [B, 1] each."""
        return self.network.outputs(self, 1, lambda row, first, last: self.images[row : row + 1])

    @property
    def before(self) -> Tensor:
        """Score of the images as they are, [B]."""
        if self.known is not None and "untouched" not in self.__dict__:
            return self.known[0 if self.network.score == "logit" else 1]
        return self.network.scores(self.untouched)[:, 0]


class Measure(Protocol):
    """Fills one or more columns.

    Attributes:
        reads_ranks: Whether it needs the rows' ranks.
        passes: Altered images of each row that go through the network, beside the untouched one; those of a method or
            of a metric of the user's own are not counted.
    """

    columns: list[Column]
    reads_ranks: bool
    passes: int

    def __call__(self, rows: MeasuredRows) -> list[Judged]:
        """A number a row for each column."""
        ...
