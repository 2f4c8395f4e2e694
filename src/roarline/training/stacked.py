"""Several classifiers of one architecture trained together: each by its own data, draws, best epoch and end.

What ``fit`` does for one network, this does for a stack of them: batch order, augmentation, schedule, losses, curve and
choice of the epoch are those that each would have alone. Different are the order of sums (float32) and the draws of
dropout, which the networks of a stack take from one generator.

Shapes: B images of a batch, S networks of a stack, C channels, H × W px, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from roarline.config.training import TrainCls
from roarline.errors import DataError, JobError, RoarlineError, UserInputError
from roarline.models.stacking import StackedNetworks, by_network
from roarline.seeds import derive_seed
from roarline.training.augmentation import augment, draw
from roarline.training.batches import Pass, Split, batch_bounds, passes
from roarline.training.choice_of_steps import make_steps
from roarline.training.classification import ACCURACY, GOALS
from roarline.training.early_stopping import Patience, better_by
from roarline.training.evaluate import Evaluation
from roarline.training.evaluate_stacked import correct_by_network, evaluate_stack, losses_of
from roarline.training.loop import Row, Trained, own_draws
from roarline.training.losses import Loss, make_loss
from roarline.training.meter import TOTAL, Meter
from roarline.training.objectives import Batch
from roarline.training.schedules import learning_rate


@dataclass
class Member:
    """One network of a stack.

    Attributes:
        train_split, validation_split: Its own images; all members have equally many.
        seed: Of its batch order and augmentation, as ``fit`` takes it.
        failed: Why it was given up; the others go on.
        best_state: State dict of its best epoch.
    """

    train_split: Split
    validation_split: Split | None
    seed: int
    curve: list[Row] = field(default_factory=list)
    best_epoch: int = 0
    best: dict[str, float] = field(default_factory=dict)
    best_state: dict[str, Tensor] = field(default_factory=dict)
    patience: Patience | None = None
    failed: RoarlineError | None = None

    @property
    def goes_on(self) -> bool:
        """True where it is still being trained."""
        return self.failed is None and not (self.patience and self.patience.over)

    @property
    def trained(self) -> Trained:
        """What came out."""
        return Trained(self.best_epoch, self.best, self.curve)


def fit_stack(
    networks: StackedNetworks,
    members: Sequence[Member],
    settings: TrainCls,
    *,
    record: bool = True,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Train a stack; each member's outcome is noted in it.

    Args:
        networks: On the splits' device; left in eval mode, each with the weights of its best epoch.
        members: In the order of the networks.
        settings: Shared by all.
        record: See ``fit``.
        progress: Told optimiser steps done, and all.

    Raises:
        DataError: There are fewer than 2 training images, or no validation split for early stopping.
        UserInputError: The settings can't be shared.
        JobError: The device has too little memory for all of them.
    """
    count = members[0].train_split.labels.shape[0]
    if count < 2:
        raise DataError(f"the training split has {count} image(s), training needs at least 2")
    if settings.early_stopping and members[0].validation_split is None:
        raise DataError("early_stopping needs a validation split, and there is none: leave it out, or cut one")
    if settings.precision == "float16" and members[0].train_split.labels.is_cuda:
        raise UserInputError(
            "precision: float16 scales the loss of one network at a time; use bfloat16, or evaluate-roar.engine: single"
        )
    run = _Run(networks, members, settings, progress, record=record)
    try:
        for epoch in range(1, settings.epochs + 1):
            if any(member.goes_on for member in members):
                run.epoch(epoch)
    except torch.OutOfMemoryError as error:
        raise JobError(
            f"{run.device} has too little memory for {networks.count} networks with batch_size {settings.batch_size}; "
            "lower it, or set evaluate-roar.engine: single"
        ) from error
    run.end()


_Noted = tuple[int, int, Tensor, Tensor, Tensor]
"""Of a pass: its step, its images, losses [S], logits [B, S, K] and labels."""


class _SummedLosses:
    """The sum of the members' losses: each parameter gets its own network's gradient."""

    def __init__(self, networks: StackedNetworks, loss: Loss) -> None:
        self.trained, self.loss = networks, loss
        self.waiting: list[_Noted] = []
        self.place: Pass | None = None

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """See ``Minimised``; one term."""
        return self.note(batch.labels, *self.outputs(batch.images, batch.labels))

    @property
    def recordable(self) -> bool:
        """See ``Recordable``."""
        return True

    def outputs(self, images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """See ``Recordable``: the sum of the losses, each loss, the logits."""
        logits_BSK = self.trained(images)
        losses_S = losses_of(self.loss, logits_BSK, labels)
        return losses_S.sum(), losses_S, logits_BSK

    def note(self, labels: Tensor, *outputs: Tensor) -> Mapping[str, Tensor]:
        """See ``Recordable``."""
        total, losses_S, logits_BSK = outputs
        assert self.place is not None
        self.waiting.append((self.place.step, len(labels), losses_S.detach(), logits_BSK.detach(), labels))
        return {TOTAL: total}

    def clip(self, parameters: Sequence[nn.Parameter], norm: float) -> None:
        """See ``OwnNorms``: by each network's own norm, in the arithmetic of ``clip_grad_norm_``."""
        count = self.trained.count
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        squares_S = torch.stack([gradient.reshape(count, -1).square().sum(1) for gradient in gradients]).sum(0)
        factors_S = (norm / (squares_S.sqrt() + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            parts = by_network(gradient, count)
            parts.mul_(factors_S.reshape(-1, *[1] * (parts.ndim - 1)))


class _Run:
    """A stack between two epochs."""

    def __init__(
        self, networks: StackedNetworks, members: Sequence[Member], settings: TrainCls,
        progress: Callable[[int, int], None], *, record: bool,
    ) -> None:  # fmt: skip
        self.networks, self.members, self.settings, self.progress = networks, members, settings, progress
        labels = members[0].train_split.labels
        self.device, self.count = labels.device, labels.shape[0]
        if settings.channels_last:
            networks.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        loss = make_loss(
            settings.loss, label_smoothing=settings.label_smoothing, multi_label=labels.ndim == 2,
            class_reduction=settings.class_reduction,
        )  # fmt: skip
        self.goal, self.objective = GOALS[settings.best_by], _SummedLosses(networks, loss)
        self.steps = make_steps(self.objective, settings, self.device, record=record)
        bounds = batch_bounds(self.count, settings.batch_size)
        self.bounds = bounds[: math.floor(settings.epoch_fraction * len(bounds)) + 1]
        self.passes = passes(self.bounds, settings.gradient_accumulation)
        for member in members:
            member.patience = Patience(settings.early_stopping, self.goal)

    def epoch(self, epoch: int) -> None:
        """Train once over the images, then look at the validation splits."""
        self.networks.train()
        first_step = (epoch - 1) * len(self.bounds)
        rates = [self._rate(first_step + step) for step in range(len(self.bounds))]
        meters = [Meter(epoch, self.settings.optimizer.lr) for _ in self.members]
        with own_draws(self.device, derive_seed(self.members[0].seed, "epoch", epoch, "model")):
            for part, batch in zip(self.passes, self._batches(epoch), strict=True):
                self.objective.place = part
                self.steps.make(batch, part, rates[part.step])
        self._read(meters)
        self.progress(first_step + len(self.bounds), len(self.bounds) * self.settings.epochs)
        seen = self._validate()
        for place, (member, meter) in enumerate(zip(self.members, meters, strict=True)):
            if not member.goes_on:
                continue
            row: Row = {"epoch": epoch, "learning_rate": rates[0]}
            row |= {f"train_{name}": value for name, value in meter.means(self.device).items()}
            self._judge(place, epoch, seen[place] if seen else None, row)

    def _batches(self, epoch: int) -> Iterator[Batch]:
        """Each member's own batches, the channels of its images beside those of the others."""
        bounds = [(place.start, place.stop) for place in self.passes]
        streams = [self._of_member(member, epoch, bounds) for member in self.members]
        for batch in zip(*streams, strict=True):
            images = torch.cat([images for images, _ in batch], 1)
            if self.settings.channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            yield Batch(images, torch.stack([labels for _, labels in batch], 1), torch.empty(0), ())

    def _of_member(
        self, member: Member, epoch: int, bounds: Sequence[tuple[int, int]]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches that ``fit`` would make: the same draws in the same order."""
        generator = torch.Generator().manual_seed(derive_seed(member.seed, "epoch", epoch))
        order = torch.randperm(self.count, generator=generator)
        draws = draw(self.settings.augmentation, self.count, generator, self.device)
        for (start, stop), (images, labels) in zip(bounds, member.train_split.batches(order, bounds), strict=True):
            yield (augment(images, draws[start:stop]) if draws is not None else images), labels

    def _read(self, meters: Sequence[Meter]) -> None:
        """Tell each member's meter what the epoch's passes gave; a member that diverged is given up."""
        noted, self.objective.waiting = self.objective.waiting, []
        losses = torch.stack([losses_S for _, _, losses_S, _, _ in noted]).cpu()
        scores_NS = torch.cat([correct_by_network(logits, labels) for _, _, _, logits, labels in noted]).cpu()
        for place, (member, meter) in enumerate(zip(self.members, meters, strict=True)):
            if not member.goes_on:
                continue
            for (step, images, _, _, _), loss in zip(noted, losses[:, place], strict=True):
                meter.add(step, images, {TOTAL: loss})
            try:
                meter.read(lambda place=place: {ACCURACY: scores_NS[:, place]})  # type: ignore[misc]
            except JobError as error:
                member.failed = error

    def _validate(self) -> list[dict[str, float] | RoarlineError]:
        splits = [member.validation_split for member in self.members]
        if any(split is None for split in splits):
            return []
        found: list[dict[str, float] | RoarlineError] = []
        known = [split for split in splits if split is not None]
        for seen in evaluate_stack(self.networks, known, self.objective.loss, self.settings.precision):
            if isinstance(seen, Evaluation):
                assert seen.loss is not None
                found.append({TOTAL: seen.loss, ACCURACY: seen.accuracy})
            else:
                found.append(seen)
        return found

    def _judge(self, place: int, epoch: int, seen: dict[str, float] | RoarlineError | None, row: Row) -> None:
        """Keep a member's weights where the epoch is its best so far; without a validation split the last is."""
        member = self.members[place]
        if isinstance(seen, RoarlineError):
            member.failed = seen
            return
        name = self.goal[0]
        if seen is not None:
            row |= {f"validation_{key}": value for key, value in seen.items()}
            if not math.isfinite(seen[name]):
                member.failed = JobError(
                    f"epoch {epoch} is judged by {name}, which is {seen[name]} on the validation split; lower "
                    "optimizer.lr"
                )
                return
        member.curve.append(row)
        if seen is None or better_by(self.goal, seen[name], member.best.get(name)) > 0:
            member.best_epoch, member.best = epoch, seen or {}
            member.best_state = {key: value.clone() for key, value in self.networks.state_of(place).items()}
        if seen is not None and member.patience is not None:
            member.patience.see(seen[name])

    def _rate(self, step: int) -> float:
        settings = self.settings
        return learning_rate(settings.scheduler, settings.optimizer.lr, step, len(self.bounds), settings.epochs)

    def end(self) -> None:
        """Take each member's best epoch."""
        for place, member in enumerate(self.members):
            if member.best_state:
                self.networks.load_into(place, member.best_state)
        self.networks.eval()
