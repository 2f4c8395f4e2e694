"""Sums of an epoch's losses and scores, kept on the device and read now and then, since each read waits for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from roarline.errors import JobError
from roarline.training.processes import summed

# A read waits for the device. On a GPU an epoch of 50,000 images in batches of 256 has none in between.
_PASSES_BETWEEN_READS = {"cpu": 64, "cuda": 1024}
TOTAL = "loss"


class _Noted(NamedTuple):
    """One pass; ``images`` is how many it saw, each of its terms a mean over them."""

    step: int
    images: int
    counted: bool
    terms: tuple[Tensor, ...]

    @property
    def own(self) -> int:
        """Images that no other process notes."""
        return self.images if self.counted else 0


class Meter:
    """What one epoch's passes gave.

    Args:
        epoch: From 1, for messages.
        lr: The optimiser's, for messages.
    """

    def __init__(self, epoch: int, lr: float) -> None:
        self.epoch, self.lr = epoch, lr
        self.images, self.scored = 0, 0
        self._names: tuple[str, ...] = ()
        self._losses: dict[str, float] = {}
        self._scores: dict[str, float] = {}
        self._waiting: list[_Noted] = []

    @property
    def full(self) -> bool:
        """True where it is time to read."""
        if not self._waiting:
            return False
        device = self._waiting[0].terms[0].device.type
        return len(self._waiting) >= _PASSES_BETWEEN_READS.get(device, _PASSES_BETWEEN_READS["cuda"])

    def add(self, step: int, images: int, terms: Mapping[str, Tensor], *, counted: bool = True) -> None:
        """Note one pass.

        Args:
            step: From 0, in this epoch.
            images: How many the pass saw; the terms are their means.
            counted: False where another process notes these images.

        Raises:
            JobError: The terms have other names than before.
        """
        names = tuple(terms)
        if names != self._names:
            if self._names:
                raise JobError(f"loss terms were {', '.join(self._names)} and are now {', '.join(names)}: keep to one")
            if not names or (len(names) > 1 and TOTAL in names):
                raise JobError(f"loss terms are {list(names)}; expected one, or several of which none is named {TOTAL}")
            self._names, self._losses = names, dict.fromkeys(names, 0.0)
        self._waiting.append(_Noted(step, images, counted, tuple(term.detach() for term in terms.values())))

    def read(self, take_scores: Callable[[], Mapping[str, Tensor]] = dict) -> None:
        """Read what was noted.

        Args:
            take_scores: Gives the scores of the images since the last read, [n] each.

        Raises:
            JobError: A loss is NaN or infinite.
        """
        if not self._waiting:
            return
        values = torch.stack([term for noted in self._waiting for term in noted.terms]).tolist()
        width = len(self._names)
        self._check(values)
        for column, name in enumerate(self._names):
            losses = values[column::width]
            self._losses[name] += math.fsum(loss * noted.own for loss, noted in zip(losses, self._waiting, strict=True))
        scores = {name: self._own(score) for name, score in take_scores().items()}
        for name, score in scores.items():
            self._scores[name] = self._scores.get(name, 0.0) + float(score.double().sum())
        self.scored += len(next(iter(scores.values()))) if scores else 0
        self.images += sum(noted.own for noted in self._waiting)
        self._waiting.clear()

    def _own(self, score: Tensor) -> Tensor:
        """Without the images that another process notes."""
        if all(noted.counted for noted in self._waiting):
            return score
        parts = torch.split(score, [noted.images for noted in self._waiting])
        return torch.cat([part[: noted.own] for part, noted in zip(parts, self._waiting, strict=True)])

    def _check(self, values: Sequence[float]) -> None:
        for place, value in enumerate(values):
            if not math.isfinite(value):
                waited, column = divmod(place, len(self._names))
                step, name = self._waiting[waited].step, self._names[column]
                what = "loss" if name == TOTAL else f"loss term {name}"
                raise JobError(
                    f"the training diverged: {what} {value} in epoch {self.epoch}, step {step + 1}; lower optimizer.lr "
                    f"(now {self.lr:g}), or use precision: float32"
                )

    def means(self, device: torch.device) -> dict[str, float]:
        """Means over the images: ``loss``, the sum of the terms; each term where there are several; each score.

        Args:
            device: Where several processes add up what they saw.
        """
        losses, scores = summed(self._losses, device), summed(self._scores, device)
        seen = summed({"images": self.images, "scored": self.scored}, device)
        terms = {name: total / seen["images"] for name, total in losses.items()}
        found = {TOTAL: math.fsum(terms.values()), **(terms if len(terms) > 1 else {})}
        return found | {name: total / seen["scored"] for name, total in scores.items()}

    def state(self) -> dict[str, Any]:
        """What a training that is resumed within the epoch needs; everything was read before."""
        return {
            "images": self.images,
            "scored": self.scored,
            "losses": dict(self._losses),
            "scores": dict(self._scores),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up what ``state`` gave."""
        self.images, self.scored = state["images"], state["scored"]
        self._losses, self._scores = dict(state["losses"]), dict(state["scores"])
        self._names = tuple(self._losses)
