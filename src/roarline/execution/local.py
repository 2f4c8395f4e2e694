"""The local executor: worker processes on this machine, one for each GPU or as many as its CPU threads allow."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from roarline.artifacts.store import Store
from roarline.execution.executor import Watcher, drop_hopeless, is_ready
from roarline.execution.stacks import mates
from roarline.execution.worker import Message, work
from roarline.stages.job import Job

_TRIES = 3


@dataclass
class _Worker:
    process: Any
    pipe: Connection
    device: str
    jobs: tuple[Job, ...] = ()


@dataclass
class LocalExecutor:
    """Run jobs in worker processes; a failed job stops only what depends on it, a dead worker's job is tried again.

    Args:
        root: The artifact folder.
        devices: One entry for each worker that may exist, e.g. ``["cpu", "cpu"]`` or ``["cuda:0", "cuda:1"]``.
        cpu_threads: Jobs on CPUs run together while their threads sum to no more than this; None: no such limit.
    """

    root: Path
    devices: list[str]
    cpu_threads: int | None
    loader_threads: int = 2
    _workers: list[_Worker] = field(default_factory=list)

    def run(self, jobs: Iterable[Job], done: set[str], watcher: Watcher) -> dict[str, Message]:
        """See ``Executor``."""
        queue = [job for job in jobs if job.key not in done]
        stacks = mates(queue, len(self.devices) if self.devices[0] != "cpu" else 1)
        tries: dict[str, int] = {}
        failed: dict[str, Message] = {}
        try:
            while queue or any(worker.jobs for worker in self._workers):
                drop_hopeless(queue, failed, watcher)
                self._place(queue, stacks, done, watcher)
                busy = [worker for worker in self._workers if worker.jobs]
                if not busy:
                    break
                for worker in self._speaking(busy):
                    self._hear(worker, queue, tries, done, failed, watcher)
        finally:
            self.close()
        return failed

    def close(self) -> None:
        """Stop all workers at once."""
        for worker in self._workers:
            if not worker.jobs and worker.process.is_alive():
                with suppress(OSError):
                    worker.pipe.send(None)
            else:
                worker.process.terminate()
        for worker in self._workers:
            _see_it_end(worker)
        self._workers.clear()

    def _place(self, queue: list[Job], stacks: Mapping[str, tuple[Job, ...]], done: set[str], watcher: Watcher) -> None:
        for job in list(queue):
            if not is_ready(job, done):
                continue
            together = tuple(one for one in stacks[job.key] if one in queue)
            if not together or not all(is_ready(one, done) for one in together):
                continue  # none is left of a stack that has just been placed
            used = sum(worker.jobs[0].threads for worker in self._workers if worker.jobs)
            if self.cpu_threads is not None and used and used + job.threads > self.cpu_threads:
                return  # in order: a wide job isn't overtaken for ever by narrow ones
            self._let_go_of_the_dead()
            worker = next((worker for worker in self._workers if not worker.jobs), None)
            if worker is None and len(self._workers) < len(self.devices):
                worker = self._start()
            if worker is None:
                return
            worker.jobs = together
            with suppress(OSError):  # it died meanwhile, as will be heard
                worker.pipe.send(together)
            for one in together:
                queue.remove(one)
                watcher.started(one)

    def _let_go_of_the_dead(self) -> None:
        """Drop idle workers whose process has ended; an idle one has nothing to say but that."""
        for worker in [worker for worker in self._workers if not worker.jobs and worker.pipe.poll()]:
            self._drop(worker)

    def _drop(self, worker: _Worker) -> None:
        worker.process.terminate()
        _see_it_end(worker)
        self._workers.remove(worker)

    def _start(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        free = list(self.devices)
        for worker in self._workers:
            free.remove(worker.device)
        here, there = context.Pipe()
        process = context.Process(target=work, args=(there, self.root, free[0], self.loader_threads), daemon=True)
        process.start()
        there.close()
        worker = _Worker(process, here, free[0])
        self._workers.append(worker)
        return worker

    def _speaking(self, busy: list[_Worker]) -> list[_Worker]:
        signalled = wait([worker.pipe for worker in busy])
        return [worker for worker in busy if worker.pipe in signalled]

    def _hear(
        self,
        worker: _Worker,
        queue: list[Job],
        tries: dict[str, int],
        done: set[str],
        failed: dict[str, Message],
        watcher: Watcher,
    ) -> None:
        first = worker.jobs[0]
        try:
            said: Message | dict[str, Message] = worker.pipe.recv()
        except (EOFError, OSError):
            worker.process.join()
            self._workers.remove(worker)
            worker.pipe.close()
            tries[first.key] = tries.get(first.key, 0) + 1
            reason = _how_it_died(worker.process.exitcode)
            if tries[first.key] < _TRIES:
                watcher.said(first, Message("waiting", f"its worker {reason}; trying again"))
                queue[:0] = worker.jobs
                return
            said = {job.key: Message("failed", f"its worker {reason}, {_TRIES} times") for job in worker.jobs}
            for job in worker.jobs:  # the worker itself could not
                Store(self.root).record_failure(job.stage, job.key, said[job.key].text)
        if isinstance(said, Message):
            watcher.said(first, said)
            return
        for job in worker.jobs:
            message = said[job.key]
            if message.kind == "failed":
                failed[job.key] = message
            else:
                done.add(job.key)
            watcher.ended(job, message)
        worker.jobs = ()
        if worker.device != "cpu" and worker in self._workers and any(one.defect for one in said.values()):
            self._drop(worker)


def _see_it_end(worker: _Worker) -> None:
    worker.process.join(5)
    if worker.process.is_alive():
        worker.process.kill()
    worker.pipe.close()


def available_cpus() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def _how_it_died(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        name = signal.Signals(-exit_code).name
        hint = " (often: the machine ran out of memory)" if name == "SIGKILL" else ""
        return f"was ended by {name}{hint}"
    return f"ended with exit code {exit_code}"
