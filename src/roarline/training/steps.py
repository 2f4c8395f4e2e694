"""How one pass becomes a part of an optimiser step: by the loop's own optimiser, or by the objective's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from roarline.config.training import Training
from roarline.training.batches import Pass
from roarline.training.evaluate import autocast
from roarline.training.objectives import Batch, Minimised, OwnNorms, OwnSteps
from roarline.training.optimizers import make_optimizer
from roarline.training.processes import SharedLosses


class Steps(Protocol):
    """What makes steps, and can be saved between two of them."""

    def make(self, batch: Batch, place: Pass, rate: float) -> Mapping[str, Tensor]:
        """Run one pass, and step with the step's last.

        Returns:
            The named loss terms, 0-dim.
        """
        ...

    def state(self) -> dict[str, Any]: ...

    def restore(self, state: dict[str, Any]) -> None: ...


class OptimizerSteps:
    """One optimiser over all trained parameters, mixed precision, gradients summed over the passes of a step."""

    def __init__(self, objective: Minimised, settings: Training, device: torch.device) -> None:
        self.objective, self.device, self.precision = objective, device, settings.precision
        self.shared = SharedLosses(objective)
        self.losses = self.shared.losses
        self.parameters = [parameter for parameter in objective.trained.parameters() if parameter.requires_grad]
        self.optimizer = make_optimizer(settings.optimizer, self.parameters)
        self.clip_norm = settings.gradient_clip_norm
        self.scaler = GradScaler(device.type, enabled=settings.precision == "float16" and device.type == "cuda")

    def make(self, batch: Batch, place: Pass, rate: float) -> Mapping[str, Tensor]:
        """See ``Steps``."""
        if place.first:
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            for parameter in self.parameters:
                parameter.grad = None
        with self.shared.apart(last=place.last):
            with autocast(self.device, self.precision):
                terms = self.losses(batch)
                loss = total(terms)
            if place.weight != 1:
                loss = loss * place.weight
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        if place.last:
            if self.clip_norm is not None:
                self.scaler.unscale_(self.optimizer)
                self.clip(self.clip_norm)
            self.scaler.step(self.optimizer)
            self.scaler.update()
        return terms

    def clip(self, norm: float) -> None:
        """Shorten the step's gradient to a norm, where it is longer."""
        if isinstance(self.objective, OwnNorms):
            self.objective.clip(self.parameters, norm)
        else:
            torch.nn.utils.clip_grad_norm_(self.parameters, norm)

    def state(self) -> dict[str, Any]:
        """See ``Steps``."""
        return {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """See ``Steps``."""
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:  # empty where it was saved on a CPU, which scales nothing
            self.scaler.load_state_dict(state["scaler"])


class ObjectiveSteps:
    """Steps that the objective makes itself."""

    def __init__(self, objective: OwnSteps) -> None:
        self.objective = objective

    def make(self, batch: Batch, place: Pass, rate: float) -> Mapping[str, Tensor]:
        """See ``Steps``."""
        return self.objective.step(batch, rate)

    def state(self) -> dict[str, Any]:
        """See ``Steps``."""
        return {"objective": self.objective.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """See ``Steps``."""
        self.objective.load_state_dict(state["objective"])


def total(terms: Mapping[str, Tensor]) -> Tensor:
    """The sum of the terms; a single one as it is."""
    first, *others = terms.values()
    for term in others:
        first = first + term
    return first
