"""The benchmark of imputation compares three ways to the same answer."""

from __future__ import annotations

import torch

from benchmarks.harness import Options
from benchmarks.imputation import direct_solve, grad_cam_solve, masked_images, measure


def test_both_other_solvers_give_the_same() -> None:
    images, masks = masked_images(2, 24)
    assert len(masks) == 2 * 9 * 2
    for index in (0, 9, 17, 35):
        one, other = (solve(images[index], masks[index]) for solve in (direct_solve, grad_cam_solve))
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


def test_a_quick_run_gives_a_ratio_for_each_solver() -> None:
    """It stops where results differ by more than 1e-3 of the pixel range."""
    measurements = list(measure(Options(quick=True, threads=1, input_px=24)))
    assert [m.network for m in measurements] == ["scipy", "pytorch-grad-cam"]
    assert all(m.efficiency > 0 for m in measurements)
