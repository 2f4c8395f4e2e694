"""Which way of steps a training takes."""

from __future__ import annotations

import torch

from roarline.config.training import Training
from roarline.errors import UserInputError
from roarline.training import processes
from roarline.training.captured import CapturedSteps, can_be_recorded
from roarline.training.objectives import Minimised, OwnSteps
from roarline.training.steps import ObjectiveSteps, OptimizerSteps, Steps


def make_steps(
    objective: Minimised | OwnSteps, settings: Training, device: torch.device, *, record: bool = True
) -> Steps:
    """The way of an objective's steps.

    Args:
        record: See ``fit``.

    Raises:
        UserInputError: An objective that makes its own steps is asked to accumulate gradients, or nothing is trained.
    """
    if not isinstance(objective, OwnSteps):
        recorded = can_be_recorded(objective, settings, device, known=record)
        return (CapturedSteps if recorded else OptimizerSteps)(objective, settings, device)
    if processes.count() > 1:
        raise UserInputError(
            f"{type(objective).__name__} makes its own steps, which several processes can't share; start one process"
        )
    if settings.gradient_accumulation > 1:  # gradient_clip_norm is the objective's to mind
        raise UserInputError(
            f"gradient_accumulation is {settings.gradient_accumulation}, but {type(objective).__name__} has several "
            "optimisers and makes its own steps; leave it out"
        )
    return ObjectiveSteps(objective)
