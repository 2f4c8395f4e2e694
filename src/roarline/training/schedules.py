"""Learning rate schedules as pure functions of the step: nothing to save, nothing to restore."""

from __future__ import annotations

import math

from roarline.config.training import Scheduler
from roarline.errors import UserInputError

# One-cycle's start and end as parts of the peak rate.
_START, _END = 1 / 25, 1 / 25 / 1e4


def learning_rate(scheduler: Scheduler, base: float, step: int, steps_per_epoch: int, epochs: int) -> float:
    """The rate of one optimiser step.

    Args:
        scheduler: ``none``: constant; ``step``: times gamma after every ``step_size`` epochs, or after each milestone;
            ``cosine``: half a cosine from base towards 0 over all steps; ``one_cycle``: up from base / 25 to base, then
            down to base / 250,000, each along half a cosine.
        base: The optimiser's lr; the peak for one_cycle.
        step: From 0, counted over the whole training.
        steps_per_epoch: Optimiser steps of an epoch, at least 1.
        epochs: Epochs of the training.

    Source: Loshchilov and Hutter 2017, arXiv 1608.03983; Smith and Topin 2019, arXiv 1708.07120.
    Differs: one_cycle leaves momentum alone.
    """
    total = steps_per_epoch * epochs
    if scheduler.name == "none":
        return base
    if scheduler.name == "step":
        done = step // steps_per_epoch
        milestones = scheduler.milestones
        drops = done // scheduler.step_size if milestones is None else sum(done >= after for after in milestones)
        return float(base * scheduler.gamma**drops)
    if scheduler.name == "cosine":
        return base * (1 + math.cos(math.pi * step / total)) / 2
    if scheduler.name == "one_cycle":
        return _one_cycle(scheduler.warmup_fraction, base, step, total)
    raise UserInputError(f"scheduler is {scheduler.name!r}, expected none, step, cosine or one_cycle")


def _one_cycle(warmup_fraction: float, peak: float, step: int, total: int) -> float:
    top, last = warmup_fraction * total - 1, total - 1
    if step <= top:
        return _half_cosine(peak * _START, peak, step / top if top > 0 else 1.0)
    return _half_cosine(peak, peak * _END, (step - top) / (last - top))


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))
