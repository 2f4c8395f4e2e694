"""A network whose layers' names have several words, to be named by dotted path in tests."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Deep(nn.Module):
    """Two blocks of two convolutions, then sums over places of the features' squares: gradients depend on the image."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        first = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1))
        second = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1))
        self.blocks = nn.Sequential(first, second)
        self.head = nn.Linear(6, num_classes)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Logits [B, K]."""
        logits: Tensor = self.head(torch.tanh(self.blocks(images_BCHW)).square().mean(dim=(2, 3)))
        return logits


def build(num_classes: int) -> Deep:
    """For ``model.arch``."""
    return Deep(num_classes)
