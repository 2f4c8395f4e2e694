"""Optimiser steps as one recorded CUDA graph: forward, loss, backward and update are launched by a single call.

A small network's step is some hundred kernels of a few microseconds each, and launching them one by one takes longer
than running them. The graph reads its batch and its learning rate from fixed memory, so that a step is: copy the batch
there, set the rate, replay. Nothing waits for the device.

A step of a batch shape runs as usual for the first times, which is when libraries choose their kernels and the
optimiser makes its state; then it is recorded, and from then on replayed. A network that itself makes the host wait for
the device, to choose its way by a value, say, can't be recorded: its steps run as usual.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from roarline.config.training import Training
from roarline.training import processes
from roarline.training.batches import Pass
from roarline.training.evaluate import autocast
from roarline.training.objectives import Batch, Minimised, Recordable
from roarline.training.steps import OptimizerSteps

Outputs = tuple[Tensor, ...]
Body = Callable[[], Outputs]
_USUAL_STEPS = 3
_OF_WAITING, _OF_WATCHING = "called a synchronizing CUDA operation", "Synchronization debug mode is a prototype"


class Recorder(Protocol):
    """What makes a recording of a step.

    Attributes:
        waited: True where the body that was run last waited for the device, which no recording can.
    """

    waited: bool

    def run(self, body: Body) -> Outputs:
        """Run it once as usual, where a recording could be made later."""
        ...

    def record(self, body: Body) -> Body:
        """Note what it does without doing it; what is returned does it, and gives its outputs in the same memory."""
        ...


class CudaGraphs:
    """Recordings by the driver, all on one stream of the device: the current one may be another GPU's."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.waited = device, False
        self._aside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def run(self, body: Body) -> Outputs:
        """See ``Recorder``: on a stream of its own, as recordings are made, so that autograd's nodes belong to none."""
        here = torch.cuda.current_stream(self.device)
        self._aside.wait_stream(here)
        with torch.cuda.stream(self._aside), self._watched():
            outputs = body()
        here.wait_stream(self._aside)
        return outputs

    def record(self, body: Body) -> Body:
        """See ``Recorder``."""
        graph = torch.cuda.CUDAGraph()
        # Threads that read ahead may ask for pinned memory meanwhile.
        with (
            torch.cuda.device(self.device),
            torch.cuda.graph(graph, stream=self._aside, capture_error_mode="thread_local"),
        ):
            outputs = body()

        def replay() -> Outputs:
            graph.replay()
            return outputs

        return replay

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Note whether the host waits for the device, of which torch warns where it is told to."""
        before = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                yield
            finally:
                torch.cuda.set_sync_debug_mode(before)
        self.waited = any(_OF_WAITING in str(one.message) for one in found)
        for one in found:
            if not any(known in str(one.message) for known in (_OF_WAITING, _OF_WATCHING)):
                warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)


def can_be_recorded(objective: object, settings: Training, device: torch.device) -> bool:
    """True on a GPU, in one process, where a step is one pass in float32 or bfloat16 and draws nothing on the CPU.

    float16 scales its losses by how earlier steps went, and parts of a batch are several passes: both run as usual.
    """
    return (
        device.type == "cuda"
        and isinstance(objective, Recordable)
        and objective.recordable
        and settings.precision != "float16"
        and settings.gradient_accumulation == 1
        and processes.count() == 1
    )


@dataclass
class _OfShape:
    """Fixed memory of a batch, and how often such a batch was seen."""

    images: Tensor
    labels: Tensor
    seen: int = 0
    replay: Body | None = None


class CapturedSteps(OptimizerSteps):
    """Steps of one optimiser, recorded for each shape of a batch.

    Args:
        objective: Its outputs depend on images and labels alone.
        recorder: None: CUDA graphs.
    """

    def __init__(
        self, objective: Minimised, settings: Training, device: torch.device, recorder: Recorder | None = None
    ) -> None:
        super().__init__(objective, settings, device)
        assert isinstance(objective, Recordable)
        self.recordable = objective
        self.recorder: Recorder = CudaGraphs(device) if recorder is None else recorder
        self.rate = torch.zeros((), device=device)
        self._read_rate_from_memory()
        self._shapes: dict[tuple[Any, ...], _OfShape] = {}

    def make(self, batch: Batch, place: Pass, rate: float) -> Mapping[str, Tensor]:
        """See ``Steps``."""
        shape = (*batch.images.shape, *batch.images.stride(), *batch.labels.shape)
        fixed = self._shapes.get(shape)
        if fixed is None:
            fixed = _OfShape(torch.empty_like(batch.images), torch.empty_like(batch.labels))
            self._shapes[shape] = fixed
        self.rate.fill_(rate)
        fixed.images.copy_(batch.images)
        fixed.labels.copy_(batch.labels)
        fixed.seen += 1
        if fixed.seen <= _USUAL_STEPS or (fixed.replay is None and self.recorder.waited):
            outputs = self.recorder.run(lambda: self._step(fixed))
        else:
            if fixed.replay is None:
                fixed.replay = self._recorded(fixed)
            outputs = fixed.replay()
        # The next replay writes over them.
        return self.recordable.note(batch.labels, *(output.clone() for output in outputs))

    def _recorded(self, fixed: _OfShape) -> Body:
        # Adam is told so while it is recorded, and only then: it would warn of steps that are not.
        told = [group for group in self.optimizer.param_groups if "capturable" in group and self.device.type == "cuda"]
        for group in told:
            group["capturable"] = True
        replay = self.recorder.record(lambda: self._step(fixed))
        for group in told:
            group["capturable"] = False
        return replay

    def _step(self, fixed: _OfShape) -> Outputs:
        for parameter in self.parameters:
            parameter.grad = None
        with autocast(self.device, self.precision):
            outputs = self.recordable.outputs(fixed.images, fixed.labels)
        outputs[0].backward()  # type: ignore[no-untyped-call]
        if self.clip_norm is not None:
            self.clip(self.clip_norm)
        self.optimizer.step()
        return tuple(output.detach() for output in outputs)

    def restore(self, state: dict[str, Any]) -> None:
        """See ``Steps``; the optimiser's state comes to lie elsewhere, so that recordings are made anew."""
        super().restore(state)
        self._read_rate_from_memory()
        self._shapes.clear()

    def _read_rate_from_memory(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
