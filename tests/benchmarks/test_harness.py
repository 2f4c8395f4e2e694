"""The harness: passes are counted, turns alternate, ratios are medians."""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn

from benchmarks.harness import BarePasses, Measurement, Options, alternate, network


class Counting(nn.Module):
    """Counts the images it sees; they are kept outside, so that copies of it count together."""

    seen: list[tuple[int, bool, bool]] = []  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        Counting.seen.append(
            (len(images), images.requires_grad, images.is_contiguous(memory_format=torch.channels_last))
        )
        return self.conv(images).mean(dim=(2, 3))


def measurement(passes: int = 10) -> Measurement:
    return Measurement("path", "net", "setting", images=2, passes=passes, pass_kind="forward", bare_choice="", goal=0.9)


def test_bare_passes_make_exactly_the_passes_asked_for() -> None:
    for gradient in (False, True):
        bare = BarePasses(Counting().requires_grad_(False), (3, 4, 4), gradient=gradient, batch_sizes=(2, 4))
        Counting.seen.clear()
        bare(11)
        assert sum(count for count, _, _ in Counting.seen) == 11
        assert {count for count, _, _ in Counting.seen[:-1]} == {bare.batch_size}
        assert all(requires_grad is gradient for _, requires_grad, _ in Counting.seen)
        assert all(last is (bare.format == "channels_last") for _, _, last in Counting.seen)


def test_turns_alternate_and_every_turn_counts() -> None:
    order = []
    bare = BarePasses(Counting().requires_grad_(False), (3, 4, 4), batch_sizes=(4,))
    bare.__class__ = type("Recorded", (BarePasses,), {"__call__": lambda self, passes: order.append(f"bare {passes}")})
    result = alternate(measurement(), lambda: order.append("ours"), bare, Options(alternations=3))
    assert order == ["ours", "ours", "bare 10", "bare 10", "ours", "ours", "bare 10"]
    assert len(result.ours_s) == len(result.bare_s) == 3
    assert result.peak_memory_mib > 0


def test_efficiency_is_the_median_of_the_turns_ratios() -> None:
    result = measurement()
    result.ours_s, result.bare_s = [1.0, 2.0, 4.0], [0.5, 1.8, 3.6]
    assert result.efficiency == 0.9
    # An outlier of the machine moves the median of ratios no further than its neighbour.
    result.ours_s[0] = 100.0
    assert result.efficiency == 0.9


def test_a_path_that_idles_half_the_time_has_half_the_efficiency() -> None:
    bare = BarePasses(Counting().requires_grad_(False), (3, 4, 4), batch_sizes=(4,))
    sleep = type("Sleep", (BarePasses,), {"__call__": lambda self, passes: time.sleep(0.05)})
    bare.__class__ = sleep
    result = alternate(measurement(), lambda: time.sleep(0.1), bare, Options(alternations=3))
    assert 0.4 < result.efficiency < 0.6


def test_networks_are_frozen_seeded_and_leave_the_global_generator_alone() -> None:
    state = torch.random.get_rng_state()
    one, two = network("squeezenet1_1"), network("squeezenet1_1")
    assert torch.equal(state, torch.random.get_rng_state())
    assert not one.training
    assert all(
        torch.equal(a, b) and not a.requires_grad for a, b in zip(one.parameters(), two.parameters(), strict=True)
    )


def test_a_goal_is_missed_below_it_and_where_what_is_noted_does_not_hold() -> None:
    result = measurement()
    result.ours_s = [1.0]
    for bare_s, holds, missed in ((0.9, True, False), (0.89, True, True), (2.0, False, True)):
        result.bare_s, result.holds = [bare_s], holds
        assert result.missed is missed
    result.bare_s, result.goal, result.holds = [0.1], None, True
    assert not result.missed


def test_as_many_turns_as_asked_for_and_one_of_a_quick_run() -> None:
    assert (Options(alternations=7).turns, Options(alternations=7, quick=True).turns) == (7, 1)
