"""What steps save and take up again, on another device, too."""

import copy

import pytest
import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler

from roarline.config.training import TrainCls
from roarline.training.batches import passes
from roarline.training.classification import Classification
from roarline.training.objectives import Batch
from roarline.training.steps import OptimizerSteps

WORDS = {"epochs": 1, "batch_size": 4, "optimizer": {"name": "adam", "lr": 0.01}, "precision": "float16"}


def steps_of(*, scaled: bool) -> OptimizerSteps:
    """Of float16, whose losses are scaled on a GPU and nowhere else."""
    settings, model = TrainCls.model_validate(WORDS), nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    found = OptimizerSteps(Classification(model, settings, multi_label=False), settings, torch.device("cpu"))
    assert not found.scaler.is_enabled()
    if scaled:
        found.scaler = GradScaler("cpu", enabled=True)
    return found


def batch() -> Batch:
    return Batch(torch.ones(4, 3, 2, 2), torch.arange(4) % 2, torch.arange(4), (0,))


@pytest.mark.parametrize("scaled_then", [False, True])
@pytest.mark.parametrize("scaled_first", [False, True])
def test_steps_go_on_where_losses_are_scaled_and_where_they_are_not(scaled_first, scaled_then):
    """A training in float16 that was begun on a CPU has no state of a scaler; a GPU's means nothing to a CPU."""
    (place,) = passes([(0, 4)])
    first, then = steps_of(scaled=scaled_first), steps_of(scaled=scaled_then)
    first.make(batch(), place, 0.01)
    if scaled_first:
        first.scaler.update(1024.0)
    saved = copy.deepcopy(first.state())
    then.restore(saved)
    (moments,) = (next(iter(one.optimizer.state.values())) for one in (then,))
    assert moments["step"] == 1
    assert then.scaler.is_enabled() is scaled_then
    if scaled_first and scaled_then:
        assert then.scaler.get_scale() == 1024.0
    then.make(batch(), place, 0.01)
