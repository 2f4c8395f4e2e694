"""The golden arrays' network."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from torch import nn

GOLDEN = Path(__file__).parent.parent / "golden"


def load(name: str) -> dict[str, np.ndarray]:
    """One golden case."""
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as file:
        return dict(file)


def tiny_net(golden: dict[str, np.ndarray]) -> nn.Module:
    """TinyNet with the case's weights, as tests/golden/README.md lists its layers; eval mode, frozen."""
    weights = {key.removeprefix("w_"): torch.from_numpy(value) for key, value in golden.items() if key.startswith("w_")}
    first, second, last = (weights[f"{name}_weight"] for name in ("conv1", "conv2", "fc"))
    net = nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(first.shape[1], first.shape[0], 3, padding=1),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(second.shape[1], second.shape[0], 3, padding=1),
            relu2=nn.ReLU(),
            gap=nn.AdaptiveAvgPool2d(1),
            flat=nn.Flatten(),
            fc=nn.Linear(last.shape[1], last.shape[0]),
        )
    ).to(first.dtype)
    net.load_state_dict({name.replace("_", ".", 1): value for name, value in weights.items()})
    return net.eval().requires_grad_(False)
