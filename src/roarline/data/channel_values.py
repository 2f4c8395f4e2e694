"""A few numbers, one a channel, on the device of the images that they belong to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def channel_values(values: Sequence[float] | np.ndarray, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Numbers as a tensor that broadcasts over images, [1, n, 1, 1].

    On a GPU each is written by a kernel of its own: the host would wait for a copy, and with it for all work before.

    Args:
        values: n of them.
    """
    if device.type == "cpu":
        return torch.tensor([float(value) for value in values], dtype=dtype).reshape(1, -1, 1, 1)
    return torch.stack([torch.full((), float(value), dtype=dtype, device=device) for value in values]).view(1, -1, 1, 1)
