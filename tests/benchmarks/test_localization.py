"""The benchmark of MaxBoxAcc compares two ways to the same answer."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.harness import Options
from benchmarks.localization import _OVERLAPS, _STEP, measure, one_threshold_at_a_time, random_maps
from roarline.evaluation.max_box_accuracy import boxes_right


@pytest.mark.parametrize("which", _OVERLAPS)
def test_both_ways_give_the_same(which: str) -> None:
    box = np.array([[8, 8, 16, 16]])
    for map_HW in random_maps(2, 32):
        ours = boxes_right(map_HW, box, step=_STEP, overlaps=_OVERLAPS[which], which=which, compat="original")  # type: ignore[arg-type]
        np.testing.assert_array_equal(ours, one_threshold_at_a_time(map_HW, box, which, _OVERLAPS[which]))


def test_a_quick_run_gives_a_ratio_for_each_version() -> None:
    measurements = list(measure(Options(quick=True, threads=1, input_px=24)))
    assert [m.network for m in measurements] == ["boxes, largest", "boxes, all"]
    assert all(m.efficiency > 0 for m in measurements)
