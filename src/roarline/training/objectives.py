"""What a training minimises: the contract between the loop and the losses of classifiers, explainers and maskers.

Shapes: B images of a batch, C channels, H × W px, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from roarline.seeds import derive_seed
from roarline.training.batches import Split

Goal = tuple[str, Literal["min", "max"]]
"""Which number of ``Objective.validate`` tells the best epoch, and which way it is better."""


class Batch:
    """Training images of one pass.

    Args:
        images: Network inputs, float32 [B, C, H, W], normalised and augmented, on the device.
        labels: int64 [B], or float32 [B, K] multi-hot, on the device.
        rows: Which images of the split these are, int64 [B], on the CPU.
        seed_words: What ``generator`` is seeded by.
        companions: Of a ``Companioned`` objective: the other images that it asked for, [B · n, C, H, W], the n of each
            row together, augmented each by itself.
        counted: False where another process has these images, and this one only runs along.
    """

    __slots__ = ("_generator", "_seed_words", "companions", "counted", "images", "labels", "rows")

    def __init__(
        self, images: Tensor, labels: Tensor, rows: Tensor, seed_words: tuple[int | str, ...],
        companions: Tensor | None = None, *, counted: bool = True,
    ) -> None:  # fmt: skip
        self.images, self.labels, self.rows, self.companions = images, labels, rows, companions
        self.counted = counted
        self._seed_words = seed_words
        self._generator: torch.Generator | None = None

    @property
    def generator(self) -> torch.Generator:
        """A generator on the CPU for this batch alone, seeded by epoch and step; made where it is asked for."""
        if self._generator is None:
            self._generator = torch.Generator().manual_seed(derive_seed(*self._seed_words))
        return self._generator


class Minimised(Protocol):
    """What is trained, and what it minimises.

    Attributes:
        trained: All that is trained, parameters and buffers; its state dict is what the best epoch keeps. What is
            frozen (a classifier that is explained) stays outside, in eval mode.
    """

    @property
    def trained(self) -> nn.Module: ...

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """The named terms of one batch, 0-dim, their weights applied; their sum is minimised.

        Each is a mean over the batch's images, as several passes and processes average them so. The names are the same
        for every batch. Random draws come from ``batch.generator``, but for dropout, which torch's own generators
        serve: the loop seeds them.
        """
        ...


class Objective(Minimised, Protocol):
    """What is trained, what it minimises, and what counts as good.

    Attributes:
        goal: Which validated number tells the best epoch.
    """

    @property
    def goal(self) -> Goal: ...

    def validate(self, split: Split) -> Mapping[str, float]:
        """Terms and scores of the validation split after an epoch, in eval mode; ``goal`` names one of them."""
        ...


@runtime_checkable
class Recordable(Minimised, Protocol):
    """An objective whose step can be recorded once and replayed: a function of images and labels on the device.

    Attributes:
        recordable: False where it is not that under its settings.
    """

    @property
    def recordable(self) -> bool: ...

    def outputs(self, images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """The loss that is minimised, 0-dim, and what ``note`` takes beside it; no other effect, no wait."""
        ...

    def note(self, labels: Tensor, *outputs: Tensor) -> Mapping[str, Tensor]:
        """Take what ``outputs`` gave for a batch; returns the terms, as ``losses`` does."""
        ...


@runtime_checkable
class Scored(Protocol):
    """An objective that also tells how well the training images themselves do."""

    def take_scores(self) -> Mapping[str, Tensor]:
        """Scores [n] of the n images that went through ``losses`` since the last call; called now and then."""
        ...


@runtime_checkable
class OwnModes(Protocol):
    """An objective that doesn't train all of its modules in training mode: a frozen backbone's batch norm, say."""

    def to_training(self) -> None:
        """Put every module in the mode it trains in; called before each epoch, instead of ``trained.train()``."""
        ...


@runtime_checkable
class OwnNorms(Protocol):
    """An objective whose gradient is clipped otherwise than as one vector."""

    def clip(self, parameters: Sequence[nn.Parameter], norm: float) -> None:
        """Shorten gradients, in place, to a norm where they are longer."""
        ...


@runtime_checkable
class Companioned(Protocol):
    """An objective that sees other training images beside each one, read ahead with it."""

    def draw_companions(self, generator: torch.Generator) -> Tensor:
        """Which images go beside which in the epoch that begins: rows of the split, int64 [N, n], on the CPU.

        Args:
            generator: On the CPU, of this epoch; what else the objective decides for each image is drawn here too, so
                that it depends neither on batches nor on processes.
        """
        ...


@runtime_checkable
class OwnSteps(Protocol):
    """An objective with several optimisers, which makes its steps itself; ``losses`` isn't called."""

    def step(self, batch: Batch, rate: float) -> Mapping[str, Tensor]:
        """Make one optimiser step, or one of each optimiser.

        Args:
            rate: The schedule's learning rate of this step.

        Returns:
            Named terms for the curve, 0-dim, detached.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs beside ``trained``: tensors, numbers, texts, lists and dictionaries."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what ``state_dict`` gave."""
        ...
