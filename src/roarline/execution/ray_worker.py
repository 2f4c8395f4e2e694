"""A worker on a node of a Ray cluster: an actor that makes one job after the other. Imports torch when it starts.

It knows nothing of Ray but its place: what comes and goes are the jobs and messages of the local workers.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

from roarline.artifacts.shared_storage import Marker, answer, wait_for_artifacts
from roarline.artifacts.store import Store
from roarline.execution.allocator import give_back_freed_memory, keep_freed_memory
from roarline.execution.worker import Message, attempt_stack
from roarline.stages.job import Context, Job

_PROGRESS_EVERY_S = 1.0


@dataclass(frozen=True)
class Surroundings:
    """What a node must have as the driver has it.

    Attributes:
        marker: In the artifact folder.
        folder: The driver's working folder, absolute: paths in a configuration are relative to it.
        search_path: Where the driver finds a user's own modules.
        versions: Package to version.
    """

    marker: Marker
    folder: str
    search_path: tuple[str, ...]
    versions: tuple[tuple[str, str], ...]

    @staticmethod
    def here(marker: Marker) -> Surroundings:
        """Those of this process."""
        return Surroundings(marker, str(Path.cwd()), tuple(path for path in sys.path if path), versions())


def versions() -> tuple[tuple[str, str], ...]:
    """Versions on which results may depend."""
    return (
        ("python", ".".join(platform.python_version_tuple()[:2])),
        *((name, version(name)) for name in ("roarline", "torch", "torchvision", "numpy")),
    )


def problem_here(surroundings: Surroundings, name: str) -> str | None:
    """What is wrong with this node, and what to do; None where jobs can run.

    Args:
        name: Of the answer that is left beside the marker, for the driver to see.
    """
    for (package, wanted), (_, found) in zip(surroundings.versions, versions(), strict=True):
        if wanted != found:
            return f"{package} is {found}, where roarline was started it is {wanted}: install the same"
    if not Path(surroundings.folder).is_dir():
        return (
            f"{surroundings.folder}, where roarline was started, is not there: start it from a folder that every node "
            "has at the same path, since the paths of a configuration begin there"
        )
    return answer(surroundings.marker, name)


class RayWorker:
    """Makes jobs in its own process.

    Args:
        surroundings: What the node must have.
        name: Of the answer that it leaves beside the marker.
        on_gpu: True where Ray gives it a GPU, or a share of one.
    """

    def __init__(self, surroundings: Surroundings, name: str, loader_threads: int, *, on_gpu: bool) -> None:
        self._surroundings, self._name, self._on_gpu = surroundings, name, on_gpu
        self._loader_threads = loader_threads
        self._thread = ThreadPoolExecutor(1, "roarline-job")  # one for all jobs: its pool of OpenMP threads stays
        self._context: Context | None = None

    def prepare(self) -> str | None:
        """Get ready for jobs; returns what is wrong with this node, or None."""
        problem = problem_here(self._surroundings, self._name)
        if problem is not None:
            return problem
        os.chdir(self._surroundings.folder)
        sys.path.extend(path for path in self._surroundings.search_path if path not in sys.path and Path(path).exists())
        import torch

        if self._on_gpu and not torch.cuda.is_available():
            return f"Ray gives a GPU, but torch {torch.__version__} sees no CUDA device: see to its driver"
        torch.set_num_interop_threads(1)
        keep_freed_memory()
        # Ray lets the process see its own GPU alone, which is therefore the first.
        device = "cuda:0" if self._on_gpu else "cpu"
        self._context = Context(Store(self._surroundings.marker.root), device, loader_threads=self._loader_threads)
        return None

    def make(self, jobs: Sequence[Job]) -> Iterator[Message | dict[str, Message]]:
        """Make the jobs of a stack, which may be one; yields what it says, at last how each ended, by key."""
        here, there = Pipe(duplex=False)
        future = self._thread.submit(self._make, jobs, there)
        last = 0.0
        while True:
            try:
                said: Message | dict[str, Message] = here.recv()
            except EOFError:
                future.result()  # says why
                raise
            if isinstance(said, dict):
                break
            if said.kind == "progress":
                if time.monotonic() - last < _PROGRESS_EVERY_S:
                    continue
                last = time.monotonic()
            yield said
        yield said

    def _make(self, jobs: Sequence[Job], pipe: Connection) -> None:
        with pipe:  # closed whatever happens: whoever listens is not left waiting
            if self._context is None:
                raise RuntimeError("a worker makes jobs only after prepare()")
            store = self._context.store
            wait_for_artifacts(
                store,
                {found for job in jobs if not store.exists(job.stage, job.key) for found in job.inputs.values()},
                on_wait=lambda: pipe.send(Message("waiting", "this node doesn't see its inputs yet; waiting")),
            )
            messages = attempt_stack(jobs, self._context, pipe)
            give_back_freed_memory()
            pipe.send(messages)
