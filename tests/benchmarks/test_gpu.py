"""The benchmark of trainings on a GPU says what it reached, and measures nothing without one."""

from __future__ import annotations

import pytest
import torch

from benchmarks.gpu import measure, rates
from benchmarks.harness import Measurement, Options


def test_rates_follow_from_images_and_operations() -> None:
    one_second = Measurement(
        "gpu", "resnet8", "32 px", 200_000, 200_000, "", "", None, ours_s=[1.0, 2.0], bare_s=[1, 1]
    )
    said = rates(one_second, "resnet8")
    assert "200,000 training images a second" in said
    # 0.388 GFLOP forward: 64 to 256 channels at 32², 16² and 8² px, by hand; three times that a training image
    layers = [(32, 3, 64, 9), (32, 64, 64, 9), (32, 64, 64, 9), (16, 64, 128, 9), (16, 128, 128, 9), (16, 64, 128, 1)]
    layers += [(8, 128, 256, 9), (8, 256, 256, 9), (8, 128, 256, 1)]
    flop = sum(2 * side**2 * inputs * outputs * taps for side, inputs, outputs, taps in layers) + 2 * 256 * 10
    assert f"{3 * flop * 200_000 / 1e12:.1f} TFLOP/s" in said
    assert "989" in said
    assert "790" in said


def test_without_a_gpu_nothing_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(measure(Options())) == []
    assert "--device cuda" in capsys.readouterr().err


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_quick_run_on_a_gpu() -> None:
    (measurement,) = measure(Options(device="cuda", quick=True))
    assert measurement.efficiency > 0
