"""Training on a GPU: ResNet-8 at CIFAR-10's size and ResNet-50 at ImageNet's, and what the fast form costs in accuracy.

The hot path is a cell: pixels removed by rank, then epochs of the loop on resident random images, its steps recorded as
CUDA graphs. Bare: the same step, recorded, on one resident batch that never changes. ResNet-8 is the original ROAR
code's (64, 128 and 256 channels, 0.39 GFLOP forward an image). Notes say images and operations a second, and their
share of what the GPU can do. Without a GPU nothing is measured.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks import fast_form
from benchmarks.harness import Measurement, Options, alternate
from benchmarks.image_rates import forward_flop, rates
from benchmarks.training import split_of
from roarline.config.training import TrainCls
from roarline.models.build import build
from roarline.training.classification import train
from roarline.training.cuda_graphs import CudaGraphs

_GOAL = 0.9
AUGMENTATION: Mapping[str, Any] = {"crop_padding_px": 4, "horizontal_flip": True}
"""The usual one of CIFAR-10."""


@dataclass(frozen=True)
class Case:
    """A training; ``images`` in one epoch."""

    arch: str = "resnet8"
    side_px: int = 32
    classes: int = 10
    batch_size: int = 256
    images: int = 50_000
    epochs: int = 2
    precision: str = "bfloat16"
    channels_last: bool = True
    augmentation: Mapping[str, Any] = field(default_factory=lambda: AUGMENTATION)

    @property
    def settings(self) -> TrainCls:
        """Adam under one-cycle."""
        return TrainCls.model_validate(
            {
                "epochs": self.epochs, "batch_size": self.batch_size, "scheduler": {"name": "one_cycle"},
                "precision": self.precision, "channels_last": self.channels_last,
                "augmentation": dict(self.augmentation),
            }
        )  # fmt: skip

    @property
    def setting(self) -> str:
        """For the table."""
        return f"{self.side_px} px, {self.precision}, {'channels-last' if self.channels_last else 'contiguous'}"


CASES = (
    Case(),
    Case(channels_last=False),
    Case(precision="float32"),
    Case(
        "torchvision:resnet50", 224, 1000, images=2_560, epochs=4,
        augmentation={"resized_crop": 0.08, "horizontal_flip": True},
    ),
)  # fmt: skip
QUICK_CASES = (Case(images=5_120),)


def measure(options: Options) -> Iterator[Measurement]:
    """A line for each case, and one for the accuracy in the fast form."""
    if not options.on_gpu:
        print("gpu: needs --device cuda; nothing measured", file=sys.stderr)
        return
    for case in QUICK_CASES if options.quick else CASES:
        yield measure_case(case, options)
    yield fast_form.measured(fast_form.QUICK_CELL if options.quick else fast_form.CELL, options)


def measure_case(case: Case, options: Options) -> Measurement:
    """One line; on a CPU steps are made one by one."""
    device = torch.device(options.device)
    network = build(case.arch, {}, case.classes, input_size=(case.side_px, case.side_px), seed=0)
    flop = forward_flop(network, case.side_px)
    model = network.to(device)
    split = split_of(case.images, case.side_px, options.device, case.classes)
    step = _bare_step(case, copy.deepcopy(model), device)

    def cell() -> None:
        train(copy.deepcopy(model), split(), None, case.settings, seed=0)

    def bare(passes: int) -> None:
        for _ in range(passes // case.batch_size):
            step()

    measurement = Measurement(
        hot_path="gpu",
        network=case.arch,
        setting=case.setting,
        images=case.images,
        passes=case.images * case.epochs,
        pass_kind="training step's share of an image",
        bare_choice=f"batch {case.batch_size}{', recorded' if options.on_gpu else ''}",
        goal=_GOAL,
    )
    alternate(measurement, cell, bare, options)
    measurement.note = rates(measurement, flop)
    return measurement


def _bare_step(case: Case, model: Any, device: torch.device) -> Callable[[], object]:
    """Forward, loss, backward and update on one batch; on a GPU as one recording."""
    layout = torch.channels_last if case.channels_last else torch.contiguous_format
    model = model.to(memory_format=layout).train()
    shape = (case.batch_size, 3, case.side_px, case.side_px)
    images = torch.randn(shape, device=device).contiguous(memory_format=layout)
    labels = torch.randint(0, case.classes, (case.batch_size,), device=device)
    recorded = device.type == "cuda"
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True, capturable=recorded)
    mixed = torch.autocast(device.type, torch.bfloat16, enabled=case.precision == "bfloat16")

    def body() -> tuple[torch.Tensor, ...]:
        optimizer.zero_grad(set_to_none=True)
        with mixed:
            loss = F.cross_entropy(model(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return (loss.detach(),)

    if not recorded:
        return body
    graphs = CudaGraphs(device)
    for _ in range(3):
        graphs.run(body)
    return graphs.record(body)
