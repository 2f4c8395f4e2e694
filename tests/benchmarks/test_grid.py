"""The benchmark of the grid compares the default layout of workers with every other one."""

from __future__ import annotations

import pytest

from benchmarks import grid, grid_on_gpu
from benchmarks.grid import _LAYOUTS, measure
from benchmarks.harness import Options


@pytest.mark.slow
def test_a_quick_run_compares_the_default_with_each_layout() -> None:
    found = list(measure(Options(quick=True)))
    assert {line.bare_choice for line in found} == set(_LAYOUTS) - {"stacked, two processes"}
    assert all(len(line.ours_s) == len(line.bare_s) == 1 and line.efficiency > 0 for line in found)


def test_on_a_gpu_its_own_grid_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid_on_gpu, "measure", lambda options: iter([options.device]))
    monkeypatch.setattr(grid, "in_turns", lambda *_: pytest.fail("the digits grid was made"))
    assert list(measure(Options(device="cuda:1"))) == ["cuda:1"]
