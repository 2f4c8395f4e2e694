"""Images a second become operations a second, and are set beside the rate that is asked for."""

from __future__ import annotations

import pytest
import torch

from benchmarks.harness import Measurement
from benchmarks.image_rates import against_asked, forward_flop, is_of_the_class, rates
from roarline.config import model_costs
from roarline.models.build import build


def turns(*seconds: float) -> Measurement:
    return Measurement("gpu", "resnet8", "32 px", 1, 200_000, "", "", 1.0, ours_s=list(seconds))


def by_hand() -> int:
    """ResNet-8's operations: 64 to 256 channels at 32², 16² and 8² px."""
    layers = [(32, 3, 64, 9), (32, 64, 64, 9), (32, 64, 64, 9), (16, 64, 128, 9), (16, 128, 128, 9), (16, 64, 128, 1)]
    layers += [(8, 128, 256, 9), (8, 256, 256, 9), (8, 128, 256, 1)]
    return sum(2 * side**2 * inputs * outputs * taps for side, inputs, outputs, taps in layers) + 2 * 256 * 10


def test_operations_of_a_forward_pass_are_those_counted_by_hand() -> None:
    network = build("resnet8", {}, 10, input_size=None, seed=0)
    assert forward_flop(network, 32) == by_hand() == model_costs.forward_flop("resnet8", {}, 32)


def test_rates_are_of_the_median_turn_and_three_forward_passes_an_image() -> None:
    said = rates(turns(0.5, 1.0, 4.0), by_hand())
    assert "200,000 training images a second" in said
    tflops = 3 * by_hand() * 200_000 / 1e12
    assert f"{tflops:.1f} TFLOP/s" in said
    assert f"{tflops / 989:.1%} of the datasheet's 989" in said
    assert f"{tflops / 790:.1%} of the 790" in said


def test_1_is_as_fast_as_asked_for() -> None:
    line = against_asked(turns(0.5, 1.0, 4.0))
    assert line.ratios == [2.0, 1.0, 0.25]
    assert line.bare_choice == "200,000 images a second"
    assert not line.missed
    assert against_asked(turns(1.01)).missed


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("NVIDIA H200", True), ("NVIDIA H100 80GB HBM3", True), ("NVIDIA GH200 480GB", True), ("NVIDIA B200", True),
        ("NVIDIA A100-SXM4-80GB", False), ("NVIDIA GeForce RTX 4090", False), ("Tesla T4", False),
    ],
)  # fmt: skip
def test_the_rate_is_asked_of_some_gpus_only(monkeypatch: pytest.MonkeyPatch, name: str, asked: bool) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert is_of_the_class("cuda:0") is asked
    assert not is_of_the_class("cpu")
