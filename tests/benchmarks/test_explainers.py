"""The benchmark of explainers runs: a line for each classifier's training, and one for the masks."""

from __future__ import annotations

import pytest

from benchmarks.explainers import measure
from benchmarks.harness import Options


@pytest.mark.slow
def test_a_quick_run_measures_training_and_use() -> None:
    found = list(measure(Options(quick=True, threads=2)))
    assert [line.hot_path for line in found] == ["train-explainer", "train-explainer", "explainer's maps"]
    assert all(line.efficiency > 0 for line in found)
    assert all(line.passes == line.images == 2 for line in found)
