"""Optimisers: one step against its formula, and what can't be trained."""

import pytest
import torch
from torch import nn

from roarline.config.training import Optimizer
from roarline.errors import UserInputError
from roarline.training.optimizers import make_optimizer

LR, DECAY = 0.1, 0.01


def one_step(settings: Optimizer, steps: int = 1) -> float:
    """A parameter of 2 after steps with gradient 3."""
    parameter = nn.Parameter(torch.tensor([2.0]))
    optimizer = make_optimizer(settings, [parameter])
    for _ in range(steps):
        parameter.grad = torch.tensor([3.0])
        optimizer.step()
    return parameter.item()


def test_sgd_with_momentum():
    settings = Optimizer(name="sgd", lr=LR, weight_decay=DECAY, momentum=0.9)
    first = 3 + DECAY * 2
    after_one = 2 - LR * first
    second = 0.9 * first + 3 + DECAY * after_one
    assert one_step(settings) == pytest.approx(after_one, rel=1e-6)
    assert one_step(settings, 2) == pytest.approx(after_one - LR * second, rel=1e-6)


def test_first_adam_step_is_the_rate_whatever_the_gradients_size():
    assert one_step(Optimizer(name="adam", lr=LR)) == pytest.approx(2 - LR, rel=1e-6)


def test_adamw_decouples_weight_decay():
    assert one_step(Optimizer(name="adamw", lr=LR, weight_decay=DECAY)) == pytest.approx(
        2 * (1 - LR * DECAY) - LR, rel=1e-6
    )


def test_frozen_parameters_stay_out():
    frozen, free = nn.Parameter(torch.ones(1), requires_grad=False), nn.Parameter(torch.ones(1))
    (group,) = make_optimizer(Optimizer(), [frozen, free]).param_groups
    assert group["params"] == [free]
    with pytest.raises(UserInputError, match="no parameter that can be trained"):
        make_optimizer(Optimizer(), [frozen])
