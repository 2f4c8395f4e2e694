"""Schedules against torch's own, step by step."""

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from roarline.config.training import Scheduler
from roarline.training.schedules import learning_rate


def torchs(make, steps: int) -> list[float]:
    """The rates that torch's scheduler gives for each step."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.4)
    scheduler = make(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def ours(scheduler: Scheduler, steps_per_epoch: int, epochs: int) -> list[float]:
    return [learning_rate(scheduler, 0.4, step, steps_per_epoch, epochs) for step in range(steps_per_epoch * epochs)]


def test_none_is_constant():
    assert set(ours(Scheduler(name="none"), 3, 4)) == {0.4}


def test_step_falls_after_every_step_size_epochs_as_torchs_does():
    mine = ours(Scheduler(name="step", step_size=2, gamma=0.5), steps_per_epoch=3, epochs=7)
    per_epoch = torchs(lambda o: torch.optim.lr_scheduler.StepLR(o, step_size=2, gamma=0.5), 7)
    assert mine == pytest.approx([rate for rate in per_epoch for _ in range(3)], rel=1e-12)


def test_cosine_matches_torchs():
    mine = ours(Scheduler(name="cosine"), steps_per_epoch=5, epochs=4)
    assert mine == pytest.approx(
        torchs(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=20), 20), rel=1e-9
    )


@given(st.integers(1, 6), st.integers(2, 6), st.floats(0.05, 0.95))
def test_one_cycle_matches_torchs(steps_per_epoch, epochs, warmup_fraction):
    total = steps_per_epoch * epochs
    assume(abs(warmup_fraction * total - 1) > 1e-9)  # there torch divides by 0
    reference = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.4)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        reference, max_lr=0.4, total_steps=total, pct_start=warmup_fraction, cycle_momentum=False
    )
    expected = [reference.param_groups[0]["lr"]]
    for _ in range(total - 1):
        reference.step()
        scheduler.step()
        expected.append(reference.param_groups[0]["lr"])
    mine = ours(Scheduler(name="one_cycle", warmup_fraction=warmup_fraction), steps_per_epoch, epochs)
    assert mine == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_a_cycle_of_one_step_has_a_finite_rate():
    assert 0 < learning_rate(Scheduler(name="one_cycle"), 0.4, 0, 1, 1) <= 0.4


def test_milestones_drop_the_rate_where_torch_does():
    scheduler = Scheduler.model_validate({"name": "step", "milestones": [2, 3], "gamma": 0.1})
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    reference = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 3], gamma=0.1)
    for epoch in range(5):
        for step in range(4):
            ours = learning_rate(scheduler, 0.5, 4 * epoch + step, 4, 5)
            assert ours == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        optimizer.step()
        reference.step()


@pytest.mark.parametrize("words", [{"name": "cosine", "milestones": [2]}, {"name": "step", "milestones": [3, 2]}])
def test_milestones_go_with_step_and_rise(words):
    with pytest.raises(ValueError, match="milestones go with name: step, and rise"):
        Scheduler.model_validate(words)
