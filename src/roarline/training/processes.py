"""A training that several processes share: each takes a part of every batch, and gradients are averaged.

Started by torchrun; where nobody started a process group, all of this does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from roarline.training.objectives import Batch, Minimised
from roarline.training.shared_norms import NormsOverProcesses

T = TypeVar("T")
Losses = Callable[[Batch], Mapping[str, Tensor]]


def rank() -> int:
    """Which process this is, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def count() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def from_first(make: Callable[[], T]) -> T:
    """What the first process makes, in all of them."""
    if count() == 1:
        return make()
    made: list[T | None] = [make() if rank() == 0 else None]
    distributed.broadcast_object_list(made, src=0)
    return made[0]  # type: ignore[return-value]


def summed(values: Mapping[str, float], device: torch.device) -> dict[str, float]:
    """Each number's sum over all processes, which have the same names."""
    if count() == 1 or not values:
        return dict(values)
    sums = torch.tensor(list(values.values()), dtype=torch.float64, device=device)
    distributed.all_reduce(sums)
    return dict(zip(values, sums.tolist(), strict=True))


class _LossTerms(nn.Module):
    """An objective's losses as a forward pass, which is what DistributedDataParallel wraps.

    Batch norm takes its statistics from the images of all processes. One without images of its own runs along, as the
    others wait for it there and where gradients are averaged.
    """

    def __init__(self, objective: Minimised) -> None:
        super().__init__()
        self.trained = objective.trained
        self._losses = objective.losses

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        with NormsOverProcesses(counted=batch.counted):
            return dict(self._losses(batch))


class SharedLosses:
    """An objective's losses; where several processes train, backward averages their gradients.

    Before each pass all processes take the first one's buffers. Those of batch norm are alike in all of them already.
    """

    def __init__(self, objective: Minimised) -> None:
        self.losses: Losses = objective.losses
        self._parallel: DistributedDataParallel | None = None
        if count() > 1:
            self._parallel = DistributedDataParallel(_LossTerms(objective))
            self.losses = self._parallel

    def apart(self, *, last: bool) -> AbstractContextManager[object]:
        """Gradients stay in this process but in a step's last pass."""
        return nullcontext() if last or self._parallel is None else self._parallel.no_sync()
