"""Alternating measurement of a hot path and of the bare network passes it needs.

Efficiency = time of the bare passes ÷ time of the hot path. Machines wander by 30 % and more, so the two take turns in
one run, each turn gives a ratio, and the median of the ratios is what counts.
"""

from __future__ import annotations

import copy
import itertools
import os
import platform
import re
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from benchmarks.profiles import profiled

RESULTS = Path(__file__).parent / "results"
_SCANS = 4
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


@dataclass(frozen=True)
class Options:
    """What a run was asked for.

    Attributes:
        quick: Fewer images, batch sizes and alternations: shows that things work, not a figure to quote.
        networks: torchvision names.
        alternations: Turns; the median ratio counts.
        profile: Also print where the time of one more run of each hot path goes.
        whole: All cells of a grid in every turn, not some.
    """

    device: str = "cpu"
    threads: int = 2
    quick: bool = False
    networks: tuple[str, ...] = ("mobilenet_v2",)
    input_px: int = 224
    alternations: int = 5
    profile: bool = False
    whole: bool = False

    @property
    def turns(self) -> int:
        """How many there are in this run."""
        return 1 if self.quick else self.alternations

    @property
    def on_gpu(self) -> bool:
        """True where the device is a GPU."""
        return self.device.startswith("cuda")

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Batch sizes among which the bare passes choose."""
        if self.on_gpu:
            return (64, 256) if self.quick else (32, 64, 128, 256)
        return (8,) if self.quick else (4, 8, 16)


@dataclass
class Measurement:
    """One line of the table.

    Attributes:
        passes: Bare passes that the hot path needs; ``pass_kind`` says which.
        ours_s, bare_s: Seconds of each turn, for all passes.
        bare_choice: Batch size and memory format at which the bare passes were fastest.
        goal: The efficiency that the project asks of this path.
        peak_memory_mib: Of the process (on a GPU: of the device's memory) while the hot path ran.
        note: What else the turns told, in words.
        holds: False where what the note tells misses a goal of its own.
    """

    hot_path: str
    network: str
    setting: str
    images: int
    passes: int
    pass_kind: str
    bare_choice: str
    goal: float | None
    ours_s: list[float] = field(default_factory=list)
    bare_s: list[float] = field(default_factory=list)
    peak_memory_mib: float = 0.0
    note: str = ""
    holds: bool = True

    @property
    def ratios(self) -> list[float]:
        """Efficiency of each turn."""
        return [bare / ours for ours, bare in zip(self.ours_s, self.bare_s, strict=True)]

    @property
    def efficiency(self) -> float:
        """Median of the turns."""
        return statistics.median(self.ratios)

    @property
    def missed(self) -> bool:
        """True where the median misses its goal, or what the note tells does."""
        return not self.holds or (self.goal is not None and self.efficiency < self.goal)


def network(name: str, seed: int = 0) -> nn.Module:
    """A torchvision network in eval mode with frozen random weights: speed does not depend on their values."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module = torchvision.models.get_model(name, weights=None)
    return model.eval().requires_grad_(False)


class BarePasses:
    """The network alone: frozen, on resident random data, at the fastest of several batch sizes and memory formats.

    Args:
        model: Eval mode, frozen.
        shape: (C, H, W) of one input.
        gradient: False: forward under inference mode. True: forward, and backward to the input.
        batch_sizes: Sizes to try; the scan is made once, here.
        autocast: A dtype for mixed precision, or None; the same as the hot path's.
    """

    def __init__(
        self,
        model: nn.Module,
        shape: Sequence[int],
        *,
        gradient: bool = False,
        batch_sizes: Sequence[int] = (4, 8, 16, 32),
        device: str = "cpu",
        autocast: torch.dtype | None = None,
    ) -> None:
        self.gradient, self._device, self._autocast = gradient, device, autocast
        resident = torch.randn(max(batch_sizes), *shape, generator=torch.Generator().manual_seed(0)).to(device)
        laid_out = {}
        for name, memory_format in FORMATS.items():
            network: Any = copy.deepcopy(model).to(device)
            laid_out[name] = network.to(memory_format=memory_format), resident.contiguous(memory_format=memory_format)
        seconds: dict[tuple[str, int], list[float]] = {}
        for _ in range(_SCANS):  # round by round, so that a neighbour's busy second spoils no choice for good
            for choice in itertools.product(laid_out, batch_sizes):
                self.format, self.batch_size = choice
                self._model, self._images = laid_out[self.format]
                seconds.setdefault(choice, []).append(timed(lambda: self(self.batch_size), device) / self.batch_size)
        self.format, self.batch_size = min(seconds, key=lambda choice: min(seconds[choice]))
        self._model, self._images = laid_out[self.format]

    @property
    def kind(self) -> str:
        """What one pass is."""
        return "forward + backward to the input" if self.gradient else "forward"

    @property
    def choice(self) -> str:
        """Batch size and memory format that were fastest."""
        return f"batch {self.batch_size}, {self.format}"

    def __call__(self, passes: int) -> None:
        """Make so many passes of one image each."""
        while passes > 0:
            images = self._images[: min(self.batch_size, passes)]
            if self.gradient:
                self._backward(images)
            else:
                with torch.inference_mode(), self._precision():
                    self._model(images)
            passes -= len(images)

    def _backward(self, images: Tensor) -> None:
        images = images.detach().requires_grad_()
        with torch.enable_grad(), self._precision():
            score = self._model(images)[:, 0].sum()
        torch.autograd.grad(score, images)

    def _precision(self) -> torch.autocast:
        return torch.autocast(self._device.partition(":")[0], self._autocast, enabled=self._autocast is not None)


class MixedPasses:
    """Bare passes of several kinds, one kind after the other.

    Args:
        parts: Bare passes of a kind, and how many of them.
    """

    def __init__(self, parts: Sequence[tuple[BarePasses, int]]) -> None:
        self._parts = list(parts)

    @property
    def passes(self) -> int:
        """Of all kinds."""
        return sum(count for _, count in self._parts)

    @property
    def kind(self) -> str:
        """What the passes are."""
        kinds = [bare.kind for bare, _ in self._parts]
        if len(kinds) == 1:
            return kinds[0]
        return "pass: " + ", ".join(f"{count} {kind}" for (_, count), kind in zip(self._parts, kinds, strict=True))

    @property
    def choice(self) -> str:
        """Batch sizes and memory formats that were fastest."""
        return "; ".join(bare.choice for bare, _ in self._parts)

    def __call__(self, passes: int) -> None:
        """Make all of them, whatever the number."""
        for bare, count in self._parts:
            bare(count)


def alternate(
    measurement: Measurement, ours: Callable[[], object], bare: Callable[[int], object], options: Options
) -> Measurement:
    """Let the hot path and its bare passes take turns, after one untimed turn of the hot path.

    Args:
        measurement: Says how many passes the hot path needs; its times and its memory are filled in.
        ours: One whole run of the hot path.
        bare: Makes as many bare passes as it is told.
        options: How many turns, and where.
    """
    ours()
    for turn in range(options.turns):
        _reset_peak_memory(options.device)
        turns = [
            (measurement.ours_s, ours),
            (measurement.bare_s, lambda: bare(measurement.passes)),
        ]
        for seconds, run in turns if turn % 2 == 0 else reversed(turns):
            seconds.append(timed(run, options.device))
            if run is ours:
                measurement.peak_memory_mib = max(measurement.peak_memory_mib, _peak_memory_mib(options.device))
    if options.profile:
        what = f"{measurement.hot_path} {measurement.network}, {measurement.setting}"
        print(f"{what}:\n{profiled(ours, options.device)}", file=sys.stderr)
    return measurement


def machine(device: str) -> dict[str, Any]:
    """The kind of machine and the versions, without its name or place."""
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        cpu = found.group(1) if found else cpu
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name(device) if device.startswith("cuda") else None,
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "roarline": version("roarline"),
    }


def timed(run: Callable[[], object], device: str) -> float:
    """Seconds of one run, the device waited for before and after."""
    _wait(device)
    start = time.perf_counter()
    run()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def _reset_peak_memory(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
    elif Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the high-water mark starts anew from what is in use


def _peak_memory_mib(device: str) -> float:
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device) / 2**20
    if Path("/proc/self/status").exists():
        found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
        if found:
            return int(found.group(1)) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
