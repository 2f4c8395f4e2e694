"""What records steps: the driver's CUDA graphs. It also tells of a step whether a recording could do what it does."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.cuda import _POOL_HANDLE

Outputs = tuple[Tensor, ...]
Body = Callable[[], Outputs]
_OF_WAITING, _OF_WATCHING = "called a synchronizing CUDA operation", "Synchronization debug mode is a prototype"


class Recorder(Protocol):
    """What makes a recording of a step.

    Attributes:
        waited: True where the body that was run last waited for the device, which no recording can.
        drew: True where a body that was run drew from the CPU's generators, which a recording would not do again.
    """

    waited: bool
    drew: bool

    def run(self, body: Body) -> Outputs:
        """Run it once as usual, where a recording could be made later."""
        ...

    def record(self, body: Body) -> Body:
        """Note what it does without doing it; what is returned does it, and gives its outputs in the same memory.

        Raises:
            RuntimeError: It does what can't be recorded; ``run`` works as before.
        """
        ...


class CudaGraphs:
    """Recordings by the driver, all on one stream of the device: the current one may be another GPU's.

    They share one pool of memory, which else would be as many as there are shapes of a batch. What a recording keeps
    there lasts until another is replayed, in whatever order. That is enough, since replays follow each other on one
    stream, outputs are cloned before the next one, and all else that outlives a step (weights, the optimiser's state,
    statistics of batch norm) was made in the steps before the first recording, outside of the pool. The pool ends with
    its last recording: a training that drops them takes another recorder.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.waited, self.drew = device, False, False
        self._aside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    def run(self, body: Body) -> Outputs:
        """See ``Recorder``: on a stream of its own, as recordings are made, so that autograd's nodes belong to none."""
        here = torch.cuda.current_stream(self.device)
        self._aside.wait_stream(here)
        before = cpu_generators()
        with torch.cuda.stream(self._aside), self._watched():
            outputs = body()
        self.drew = self.drew or cpu_generators() != before
        here.wait_stream(self._aside)
        return outputs

    def record(self, body: Body) -> Body:
        """See ``Recorder``."""
        graph = torch.cuda.CUDAGraph()
        try:
            outputs = self._capture(graph, self._pool, body)
        except RuntimeError:
            self._clear_away()
            raise

        def replay() -> Outputs:
            graph.replay()
            return outputs

        return replay

    def _capture(self, graph: torch.cuda.CUDAGraph, pool: _POOL_HANDLE, body: Body) -> Outputs:
        with (
            torch.cuda.device(self.device),
            # Where a recording fails, torch.cuda.graph itself does not go back to the stream before.
            torch.cuda.stream(self._aside),
            # Threads that read ahead may ask for pinned memory meanwhile.
            torch.cuda.graph(graph, pool=pool, stream=self._aside, capture_error_mode="thread_local"),
        ):
            return body()

    def _clear_away(self) -> None:
        """End what torch leaves half done after a failed recording, for this training and the worker's next jobs."""
        place = torch.cuda.current_device() if self.device.index is None else self.device.index
        # The allocator believes that a recording goes on, and never empties its cache before memory runs out.
        with suppress(AttributeError, RuntimeError):  # it had ended, or this torch has another name for it
            torch._C._cuda_endAllocateToPool(place, self._pool)
            torch._C._cuda_releasePool(place, self._pool)
        # So does, in some versions of torch, the generator of dropout, until a recording has ended well.
        with suppress(RuntimeError):
            nothing = torch.zeros((), device=self.device)
            self._capture(torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle(), lambda: (nothing.add_(0),))

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


def cpu_generators() -> tuple[object, ...]:
    """The states of the generators from which a network draws on the CPU, where it has none of its own."""
    numpys = np.random.get_state()  # noqa: NPY002 - which networks draw from without asking
    _, keys, *place = cast(tuple[str, np.ndarray, int, int, float], numpys)
    return random.getstate(), keys.tobytes(), *place, torch.get_rng_state().numpy().tobytes()
