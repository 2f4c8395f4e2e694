"""CA's pool of classifiers: copies of a network in training, on the CPU, one of them drawn to judge a mask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

State = dict[str, Tensor]


class ClassifierPool:
    """Copies of a classifier from different times of its training.

    Args:
        size: Most copies.
        every: Steps between two of them.

    Source: Zolna et al. 2020, arXiv 1908.09388 (CASM), section 3.2; spec S3.3.
    Differs: the original keeps references where the weights lie on the CPU, so that all of the pool is the newest
        network (spec B3.15).
    """

    def __init__(self, size: int, every: int) -> None:
        self.size, self.every = size, every
        self.copies: list[State] = []

    def offer(self, model: nn.Module, step: int, generator: torch.Generator) -> None:
        """Keep a copy where it is time to, or where there is none yet.

        Args:
            model: As it is now.
            step: Steps before this one, from 0.
            generator: On the CPU: which copy a full pool gives up.
        """
        if self.copies and step % self.every != self.every - 1:
            return
        copy = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
        if len(self.copies) < self.size:
            self.copies.append(copy)
        else:
            self.copies[_draw(self.size, generator)] = copy

    def load_into(self, model: nn.Module, generator: torch.Generator) -> None:
        """Give a network the weights of a copy drawn at random.

        Args:
            model: On any device.
            generator: On the CPU.
        """
        model.load_state_dict(self.copies[_draw(len(self.copies), generator)])

    def state_dict(self) -> dict[str, Any]:
        """All copies."""
        return {"copies": self.copies}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what ``state_dict`` gave, wherever its tensors lie now."""
        self.copies = [{name: value.cpu().clone() for name, value in copy.items()} for copy in state["copies"]]


def _draw(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=generator))
