"""What tests of methods that optimise a mask share: the originals' networks and one whose answer is known."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

GOLDEN = Path(__file__).parent.parent / "golden"


def golden(name: str) -> dict[str, np.ndarray]:
    return dict(np.load(GOLDEN / f"{name}.npz", allow_pickle=False))


def tiny_net(case: dict[str, np.ndarray]) -> nn.Module:
    """TinyNet(3, 8, 16, 5) with a case's weights, see the README of the arrays."""
    model = nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(3, 8, 3, padding=1), relu1=nn.ReLU(), pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(8, 16, 3, padding=1), relu2=nn.ReLU(),
            gap=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), fc=nn.Linear(16, 5),
        )
    )  # fmt: skip
    model.load_state_dict({name: torch.from_numpy(case[f"w_{name.replace('.', '_')}"]) for name in model.state_dict()})
    return model.eval().requires_grad_(False)


class Spotlight(nn.Module):
    """Class 0 is the mean over one rectangle of the image, times a gain; class 1 is worth 0."""

    def __init__(self, rows: slice, columns: slice, gain: float = 1.0) -> None:
        super().__init__()
        self.rows, self.columns, self.gain = rows, columns, gain

    def forward(self, images: Tensor) -> Tensor:
        seen = self.gain * images[:, :, self.rows, self.columns].mean(dim=(1, 2, 3))
        return torch.stack([seen, torch.zeros_like(seen)], dim=1)


def inside_and_outside(map_HW: Tensor, spotlight: Spotlight) -> tuple[float, float]:
    """Mean of a map over the rectangle, and over the rest."""
    inside = torch.zeros_like(map_HW, dtype=torch.bool)
    inside[spotlight.rows, spotlight.columns] = True
    return float(map_HW[inside].mean()), float(map_HW[~inside].mean())
