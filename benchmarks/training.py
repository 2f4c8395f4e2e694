"""Retraining against bare training steps of the same network on one resident random batch.

The hot path is a cell's own work: pixels removed from a whole split by rank, then epochs of the loop with its batch
order, meters and schedule. Bare: forward, loss, backward and optimiser step on one batch that never changes, contiguous
or channels-last, whichever is faster; the batch size is the training's own, since it changes the result.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.harness import FORMATS, Measurement, Options, alternate, timed
from roarline.config.training import TrainCls
from roarline.imaging.fills import fill_image
from roarline.imaging.ranking import rank_pixels
from roarline.imaging.removal import remove
from roarline.models.build import build
from roarline.models.stacking import StackedNetworks
from roarline.training.batches import ResidentSplit
from roarline.training.classification import train
from roarline.training.stacked import Member, fit_stack

_GOAL = 0.9
_CLASSES = 10


@dataclass(frozen=True)
class Case:
    """A network and a training of it, or of a stack of them; ``images`` of each in one epoch."""

    arch: str
    params: dict[str, Any]
    side_px: int
    batch_size: int
    images: int
    epochs: int
    stack: int = 1

    @property
    def settings(self) -> TrainCls:
        """Adam under one-cycle."""
        return TrainCls.model_validate(
            {"epochs": self.epochs, "batch_size": self.batch_size, "scheduler": {"name": "one_cycle"}}
        )


CASES = (
    Case("resnet8", {}, 32, 256, images=1024, epochs=1),
    Case("small_cnn", {"width": 16}, 8, 64, images=1088, epochs=10),
    Case("small_cnn", {"width": 16}, 8, 64, images=1088, epochs=10, stack=5),
)
QUICK_CASES = (
    Case("resnet8", {}, 32, 8, images=16, epochs=1),
    Case("small_cnn", {"width": 16}, 8, 64, images=128, epochs=1, stack=2),
)


class BareSteps:
    """Steps of the network alone, at the faster memory format; the scan is made once, here."""

    def __init__(self, case: Case, model: nn.Module, device: str) -> None:
        self.batch_size = case.batch_size * case.stack
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(case.batch_size, case.stack * 3, case.side_px, case.side_px, generator=generator).to(
            device
        )
        self._labels = torch.randint(0, _CLASSES, (case.batch_size * case.stack,), generator=generator).to(device)
        found = {}
        for name, memory_format in FORMATS.items():
            laid_out: Any = copy.deepcopy(model)
            self._model = laid_out.to(memory_format=memory_format).train()
            self._images = images.contiguous(memory_format=memory_format)
            self._optimizer = torch.optim.Adam(self._model.parameters(), lr=1e-3, fused=True)
            self(self.batch_size)
            seconds = min(timed(lambda: self(2 * self.batch_size), device) for _ in range(3))
            found[name] = seconds, self._model, self._images, self._optimizer
        self.format = min(found, key=lambda name: found[name][0])
        _, self._model, self._images, self._optimizer = found[self.format]

    @property
    def choice(self) -> str:
        """Batch size and memory format."""
        return f"batch {self.batch_size}, {self.format}"

    def __call__(self, passes: int) -> None:
        """Make so many passes of one image each, in whole batches."""
        for _ in range(passes // self.batch_size):
            self._optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(self._model(self._images).flatten(0, -2), self._labels).backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()


def measure(options: Options) -> Iterator[Measurement]:
    """One measurement a case; the networks are the project's own, whatever ``options.networks`` names."""
    for case in QUICK_CASES if options.quick else CASES:
        yield _measure(case, options)


def _measure(case: Case, options: Options) -> Measurement:
    device = options.device
    size = (case.side_px, case.side_px)
    models = [
        build(case.arch, case.params, _CLASSES, input_size=size, seed=seed).to(device) for seed in range(case.stack)
    ]
    split = split_of(case.images, case.side_px, device)

    def cell() -> None:
        train(copy.deepcopy(models[0]), split(), None, case.settings, seed=0)

    def stack() -> None:
        members = [Member(split(), None, seed=seed) for seed in range(case.stack)]
        fit_stack(StackedNetworks(models, size), members, case.settings)

    bare = BareSteps(case, StackedNetworks(models, size) if case.stack > 1 else models[0], device)
    measurement = Measurement(
        hot_path="evaluate-roar",
        network=case.arch,
        setting=f"{case.side_px} px, {case.epochs} epochs{f', a stack of {case.stack}' if case.stack > 1 else ''}",
        images=case.images * case.stack,
        passes=case.images * case.stack * case.epochs,
        pass_kind="training step's share of an image",
        bare_choice=bare.choice,
        goal=_GOAL,
    )
    return alternate(measurement, stack if case.stack > 1 else cell, bare, options)


def split_of(count: int, side_px: int, device: str, classes: int = _CLASSES) -> Callable[[], ResidentSplit]:
    """Random images; what is returned removes half of their pixels by random ranks, as a cell does."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(count, 3, side_px, side_px, generator=generator).to(device)
    labels = torch.randint(0, classes, (count,), generator=generator).to(device)
    ranks = rank_pixels(torch.rand(count, side_px, side_px, generator=generator).to(device), range(count))

    def altered() -> ResidentSplit:
        fill = fill_image(images, "mean", [0.5], [0.25], fill_mean=[0.5])
        return ResidentSplit(remove(images, ranks, side_px**2 // 2, fill), labels)

    return altered
