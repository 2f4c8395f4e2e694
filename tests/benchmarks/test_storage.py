"""The benchmark of storage: its shares are right where they are known, and its tables are whole."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.storage import COMPRESSIONS, DTYPES, FRACTIONS, main, other_pixels


def test_equal_maps_remove_the_same_and_a_swapped_pair_one_other() -> None:
    """Of 20 pixels the first 2 go at 10 %: with places 2 and 3 swapped, one of the two is another."""
    values = -np.arange(20, dtype=np.float32).reshape(1, 4, 5)
    swapped = values.copy()
    swapped.ravel()[[1, 2]] = swapped.ravel()[[2, 1]]
    assert other_pixels(values, values) == [0.0] * len(FRACTIONS)
    assert other_pixels(values, swapped) == [0.5, 0.0, 0.0]


def test_a_quick_run_prints_every_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--quick"]) == 0
    said = capsys.readouterr().out
    for method in ("gradient", "integrated_gradients", "gradcam"):
        assert said.count(f"| {method} |") == len(DTYPES) * len(COMPRESSIONS) + 1
    assert "| 16 of 32 px |" in said
