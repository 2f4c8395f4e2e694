"""The benchmark of the grid compares the default layout of workers with every other one."""

from __future__ import annotations

import pytest

from benchmarks.grid import _LAYOUTS, measure
from benchmarks.harness import Options


@pytest.mark.slow
def test_a_quick_run_compares_the_default_with_each_layout() -> None:
    found = list(measure(Options(quick=True)))
    assert {line.bare_choice for line in found} == set(_LAYOUTS) - {"stacked, two processes"}
    assert all(len(line.ours_s) == len(line.bare_s) == 1 and line.efficiency > 0 for line in found)


def test_on_a_gpu_nothing_is_measured() -> None:
    assert list(measure(Options(device="cuda"))) == []
