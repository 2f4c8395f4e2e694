"""Training of ResNet-8 at CIFAR-10's size on a GPU: images a second, TFLOP/s, and their share of what it can do.

The network is the original ROAR code's (64, 128 and 256 channels, 0.39 GFLOP forward an image), batch 256, bfloat16,
channels-last. The hot path is a cell: pixels removed by rank, then epochs of the loop, its steps recorded as CUDA
graphs. Bare: the same step, recorded, on one resident batch that never changes. Without a GPU nothing is measured.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.harness import Measurement, Options, alternate
from benchmarks.training import split_of
from roarline.config.model_costs import forward_flop
from roarline.config.training import TrainCls
from roarline.models.build import build
from roarline.training.captured import CudaGraphs
from roarline.training.classification import train

_GOAL = 0.9
# Of an H200: its datasheet for bfloat16, and about what a large matrix product reaches of that.
_DATASHEET_TFLOPS, _REACHED_TFLOPS = 989.0, 790.0
# Forward, and twice as much backward.
_STEP_FORWARDS = 3


@dataclass(frozen=True)
class Case:
    """A training; ``images`` in one epoch."""

    arch: str = "resnet8"
    batch_size: int = 256
    images: int = 50_000
    epochs: int = 2
    precision: str = "bfloat16"
    channels_last: bool = True

    @property
    def settings(self) -> TrainCls:
        """Adam under one-cycle, with the usual augmentation."""
        return TrainCls.model_validate(
            {
                "epochs": self.epochs, "batch_size": self.batch_size, "scheduler": {"name": "one_cycle"},
                "precision": self.precision, "channels_last": self.channels_last,
                "augmentation": {"crop_padding_px": 4, "horizontal_flip": True},
            }
        )  # fmt: skip


def measure(options: Options) -> Iterator[Measurement]:
    """One line a precision and memory format, with images and operations a second on standard error."""
    if not options.device.startswith("cuda"):
        print("gpu: needs --device cuda; nothing measured", file=sys.stderr)
        return
    images = 5_120 if options.quick else 50_000
    cases = [Case(images=images), Case(images=images, channels_last=False), Case(images=images, precision="float32")]
    for case in cases[:1] if options.quick else cases:
        yield _measure(case, options)


def _measure(case: Case, options: Options) -> Measurement:
    device = torch.device(options.device)
    model = build(case.arch, {}, 10, input_size=(32, 32), seed=0).to(device)
    split = split_of(case.images, 32, options.device)
    step = _bare_step(case, copy.deepcopy(model), device)

    def cell() -> None:
        train(copy.deepcopy(model), split(), None, case.settings, seed=0)

    def bare(passes: int) -> None:
        for _ in range(passes // case.batch_size):
            step()

    measurement = Measurement(
        hot_path="gpu",
        network=case.arch,
        setting=f"32 px, {case.precision}, {'channels-last' if case.channels_last else 'contiguous'}",
        images=case.images,
        passes=case.images * case.epochs,
        pass_kind="training step's share of an image",
        bare_choice=f"batch {case.batch_size}, recorded",
        goal=_GOAL,
    )
    alternate(measurement, cell, bare, options)
    print(rates(measurement, case.arch), file=sys.stderr)
    if options.profile:
        print(_profile(cell), file=sys.stderr)
    return measurement


def rates(measurement: Measurement, arch: str) -> str:
    """Images and operations a second of the fastest turn, in words."""
    flop = forward_flop(arch, {}, 32) or 0
    images = measurement.passes / min(measurement.ours_s)
    tflops = images * flop * _STEP_FORWARDS / 1e12
    return (
        f"{arch}, {measurement.setting}: {images:,.0f} training images a second, {tflops:.1f} TFLOP/s: "
        f"{tflops / _DATASHEET_TFLOPS:.1%} of {_DATASHEET_TFLOPS:g}, {tflops / _REACHED_TFLOPS:.1%} of "
        f"{_REACHED_TFLOPS:g}"
    )


def _bare_step(case: Case, model: Any, device: torch.device) -> Callable[[], object]:
    """Forward, loss, backward and update on one batch, as one recording."""
    layout = torch.channels_last if case.channels_last else torch.contiguous_format
    model = model.to(memory_format=layout).train()
    images = torch.randn(case.batch_size, 3, 32, 32, device=device).contiguous(memory_format=layout)
    labels = torch.randint(0, 10, (case.batch_size,), device=device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True, capturable=True)
    mixed = torch.autocast("cuda", torch.bfloat16, enabled=case.precision == "bfloat16")

    def body() -> tuple[torch.Tensor, ...]:
        optimizer.zero_grad(set_to_none=True)
        with mixed:
            loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return (loss.detach(),)

    graphs = CudaGraphs(device)
    for _ in range(3):
        graphs.run(body)
    return graphs.record(body)


def _profile(run: Callable[[], object]) -> str:
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        run()
    return str(seen.key_averages().table(sort_by="cuda_time_total", row_limit=25))
