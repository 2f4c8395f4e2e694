"""Small games for the tests of maskers: images whose class is the colour of a spot, and classifiers that see it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from roarline.config.training import Training
from roarline.training.batches import ResidentSplit
from roarline.training.explainer_task import ExplainerTask
from roarline.training.objectives import Batch

SIDE, CLASSES = 16, 3


class SpotClassifier(nn.Module):
    """Logit k says how bright channel k is where it is brightest; dropout and batch norm would show training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.relu, self.dropout = nn.BatchNorm2d(3), nn.ReLU(), nn.Dropout(0.5)
        self.linear = nn.Linear(3, CLASSES)
        self.linear.weight.data = 4 * torch.eye(CLASSES)
        self.linear.bias.data.zero_()
        self.modes: list[bool] = []

    def forward(self, images_BCHW: Tensor) -> Tensor:
        self.modes.append(self.training)
        seen = self.relu(self.norm(images_BCHW))
        logits: Tensor = self.linear(self.dropout(seen.amax(dim=(2, 3))))
        return logits


def spots(count: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Images [N, 3, 16, 16], labels [N], and bool [N, 16, 16]: where the spot of 5 × 5 px is."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    images = torch.randn(count, 3, SIDE, SIDE, generator=generator) * 0.1
    inside = torch.zeros(count, SIDE, SIDE, dtype=torch.bool)
    for row, (top, left) in enumerate(torch.randint(SIDE - 4, (count, 2), generator=generator).tolist()):
        inside[row, top : top + 5, left : left + 5] = True
        images[row, labels[row], top : top + 5, left : left + 5] += 1.0
    return images, labels, inside


def split(count: int, seed: int = 0) -> ResidentSplit:
    images, labels, _ = spots(count, seed)
    return ResidentSplit(images, labels)


def batch(count: int = 8, seed: int = 0, words: tuple[int | str, ...] = (0, "test")) -> Batch:
    images, labels, _ = spots(count, seed)
    return Batch(images, labels, torch.arange(count), words)


def task(**training: object) -> ExplainerTask:
    settings = Training.model_validate({"epochs": 1, "batch_size": 8, **training})
    return ExplainerTask(CLASSES, False, 1, (SIDE, SIDE), settings, 0)


def frozen() -> SpotClassifier:
    model = SpotClassifier()
    model.eval().requires_grad_(False)
    return model
