"""The training loop: data on the device, one epoch after the other, the best on validation kept.

Every random draw of epoch n comes from generators derived from (seed, "epoch", n), so that a training which was
interrupted and resumed ends with the bits of one that was not, on a CPU.

Shapes: N images of a split, B of a batch, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from roarline.config.training import TrainCls
from roarline.errors import DataError, JobError
from roarline.seeds import derive_seed
from roarline.training.augmentation import augment, draw
from roarline.training.batches import Split, batch_bounds
from roarline.training.checkpoint import Checkpoint
from roarline.training.evaluate import autocast, evaluate
from roarline.training.losses import Loss, correct_share, make_loss
from roarline.training.optimizers import make_optimizer
from roarline.training.schedules import learning_rate

_STEPS_BETWEEN_READS = 64

AlterBatch = Callable[[Tensor, torch.Generator], Tensor]
"""(network inputs [B, C, H, W], a generator on the CPU) to what the network is trained on instead."""


@dataclass(frozen=True)
class Epoch:
    """One row of the training curve.

    Attributes:
        epoch: From 1.
        learning_rate: Of the epoch's first step.
        train_loss, train_accuracy: Mean over the images as they were trained on: augmented, in training mode, each
            before its own step.
        validation_loss, validation_accuracy: In eval mode after the epoch; None without a validation split.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    train_accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None


@dataclass(frozen=True)
class Trained:
    """What came out; the model itself holds the weights of ``best_epoch``.

    Attributes:
        best_epoch: From 1: of highest validation accuracy, the first of equals; without a validation split the last.
        validation_accuracy: Of that epoch.
        curve: A row an epoch.
    """

    best_epoch: int
    validation_accuracy: float | None
    curve: list[Epoch]


def train(
    model: nn.Module,
    train_split: Split,
    validation_split: Split | None,
    settings: TrainCls,
    *,
    seed: int,
    alter: AlterBatch | None = None,
    checkpoint: Checkpoint | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Trained:
    """Train a classifier.

    Args:
        model: On the splits' device; it is trained in place and left in eval mode with the best epoch's weights.
        train_split: At least 2 images.
        validation_split: None where there is none; then the last epoch is the best.
        settings: ``threads`` is not read here.
        seed: Of batch order, augmentation and the model's own draws (dropout).
        alter: Changes every batch of training images after augmentation; its generator is seeded by epoch and step.
        checkpoint: Where an interrupted training resumes from; None: nowhere.
        progress: Told optimiser steps done, and all.

    Raises:
        DataError: There are fewer than 2 training images.
        JobError: The loss became NaN or infinite, or the device has too little memory.
        ModelError: The network gives NaN or infinite logits for validation images.
        UserInputError: The loss doesn't go with the labels.
    """
    count = train_split.labels.shape[0]
    if count < 2:
        raise DataError(f"the training split has {count} image(s), training needs at least 2")
    run = _Run(model, train_split, settings, seed, progress, alter)
    done = run.restore(checkpoint) if checkpoint else 0
    for epoch in range(done + 1, settings.epochs + 1):
        try:
            run.epoch(epoch, validation_split)
        except torch.OutOfMemoryError as error:
            raise JobError(
                f"{run.device} has too little memory for training with batch_size {settings.batch_size}; lower it"
            ) from error
        if checkpoint and checkpoint.due and epoch < settings.epochs:
            checkpoint.save(run.state(epoch))
    model.load_state_dict(run.best_state)
    model.eval()
    return Trained(run.best_epoch, run.best_accuracy, run.curve)


class _Run:
    """A training that stands between two epochs."""

    def __init__(
        self, model: nn.Module, split: Split, settings: TrainCls, seed: int,
        progress: Callable[[int, int], None], alter: AlterBatch | None,
    ) -> None:  # fmt: skip
        self.settings, self.split, self.seed, self.progress = settings, split, seed, progress
        self.alter = alter
        self.device = split.labels.device
        self.model = model.to(memory_format=torch.channels_last) if settings.channels_last else model  # type: ignore[call-overload]
        self.loss: Loss = make_loss(
            settings.loss, label_smoothing=settings.label_smoothing, multi_label=split.labels.ndim == 2
        )
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = make_optimizer(settings.optimizer, self.parameters)
        self.scaler = GradScaler(
            self.device.type, enabled=settings.precision == "float16" and self.device.type == "cuda"
        )
        self.bounds = batch_bounds(split.labels.shape[0], settings.batch_size)
        self.curve: list[Epoch] = []
        self.best_epoch, self.best_accuracy = 0, None
        self.best_state: dict[str, Tensor] = {}

    best_accuracy: float | None

    def epoch(self, epoch: int, validation_split: Split | None) -> None:
        """Train once over all images, then look at the validation split."""
        count, steps = self.split.labels.shape[0], len(self.bounds)
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "epoch", epoch))
        order = torch.randperm(count, generator=generator)
        draws = draw(self.settings.augmentation, count, generator, self.device)
        meter = _Meter(epoch, self.settings.optimizer.lr)
        first_step = (epoch - 1) * steps
        rates = [self._rate(first_step + step) for step in range(steps)]
        self.model.train()
        with _own_draws(self.device, derive_seed(self.seed, "epoch", epoch, "model")):
            for step, (images, labels) in enumerate(self.split.batches(order, self.bounds)):
                if draws is not None:
                    images = augment(images, draws[slice(*self.bounds[step])])
                if self.alter is not None:
                    generator.manual_seed(derive_seed(self.seed, "epoch", epoch, "alter", step))
                    images = self.alter(images, generator)
                self._step(images, labels, rates[step], meter)
                if meter.full:
                    meter.read()
                    self.progress(first_step + step + 1, steps * self.settings.epochs)
        meter.read()
        self.progress(first_step + steps, steps * self.settings.epochs)
        seen = evaluate(self.model, validation_split, self.loss, self.settings.precision) if validation_split else None
        self.curve.append(
            Epoch(
                epoch, rates[0], meter.mean_loss, meter.accuracy,
                seen.loss if seen else None, seen.accuracy if seen else None,
            )
        )  # fmt: skip
        accuracy = seen.accuracy if seen else None
        if accuracy is None or self.best_accuracy is None or accuracy > self.best_accuracy:
            self.best_epoch, self.best_accuracy = epoch, accuracy
            if seen or epoch == self.settings.epochs:
                self.best_state = {key: value.clone() for key, value in self.model.state_dict().items()}

    def _step(self, images: Tensor, labels: Tensor, rate: float, meter: _Meter) -> None:
        if self.settings.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        for parameter in self.parameters:
            parameter.grad = None
        with autocast(self.device, self.settings.precision):
            logits = self.model(images)
            loss = self.loss(logits, labels)
        if self.scaler.is_enabled():
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
        meter.add(loss, logits, labels)

    def _rate(self, step: int) -> float:
        settings = self.settings
        return learning_rate(settings.scheduler, settings.optimizer.lr, step, len(self.bounds), settings.epochs)

    def state(self, epoch: int) -> dict[str, Any]:
        """All that the next epoch needs."""
        return {
            "epoch": epoch,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "curve": [asdict(row) for row in self.curve],
            "best_epoch": self.best_epoch,
            "best_accuracy": self.best_accuracy,
            "best_state": self.best_state,
        }

    def restore(self, checkpoint: Checkpoint) -> int:
        """Take up what was saved; how many epochs are done."""
        saved = checkpoint.load(self.device)
        if saved is None:
            return 0
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scaler.load_state_dict(saved["scaler"])
        self.curve = [Epoch(**row) for row in saved["curve"]]
        self.best_epoch, self.best_accuracy = saved["best_epoch"], saved["best_accuracy"]
        self.best_state = saved["best_state"]
        return int(saved["epoch"])


class _Meter:
    """Sums up losses and right answers; the device is read only now and then, since each read waits for it."""

    def __init__(self, epoch: int, lr: float) -> None:
        self.epoch, self.lr = epoch, lr
        self.steps, self.images, self._loss, self._correct = 0, 0, 0.0, 0.0
        self._waiting: list[tuple[Tensor, Tensor, Tensor]] = []

    @property
    def full(self) -> bool:
        """True where it is time to read."""
        return len(self._waiting) >= _STEPS_BETWEEN_READS

    @property
    def mean_loss(self) -> float:
        """Mean over the images."""
        return self._loss / self.images

    @property
    def accuracy(self) -> float:
        """Mean over the images, in [0, 1]."""
        return self._correct / self.images

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Note one step."""
        self._waiting.append((loss.detach(), logits.detach(), labels))

    def read(self) -> None:
        """Read what was noted.

        Raises:
            JobError: A loss is NaN or infinite.
        """
        if not self._waiting:
            return
        losses = torch.stack([loss for loss, _, _ in self._waiting]).tolist()
        sizes = [labels.shape[0] for _, _, labels in self._waiting]
        for offset, loss in enumerate(losses):
            if not math.isfinite(loss):
                raise JobError(
                    f"the training diverged: loss {loss} in epoch {self.epoch}, step {self.steps + offset + 1}; lower "
                    f"optimizer.lr (now {self.lr:g}), or use precision: float32"
                )
        logits = torch.cat([logits for _, logits, _ in self._waiting])
        self._correct += float(
            correct_share(logits, torch.cat([labels for _, _, labels in self._waiting])).double().sum()
        )
        self._loss += math.fsum(loss * size for loss, size in zip(losses, sizes, strict=True))
        self.images += sum(sizes)
        self.steps += len(sizes)
        self._waiting.clear()


@contextmanager
def _own_draws(device: torch.device, seed: int) -> Iterator[None]:
    """Dropout draws from torch's default generators: seed them inside, give them back as they were."""
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)
        if cuda:
            torch.cuda.default_generators[device.index or 0].manual_seed(seed)
        yield
