"""Training images a second on a GPU: what they are in operations, and beside the rate that the project asks for."""

from __future__ import annotations

import re
import statistics
from dataclasses import replace

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.harness import Measurement

ASKED_IMAGES_S = 200_000
"""ResNet-8 at CIFAR-10's size, over the grid, on a GPU of the class of an H200."""
# Of an H200: its datasheet for bfloat16, and about what a large matrix product reaches of that.
_DATASHEET_TFLOPS, _REACHED_TFLOPS = 989.0, 790.0
# Forward, and twice as much backward.
_STEP_FORWARDS = 3
_OF_THE_CLASS = re.compile(r"\b(GH|H|GB|B)[1-3]00\b")


def forward_flop(model: nn.Module, side_px: int) -> int:
    """Floating point operations of an image's forward pass in convolutions and matrix products, counted on the CPU."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.zeros(1, 3, side_px, side_px))
    return int(counter.get_total_flops())


def rates(measurement: Measurement, flop: int) -> str:
    """Images and operations a second of the median turn, in words.

    Args:
        measurement: Its passes are training images.
        flop: Of an image's forward pass.
    """
    images = measurement.passes / statistics.median(measurement.ours_s)
    tflops = images * flop * _STEP_FORWARDS / 1e12
    return (
        f"{images:,.0f} training images a second, {tflops:.1f} TFLOP/s: {tflops / _DATASHEET_TFLOPS:.1%} of the "
        f"datasheet's {_DATASHEET_TFLOPS:g}, {tflops / _REACHED_TFLOPS:.1%} of the {_REACHED_TFLOPS:g} that a large "
        "matrix product reaches (both of an H200, bfloat16)"
    )


def against_asked(measurement: Measurement) -> Measurement:
    """The measurement with the rate that is asked for in place of bare passes, so that 1 is as fast as that."""
    asked_s = measurement.passes / ASKED_IMAGES_S
    return replace(
        measurement, bare_choice=f"{ASKED_IMAGES_S:,} images a second", bare_s=[asked_s] * len(measurement.ours_s)
    )


def is_of_the_class(device: str) -> bool:
    """True for a GPU of which the rate is asked: Hopper's or Blackwell's for data centres."""
    return device.startswith("cuda") and _OF_THE_CLASS.search(torch.cuda.get_device_name(device)) is not None
