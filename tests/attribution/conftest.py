"""Small networks whose attributions can be derived by hand or by captum."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

GOLDEN = Path(__file__).parent.parent / "golden"


class Linear(nn.Module):
    """logits = W · x + b over all pixels and channels."""

    def __init__(self, classes: int, channels: int, side: int) -> None:
        super().__init__()
        self.layer = nn.Linear(channels * side * side, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images.flatten(1))


class ConvNet(nn.Module):
    """Two convolutions with a ReLU module that is called twice, mean over places, linear."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(8, 16, 3, padding=1)
        self.dropout = nn.Dropout(0.5)
        self.linear = nn.Linear(16, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.pool(self.relu(self.norm(self.conv1(images))))
        x = self.relu(self.conv2(x))
        return self.linear(self.dropout(x).mean((2, 3)))


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def linear(generator: torch.Generator) -> Linear:
    """5 classes of 3 × 8 × 8 px, float64."""
    return _randomised(Linear(5, 3, 8).double(), generator)


@pytest.fixture
def convnet(generator: torch.Generator) -> ConvNet:
    """5 classes of images of 3 channels and even sides, float64, in training mode as a network is built."""
    return _randomised(ConvNet().double(), generator)


@pytest.fixture
def images(generator: torch.Generator) -> Tensor:
    """[4, 3, 8, 8] float64."""
    return torch.randn(4, 3, 8, 8, generator=generator, dtype=torch.float64)


@pytest.fixture
def targets() -> Tensor:
    return torch.tensor([0, 3, 4, 1])


def _randomised(model, generator):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype) / 3)
    return model


@dataclass
class BackpropCase:
    """s6_backprop.npz: TorchRay's maps of a tiny network, float64."""

    arrays: dict[str, np.ndarray]
    model: nn.Module
    images: Tensor
    targets: Tensor


@pytest.fixture(scope="session")
def backprop_case() -> BackpropCase:
    arrays = dict(np.load(GOLDEN / "s6_backprop.npz", allow_pickle=False))
    model = nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(3, 8, 3, padding=1), relu1=nn.ReLU(), pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(8, 16, 3, padding=1), relu2=nn.ReLU(),
            gap=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), fc=nn.Linear(16, 5),
        )
    ).double()  # fmt: skip
    model.load_state_dict(
        {name: torch.from_numpy(arrays[f"w_{name.replace('.', '_')}"]) for name in model.state_dict()}
    )
    images = torch.from_numpy(arrays["in_image"]).double()
    return BackpropCase(arrays, model.eval(), images, torch.from_numpy(arrays["in_target"]))
