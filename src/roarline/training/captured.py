"""Optimiser steps as one recorded CUDA graph: forward, loss, backward and update are launched by a single call.

A small network's step is some hundred kernels of a few microseconds each, and launching them one by one takes longer
than running them. The graph reads its batch and its learning rate from fixed memory, so that a step is: copy the batch
there, set the rate, replay. Nothing waits for the device.

A step of a batch shape runs as usual for the first times, which is when libraries choose their kernels and the
optimiser makes its state; then it is recorded, and from then on replayed. A network that chooses its way on the CPU
can't be recorded: by a value of the device, for which the host waits, or by a draw, which would be the same forever.
The first steps tell; the training goes on as usual then, as it does where recording fails for any other reason.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from roarline.config.training import Training
from roarline.training import processes
from roarline.training.batches import Pass
from roarline.training.cuda_graphs import Body, CudaGraphs, Outputs, Recorder
from roarline.training.evaluate import autocast
from roarline.training.objectives import Batch, Minimised, Recordable
from roarline.training.steps import OptimizerSteps

_USUAL_STEPS = 3


class RecordingWarning(UserWarning):
    """A step could not be recorded; it runs as usual."""


def can_be_recorded(objective: object, settings: Training, device: torch.device, *, known: bool = True) -> bool:
    """True on a GPU, in one process, where a step is one pass in float32 or bfloat16 and draws nothing on the CPU.

    float16 scales its losses by how earlier steps went, and parts of a batch are several passes: both run as usual.

    Args:
        known: False where the network's forward pass may count steps or choose its way on the CPU.
    """
    return (
        known
        and device.type == "cuda"
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
        recorder: Makes what records them.

    Attributes:
        as_usual: True once it is known that they can't be recorded.
    """

    def __init__(
        self, objective: Minimised, settings: Training, device: torch.device,
        recorder: Callable[[torch.device], Recorder] = CudaGraphs,
    ) -> None:  # fmt: skip
        super().__init__(objective, settings, device)
        assert isinstance(objective, Recordable)
        self.recordable = objective
        self._new_recorder = recorder
        self.recorder = recorder(device)
        self.rate = torch.zeros((), device=device)
        self._read_rate_from_memory()
        self.as_usual = False
        self._shapes: dict[tuple[Any, ...], _OfShape] = {}

    def make(self, batch: Batch, place: Pass, rate: float) -> Mapping[str, Tensor]:
        """See ``Steps``."""
        outputs = None if self.as_usual else self._outputs(batch, rate)
        if outputs is None:
            return super().make(batch, place, rate)
        # The next replay writes over them.
        return self.recordable.note(batch.labels, *(output.clone() for output in outputs))

    def _outputs(self, batch: Batch, rate: float) -> Outputs | None:
        """Make the step; None where it was not made, as it turns out that none can be recorded."""
        fixed = self._of_shape(batch)
        self.rate.fill_(rate)
        fixed.images.copy_(batch.images)
        fixed.labels.copy_(batch.labels)
        fixed.seen += 1
        if fixed.seen <= _USUAL_STEPS:
            return self.recorder.run(lambda: self._step(fixed))
        if fixed.replay is None:
            fixed.replay = self._recorded(fixed)
        if fixed.replay is None:
            self.as_usual = True
            self._shapes.clear()
            return None
        return fixed.replay()

    def _of_shape(self, batch: Batch) -> _OfShape:
        shape = (*batch.images.shape, *batch.images.stride(), *batch.labels.shape)
        if shape not in self._shapes:
            self._shapes[shape] = _OfShape(torch.empty_like(batch.images), torch.empty_like(batch.labels))
        return self._shapes[shape]

    def _recorded(self, fixed: _OfShape) -> Body | None:
        if self.recorder.waited or self.recorder.drew:
            return None
        # Adam is told so while it is recorded, and only then: it would warn of steps that are not.
        told = [group for group in self.optimizer.param_groups if "capturable" in group and self.device.type == "cuda"]
        for group in told:
            group["capturable"] = True
        try:
            return self.recorder.record(lambda: self._step(fixed))
        except RuntimeError as error:  # what the network itself does wrong, the step as usual will say again
            problem = str(error).partition("\n")[0]
        finally:
            for group in told:
                group["capturable"] = False
        # Out here the error no longer holds the tensors of the attempt.
        warnings.warn(
            f"steps of this training can't be recorded as a CUDA graph and run as usual, which is slower and gives the "
            f"same results ({problem}); runtime.record_steps: false leaves the attempt out",
            RecordingWarning,
            stacklevel=2,
        )
        return None

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
        self.recorder = self._new_recorder(self.device)

    def _read_rate_from_memory(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
