"""Cells of grids, made in turns by several layouts of engines and worker processes."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.harness import Options, timed
from roarline.artifacts.store import Store
from roarline.execution.local import LocalExecutor
from roarline.stages.job import Job

STAGE = "evaluate-roar"


@dataclass(frozen=True)
class Layout:
    """How cells are made.

    Attributes:
        engine: Of evaluate-roar.
        workers: Processes.
        threads: CPU threads of a cell.
    """

    engine: str
    workers: int
    threads: int = 1


class _Kept(LocalExecutor):
    """A local executor whose workers stay from one run to the next."""

    def close(self) -> None:
        """Wait for ``end``."""

    def end(self) -> None:
        """Stop the workers."""
        super().close()


class _Silent:
    """Hears how jobs go, and fails where one does."""

    def started(self, job: Job) -> None: ...
    def said(self, job: Job, message: Any) -> None: ...

    def ended(self, job: Job, message: Any) -> None:
        """Raise where a cell was not made."""
        if message.kind != "made":
            raise RuntimeError(f"{job.label}: {message.text}")


def in_turns(
    store: Store, cells: Mapping[Layout, Sequence[Job]], device: str, options: Options, first: int
) -> dict[Layout, list[float]]:
    """Seconds that each layout takes for its cells, turn by turn, in swapped order every other time.

    Args:
        store: Has all that the cells read; the cells themselves are dropped again.
        cells: The same ones in each layout.
        device: Of every worker: several may share a GPU.
        first: How many cells an untimed turn before makes, which starts the workers.
    """
    seconds: dict[Layout, list[float]] = {layout: [] for layout in cells}
    executors = {layout: _Kept(store.root, [device] * layout.workers, cpu_threads=None) for layout in cells}
    try:
        for turn in range(options.turns + 1):
            for layout in list(cells)[:: 1 if turn % 2 else -1]:
                some = cells[layout] if turn else cells[layout][:first]
                took = timed(lambda layout=layout, some=some: _make(executors[layout], some), "cpu")  # type: ignore[misc]
                shutil.rmtree(store.root / STAGE)
                if turn:
                    seconds[layout].append(took)
    finally:
        for executor in executors.values():
            executor.end()
    return seconds


def make_what_is_read(store: Store, jobs: Sequence[Job], cells: Sequence[Job], device: str) -> None:
    """Data set, classifier and maps of the cells, where they are not there yet."""
    read = {key for job in cells for _, key in job.inputs.values()}
    maps = "extract-attribution-maps"
    before = [
        job for job in jobs if job.stage in ("prepare-data", "train-cls") or (job.stage == maps and job.key in read)
    ]
    done = {job.key for job in before if store.exists(job.stage, job.key)}
    LocalExecutor(store.root, [device], cpu_threads=None).run(before, done, _Silent())


def _make(executor: LocalExecutor, cells: Sequence[Job]) -> None:
    executor.run(cells, {key for job in cells for _, key in job.inputs.values()}, _Silent())
