"""Networks of golden cases: TinyNet from stored weights, and weights too large to store, computed from a recipe."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn


def recipe_tensor(shape: tuple[int, ...], name: str, position: int, seed: int) -> Tensor:
    """One tensor of s4_resnet8.npz: a hash of position and index, see ``weight_recipe`` in its params."""
    index = np.arange(math.prod(shape), dtype=np.uint64)
    low = np.uint64(0xFFFFFFFF)
    h = (index * np.uint64(2654435761) + np.uint64(position * 40503 * 65537 + seed * 97 + 12345)) & low
    h ^= h >> np.uint64(15)
    h = (h * np.uint64(2246822519)) & low
    h ^= h >> np.uint64(13)
    h = (h * np.uint64(3266489917)) & low
    h ^= h >> np.uint64(16)
    u = (2 * h.astype(np.float64) / 2**32 - 1) * math.sqrt(3)
    if len(shape) > 1:
        u = u * math.sqrt(2 / math.prod(shape[1:]))
    elif name.endswith("running_var"):
        u = 1 + 0.4 * u
    elif name.endswith("weight"):
        u = 1 + 0.1 * u
    else:
        u = 0.1 * u
    return torch.from_numpy(u.reshape(shape))


def tiny_net(arrays: Mapping[str, np.ndarray]) -> nn.Module:
    """The TinyNet of a case, in eval mode, from its ``w_*`` arrays."""
    shapes = {name: arrays[f"w_{name}_weight"].shape for name in ("conv1", "conv2", "fc")}
    convolutions = [nn.Conv2d(shapes[name][1], shapes[name][0], 3, padding=1) for name in ("conv1", "conv2")]
    model = nn.Sequential(
        OrderedDict(
            conv1=convolutions[0], relu1=nn.ReLU(), pool1=nn.MaxPool2d(2),
            conv2=convolutions[1], relu2=nn.ReLU(),
            gap=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), fc=nn.Linear(*reversed(shapes["fc"])),
        )
    )  # fmt: skip
    model.load_state_dict(
        {name: torch.from_numpy(arrays[f"w_{name.replace('.', '_')}"]) for name in model.state_dict()}
    )
    return model.to(torch.from_numpy(arrays["w_fc_weight"]).dtype).eval()
