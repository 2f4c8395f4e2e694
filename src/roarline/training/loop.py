"""The training loop: data on the device, one epoch after the other, the best on validation kept.

Every random draw of epoch n comes from generators derived from (seed, "epoch", n), so that a training which was
interrupted and resumed ends with the bits of one that was not, on a CPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from roarline.config.training import Training
from roarline.errors import DataError, JobError, UserInputError
from roarline.seeds import derive_seed
from roarline.training import processes
from roarline.training.augmentation import augment, draw
from roarline.training.batches import Pass, Reading, Split, batch_bounds, passes
from roarline.training.checkpoint import Checkpoint
from roarline.training.choice_of_steps import make_steps
from roarline.training.early_stopping import Patience, better_by
from roarline.training.meter import Meter
from roarline.training.objectives import Batch, Companioned, Objective, OwnModes, Scored
from roarline.training.schedules import learning_rate
from roarline.training.steps import Steps

Row = dict[str, float | None]
"""One row of a training curve: ``epoch`` (from 1), ``learning_rate`` (of its first step), ``train_<name>`` and
``validation_<name>``. Training numbers are means over the images as they were trained on: augmented, in training mode,
each before its own step; validation numbers are the objective's, in eval mode after the epoch."""

Told = Callable[[Mapping[str, float | None]], None]
"""Is told each row of the curve, once it is known."""


def told_nobody(row: Mapping[str, float | None]) -> None:
    """Listen to no row."""


@dataclass(frozen=True)
class Trained:
    """What came out; the objective's ``trained`` holds the weights of ``best_epoch``.

    Attributes:
        best_epoch: From 1: the first of those whose goal is best; without a validation split the last.
        best: What the objective validated then; empty without a validation split.
        curve: A row an epoch.
    """

    best_epoch: int
    best: dict[str, float]
    curve: list[Row]

    @property
    def validation_accuracy(self) -> float | None:
        """Of the best epoch, where the objective tells it."""
        return self.best.get("accuracy")


def fit(
    objective: Objective,
    train_split: Split,
    validation_split: Split | None,
    settings: Training,
    *,
    seed: int,
    checkpoint: Checkpoint | None = None,
    record: bool = True,
    told: Told = told_nobody,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Trained:
    """Train what an objective says, by what it says.

    Args:
        objective: Its ``trained`` is on the splits' device, is trained in place and left in eval mode with the best
            epoch's weights.
        train_split: At least 2 images.
        validation_split: None where there is none; then the last epoch is the best.
        settings: Of the training.
        seed: Of batch order, augmentation, the objective's draws and the model's own (dropout).
        checkpoint: Where an interrupted training resumes from; None: nowhere.
        record: On a GPU, steps may be recorded once and replayed. False for a network that may count its steps, or
            choose its way on the CPU, which a recording would freeze.
        told: Is told each epoch's row of the curve.
        progress: Told optimiser steps done, and all.

    Raises:
        DataError: There are fewer than 2 training images, or no validation split for early stopping.
        UserInputError: A batch has no image for each of the processes that train together.
        JobError: A loss became NaN or infinite, or the device has too little memory.
    """
    count = train_split.labels.shape[0]
    if count < 2:
        raise DataError(f"the training split has {count} image(s), training needs at least 2")
    if settings.early_stopping and validation_split is None:
        raise DataError("early_stopping needs a validation split, and there is none: leave it out, or cut one")
    if min(settings.batch_size, count) < processes.count():
        raise UserInputError(
            f"batch_size is {settings.batch_size}, of {count} images: {processes.count()} processes need an image each"
        )
    run = _Run(objective, train_split, settings, seed, checkpoint, progress, record=record)
    run.restore()
    try:
        while run.done < settings.epochs and not run.patience.over:
            row = run.epoch(validation_split)
            if processes.rank() == 0:
                told(row)
    except torch.OutOfMemoryError as error:
        raise JobError(
            f"{run.device} has too little memory for training with batch_size {settings.batch_size}; lower it, or "
            "raise gradient_accumulation"
        ) from error
    return run.end()


class _Run:
    """A training between two steps."""

    def __init__(
        self, objective: Objective, split: Split, settings: Training, seed: int, checkpoint: Checkpoint | None,
        progress: Callable[[int, int], None], *, record: bool = True,
    ) -> None:  # fmt: skip
        self.objective, self.split, self.settings, self.seed = objective, split, settings, seed
        self.checkpoint, self.progress = checkpoint, progress
        self.device = split.labels.device
        model = objective.trained
        if settings.channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.steps: Steps = make_steps(objective, settings, self.device, record=record)
        bounds = batch_bounds(split.labels.shape[0], settings.batch_size)
        self.bounds = bounds[: math.floor(settings.epoch_fraction * len(bounds)) + 1]
        self.passes = passes(self.bounds, settings.gradient_accumulation, processes.rank(), processes.count())
        self.patience = Patience(settings.early_stopping, objective.goal)
        self.done, self.best_epoch = 0, 0
        self.best: dict[str, float] = {}
        self.best_state: dict[str, Any] = {}
        self.curve: list[Row] = []
        self.begun: dict[str, Any] | None = None  # of an epoch that was interrupted

    def epoch(self, validation_split: Split | None) -> Row:
        """Train once over the images, then look at the validation split."""
        epoch, objective = self.done + 1, self.objective
        meter = Meter(epoch, self.settings.optimizer.lr)
        if isinstance(objective, OwnModes):
            objective.to_training()
        else:
            objective.trained.train()
        self._train(epoch, meter)
        rate = self._rate((epoch - 1) * len(self.bounds))
        row: Row = {"epoch": epoch, "learning_rate": rate}
        row |= {f"train_{name}": value for name, value in meter.means(self.device).items()}
        self.done = epoch
        if validation_split is None:
            self.best_epoch = epoch
        else:
            seen = processes.from_first(lambda: dict(objective.validate(validation_split)))
            row |= {f"validation_{name}": value for name, value in seen.items()}
            self._judge(epoch, seen)
        self.curve.append(row)
        goes_on = epoch < self.settings.epochs and not self.patience.over
        if goes_on and self.checkpoint and self.checkpoint.due and processes.rank() == 0:
            self.checkpoint.save(self.state())
        return row

    def _train(self, epoch: int, meter: Meter) -> None:
        settings, steps = self.settings, len(self.bounds)
        first_step, total = (epoch - 1) * steps, steps * settings.epochs
        rates = [self._rate(first_step + step) for step in range(steps)]
        take_scores = self.objective.take_scores if isinstance(self.objective, Scored) else dict
        batches = self._batches(epoch)
        own = ("process", processes.rank()) if processes.rank() else ()
        with own_draws(self.device, derive_seed(self.seed, "epoch", epoch, "model", *own)):
            ahead = self._ahead(meter)
            for place, batch in zip(ahead, batches(ahead), strict=True):
                terms = self.steps.make(batch, place, rates[place.step])
                meter.add(place.step, place.stop - place.start, terms, counted=place.counted)
                if meter.full and place.last:
                    meter.read(take_scores)
                    self.progress(first_step + place.step + 1, total)
                    # Several processes don't stop at one step to save the draws of each: epochs are their steps.
                    alone = processes.count() == 1
                    if alone and self.checkpoint and self.checkpoint.due and place.step + 1 < steps:
                        self._save_within(place.step + 1, meter)
            meter.read(take_scores)
        self.progress(first_step + steps, total)

    def _batches(self, epoch: int) -> Callable[[list[Pass]], Iterator[Batch]]:
        """Make all draws of an epoch; what gives its batches."""
        count = self.split.labels.shape[0]
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "epoch", epoch))
        order, companions = torch.randperm(count, generator=generator), None
        if isinstance(self.objective, Companioned):
            beside = torch.Generator().manual_seed(derive_seed(self.seed, "epoch", epoch, "companions"))
            companions = self.objective.draw_companions(beside)[order]
        read = Reading(order, companions)
        draws = draw(self.settings.augmentation, read.count, generator, self.device)

        def batches(places: list[Pass]) -> Iterator[Batch]:
            rows, bounds = read.plan(places)
            for place, (images, labels) in zip(places, self.split.batches(rows, bounds), strict=True):
                if draws is not None:
                    images = augment(images, draws[read.places(place)])
                if self.settings.channels_last:
                    images = images.contiguous(memory_format=torch.channels_last)
                own, beside = place.stop - place.start, None
                if companions is not None:
                    images, beside, labels = images[:own], images[own:], labels[:own]
                rows_of, words = order[place.start : place.stop], self._words(epoch, place)
                yield Batch(images, labels, rows_of, words, beside, counted=place.counted)

        return batches

    def _ahead(self, meter: Meter) -> list[Pass]:
        """The passes that this epoch still has to make: all, but in an epoch that was interrupted."""
        if self.begun is None:
            return self.passes
        begun, self.begun = self.begun, None
        if processes.rank() == 0:  # what one process had seen counts once
            meter.restore(begun["meter"])
        torch.set_rng_state(begun["draws"].cpu())
        if self.device.type == "cuda" and "device_draws" in begun:
            torch.cuda.set_rng_state(begun["device_draws"].cpu(), self.device)
        elif self.device.type == "cuda":  # it was begun on a CPU, whose draws can't be gone on with here
            seed = derive_seed(self.seed, "epoch", self.done + 1, "model", "step", begun["steps"])
            _generator_of(self.device).manual_seed(seed)
        return [place for place in self.passes if place.step >= begun["steps"]]

    def _save_within(self, steps: int, meter: Meter) -> None:
        begun = {"steps": steps, "meter": meter.state(), "draws": torch.get_rng_state()}
        if self.device.type == "cuda":
            begun["device_draws"] = torch.cuda.get_rng_state(self.device)
        if self.checkpoint:
            self.checkpoint.save({**self.state(), "begun": begun})

    def _words(self, epoch: int, place: Pass) -> tuple[int | str, ...]:
        words: tuple[int | str, ...] = (self.seed, "epoch", epoch, "alter", place.step)
        return words if place.part == 0 else (*words, "part", place.part)

    def _judge(self, epoch: int, seen: dict[str, float]) -> None:
        goal = self.objective.goal
        value = seen.get(goal[0])
        if value is None or not math.isfinite(value):
            raise JobError(
                f"epoch {epoch} is judged by {goal[0]}, which is {value} on the validation split; lower optimizer.lr"
                if value is not None
                else f"the objective's goal is {goal[0]}, and it validated {', '.join(seen) or 'nothing'}"
            )
        if better_by(goal, value, self.best.get(goal[0])) > 0:
            self.best_epoch, self.best = epoch, seen
            self.best_state = {key: value.clone() for key, value in self.objective.trained.state_dict().items()}
        self.patience.see(value)

    def _rate(self, step: int) -> float:
        settings = self.settings
        return learning_rate(settings.scheduler, settings.optimizer.lr, step, len(self.bounds), settings.epochs)

    def end(self) -> Trained:
        """Take the best epoch's weights."""
        model: nn.Module = self.objective.trained
        if self.best_state:
            model.load_state_dict(self.best_state)
        model.eval()
        return Trained(self.best_epoch, self.best, self.curve)

    def state(self) -> dict[str, Any]:
        """All that the next step needs."""
        return {
            "epoch": self.done,
            "model": self.objective.trained.state_dict(),
            "steps": self.steps.state(),
            "patience": self.patience.state(),
            "curve": self.curve,
            "best_epoch": self.best_epoch,
            "best": self.best,
            "best_state": self.best_state,
        }

    def restore(self) -> None:
        """Take up what was saved."""
        saved = self.checkpoint.load(self.device) if self.checkpoint else None
        if saved is None:
            return
        self.objective.trained.load_state_dict(saved["model"])
        self.steps.restore(saved["steps"])
        self.patience.restore(saved["patience"])
        self.done, self.curve, self.begun = saved["epoch"], saved["curve"], saved.get("begun")
        self.best_epoch, self.best, self.best_state = saved["best_epoch"], saved["best"], saved["best_state"]


@contextmanager
def own_draws(device: torch.device, seed: int) -> Iterator[None]:
    """Dropout draws from torch's default generators: seed them inside, give them back as they were."""
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)
        if cuda:
            _generator_of(device).manual_seed(seed)
        yield


def _generator_of(device: torch.device) -> torch.Generator:
    """What dropout draws from on a GPU."""
    return torch.cuda.default_generators[device.index or 0]
