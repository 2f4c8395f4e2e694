"""Training a classifier: cross entropy of its logits, and its accuracy as the goal.

Shapes: B images of a batch, C channels, H × W px.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from roarline.config.training import TrainCls
from roarline.models.heads import backbone
from roarline.training.batches import Split
from roarline.training.checkpoint import Checkpoint
from roarline.training.evaluate import evaluate
from roarline.training.loop import Told, Trained, fit, told_nobody
from roarline.training.losses import Loss, correct_share, make_loss
from roarline.training.meter import TOTAL
from roarline.training.objectives import Batch, Goal

AlterBatch = Callable[[Tensor, torch.Generator], Tensor]
"""(network inputs [B, C, H, W], a generator on the CPU) to what the network is trained on instead."""

ACCURACY = "accuracy"
GOALS: dict[str, Goal] = {ACCURACY: (ACCURACY, "max"), TOTAL: (TOTAL, "min")}


class Classification:
    """The objective of a plain classifier.

    Args:
        model: The classifier.
        settings: Its loss, precision and ``best_by``.
        multi_label: True where labels are multi-hot.
        alter: Changes every batch of training images after augmentation.

    Raises:
        UserInputError: The loss doesn't go with the labels.
    """

    def __init__(
        self, model: nn.Module, settings: TrainCls, *, multi_label: bool, alter: AlterBatch | None = None
    ) -> None:
        self.trained, self.settings, self.alter = model, settings, alter
        self.goal = GOALS[settings.best_by]
        self.loss: Loss = make_loss(
            settings.loss, label_smoothing=settings.label_smoothing, multi_label=multi_label,
            class_reduction=settings.class_reduction,
        )  # fmt: skip
        self._waiting: list[tuple[Tensor, Tensor]] = []

    def to_training(self) -> None:
        """See ``OwnModes``: a frozen backbone stays in eval mode, as spec B0.3 asks."""
        self.trained.train()
        frozen = self.settings.frozen_backbone
        if frozen is not None and frozen.compat == "corrected":
            for part in backbone(self.trained):
                part.eval()

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """See ``Objective``; one term, ``loss``."""
        images = batch.images
        if self.alter is not None:
            images = self.alter(images, batch.generator)
            if self.settings.channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
        return self.note(batch.labels, *self.outputs(images, batch.labels))

    @property
    def recordable(self) -> bool:
        """See ``Recordable``: what alters batches draws on the CPU."""
        return self.alter is None

    def outputs(self, images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """See ``Recordable``: the loss and the logits."""
        logits = self.trained(images)
        return self.loss(logits, labels), logits

    def note(self, labels: Tensor, *outputs: Tensor) -> Mapping[str, Tensor]:
        """See ``Recordable``; the logits are kept for ``take_scores``."""
        loss, logits = outputs
        self._waiting.append((logits.detach(), labels))
        return {TOTAL: loss}

    def loss_of(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of training images; their logits are kept for ``take_scores``."""
        return self.note(labels, self.loss(logits, labels), logits)[TOTAL]

    def take_scores(self) -> Mapping[str, Tensor]:
        """See ``Scored``: how right each image's decision was, before its own step."""
        logits = torch.cat([logits for logits, _ in self._waiting])
        labels = torch.cat([labels for _, labels in self._waiting])
        self._waiting.clear()
        return {ACCURACY: correct_share(logits, labels)}

    def validate(self, split: Split) -> Mapping[str, float]:
        """See ``Objective``."""
        seen = evaluate(self.trained, split, self.loss, self.settings.precision)
        return {TOTAL: cast(float, seen.loss), ACCURACY: seen.accuracy}


def train(
    model: nn.Module,
    train_split: Split,
    validation_split: Split | None,
    settings: TrainCls,
    *,
    seed: int,
    alter: AlterBatch | None = None,
    checkpoint: Checkpoint | None = None,
    record: bool = True,
    told: Told = told_nobody,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Trained:
    """Train a plain classifier; see ``fit``.

    Args:
        model: On the splits' device; it is trained in place and left in eval mode with the best epoch's weights.
        alter: Changes every batch of training images after augmentation; its generator is seeded by epoch and step.

    Raises:
        UserInputError: The loss doesn't go with the labels.
    """
    multi_label = train_split.labels.ndim == 2
    objective = Classification(model, settings, multi_label=multi_label, alter=alter)
    return fit(
        objective, train_split, validation_split, settings, seed=seed, checkpoint=checkpoint, record=record,
        told=told, progress=progress,
    )  # fmt: skip
