"""The Ray executor: the jobs of a plan on the nodes of a Ray cluster.

A worker is an actor that holds the CPUs, and the share of a GPU, of the jobs that it makes one after the other. Workers
are started while jobs of their shape wait and nodes have room, and stopped where their room is needed otherwise.
"""

from __future__ import annotations

import math
import secrets
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from roarline.artifacts.shared_storage import answered, marked, wait_for_artifacts
from roarline.artifacts.store import Store
from roarline.errors import JobError, UserInputError
from roarline.execution.executor import Watcher, drop_hopeless, is_ready
from roarline.execution.ray_cluster import check_nodes, connected, reason_of
from roarline.execution.ray_worker import RayWorker, Surroundings
from roarline.execution.stacks import mates
from roarline.execution.worker import Message
from roarline.stages.job import Job

_TRIES = 5  # more than on one machine: nodes are lost as well as workers
_EARLY_DEATHS = 10
_LISTEN_S = 2.0
_NODES_EVERY_S = 5.0
_NO_ROOM_AFTER_S = 60.0


@dataclass(frozen=True)
class Shape:
    """What of a node a job takes: CPUs, and a share of a GPU."""

    cpus: int
    gpus: float

    def __str__(self) -> str:
        cpus = f"{self.cpus} CPU{'s' if self.cpus > 1 else ''}"
        return f"{cpus} and {self.gpus:g} GPU" if self.gpus else cpus


@dataclass(eq=False)
class _Worker:
    """An actor; ``stream`` is what it is going to say next: that it is ready, or of its jobs."""

    actor: Any
    shape: Shape
    name: str
    stream: Any = None
    ready: bool = False
    jobs: tuple[Job, ...] = ()


@dataclass
class RayExecutor:
    """Run jobs on a Ray cluster; a failed job stops only what depends on it, one whose node dies is tried elsewhere.

    Args:
        root: The artifact folder, on storage that every node has at the same path.
        address: Of the cluster, as ``ray.init`` takes it; ``auto``: the one that this machine is a node of.
        device: ``auto`` (GPUs where the cluster has any), ``cpu`` or ``cuda``.
        gpus_per_job: The share of a GPU that a job takes, in (0, 1].
        most_workers: At most so many at a time; None: as many as the nodes have room for.
    """

    root: Path
    address: str = "auto"
    device: str = "auto"
    gpus_per_job: float = 1.0
    most_workers: int | None = None
    loader_threads: int = 2

    def run(self, jobs: Iterable[Job], done: set[str], watcher: Watcher) -> dict[str, Message]:
        """Run jobs in dependency order; see ``Executor``.

        Raises:
            UserInputError: Ray is not installed, there is no such cluster, or a node can't run the jobs.
        """
        queue = [job for job in jobs if job.key not in done]
        made: list[Job] = []
        with connected(self.address) as ray, marked(self.root) as marker:
            surroundings = Surroundings.here(marker)
            gpus = self._gpus(ray)
            check_nodes(ray, surroundings)
            run = _Run(self, ray, surroundings, gpus, queue, done, watcher, made)
            try:
                run.to_the_end()
            finally:
                run.close()
        wait_for_artifacts(Store(self.root), [(job.stage, job.key) for job in made if job.shard_of is None])
        return run.failed

    def _gpus(self, ray: ModuleType) -> float:
        if self.device == "cpu":
            return 0.0
        if self.device not in ("auto", "cuda"):
            raise UserInputError(f"runtime.device is {self.device!r}, but Ray chooses among the GPUs: use cuda or auto")
        if ray.cluster_resources().get("GPU", 0) > 0:
            return self.gpus_per_job
        if self.device == "auto":
            return 0.0
        raise UserInputError(
            f"runtime.device is {self.device!r}, but no node of the Ray cluster has a GPU: use cpu or auto, or start "
            "nodes with --num-gpus"
        )


@dataclass
class _Run:
    """One run: what waits, who works on what."""

    executor: RayExecutor
    ray: ModuleType
    surroundings: Surroundings
    gpus: float
    queue: list[Job]
    done: set[str]
    watcher: Watcher
    made: list[Job]
    failed: dict[str, Message] = field(default_factory=dict)
    _workers: list[_Worker] = field(default_factory=list)
    stacks: dict[str, tuple[Job, ...]] = field(init=False)
    _tries: Counter[str] = field(default_factory=Counter)
    _nodes: list[dict[str, Any]] = field(default_factory=list)
    _nodes_at: float = float("-inf")
    _placed_at: float = float("-inf")
    _no_room_since: float | None = None
    _died_early: int = 0
    _changed: bool = True

    def __post_init__(self) -> None:
        self.stacks = mates(self.queue, self._most_workers())

    def to_the_end(self) -> None:
        """Run everything that can run."""
        waits = False
        while True:
            if self._changed or time.monotonic() - self._placed_at > _NODES_EVERY_S:
                self._changed, self._placed_at = False, time.monotonic()
                drop_hopeless(self.queue, self.failed, self.watcher)
                waits = self._place()
            if not waits and not any(worker.jobs for worker in self._workers):
                return
            for worker in self._speaking():
                self._hear(worker)

    def close(self) -> None:
        """Stop all workers at once."""
        for worker in list(self._workers):
            self._stop(worker)

    def _most_workers(self) -> int:
        """GPU workers that the nodes have room for at the start; 1 on CPUs, whose stacks follow from the jobs alone."""
        if not self.gpus:
            return 1
        room = max((self._room(self._shape(job)) for job in self.queue), default=1)
        most = self.executor.most_workers
        return max(1, room if most is None else min(room, most))

    def _shape(self, job: Job) -> Shape:
        return Shape(job.threads, self.gpus)

    def _place(self) -> bool:
        """Give ready jobs to idle workers; where some are left, make room and start workers, and return True."""
        waiting: dict[Shape, list[Job]] = {}
        idle = [worker for worker in self._workers if worker.ready and not worker.jobs]
        queued, placed = {job.key for job in self.queue}, set[str]()
        for job in [job for job in self.queue if is_ready(job, self.done)]:
            if job.key in placed:
                continue
            together = tuple(one for one in self.stacks[job.key] if one.key in queued)
            if not all(is_ready(one, self.done) for one in together):
                continue
            placed |= {one.key for one in together}
            shape = self._shape(job)
            worker = next((worker for worker in idle if worker.shape == shape), None)
            if worker is None:
                waiting.setdefault(shape, []).append(job)
                continue
            idle.remove(worker)
            worker.jobs = together
            worker.stream = worker.actor.make.options(num_returns="streaming").remote(together)
            for one in together:
                self.queue.remove(one)
                self.watcher.started(one)
        if waiting:
            for worker in idle:
                self._stop(worker)
        for shape, jobs in waiting.items():
            self._start(shape, jobs)
        return bool(waiting)

    def _start(self, shape: Shape, jobs: list[Job]) -> None:
        """Start workers of a shape: no more than stacks wait for, and than the nodes have room for.

        Args:
            jobs: The first of each stack that waits.
        """
        room = self._room(shape)
        of_shape = [worker for worker in self._workers if worker.shape == shape]
        starting = sum(not worker.ready for worker in of_shape)
        wanted = min(len(jobs) - starting, max(1, room) - len(of_shape))
        if self.executor.most_workers is not None:
            wanted = min(wanted, self.executor.most_workers - len(self._workers))
        for _ in range(wanted):
            self._start_one(shape)
        self._say_no_room(shape, jobs[0], room)

    def _start_one(self, shape: Shape) -> None:
        name = secrets.token_hex(8)
        actor = (
            self.ray.remote(RayWorker)
            .options(num_cpus=shape.cpus, num_gpus=shape.gpus, max_restarts=0, max_task_retries=0)
            .remote(self.surroundings, name, self.executor.loader_threads, on_gpu=shape.gpus > 0)
        )
        self._workers.append(_Worker(actor, shape, name, stream=actor.prepare.remote()))

    def _room(self, shape: Shape) -> int:
        """How many workers of a shape the nodes could hold if nothing else ran."""
        if time.monotonic() - self._nodes_at > _NODES_EVERY_S:
            self._nodes, self._nodes_at = [node for node in self.ray.nodes() if node["Alive"]], time.monotonic()
        room = 0
        for node in self._nodes:
            fits = node["Resources"].get("CPU", 0.0) // shape.cpus
            if shape.gpus:
                # A job takes its share of one GPU: what is left of each is no use to the next.
                fits = min(fits, node["Resources"].get("GPU", 0.0) * math.floor(1 / shape.gpus + 1e-9))
            room += int(fits)
        return room

    def _say_no_room(self, shape: Shape, job: Job, room: int) -> None:
        """Now and then, where no node could ever hold a job: one may join."""
        if room:
            self._no_room_since = None
            return
        now = time.monotonic()
        if self._no_room_since is None or now - self._no_room_since > _NO_ROOM_AFTER_S:
            self._no_room_since = now
            text = f"no node of the cluster has {shape}; waiting for one to join (Ctrl-C stops)"
            self.watcher.said(job, Message("waiting", text))

    def _speaking(self) -> list[_Worker]:
        """Workers that have something to say, waited for."""
        streams = {worker.stream: worker for worker in self._workers if worker.stream is not None}
        if not streams:
            time.sleep(_LISTEN_S)
            return []
        first, _ = self.ray.wait(list(streams), num_returns=1, timeout=_LISTEN_S)
        if not first:
            return []
        found, _ = self.ray.wait(list(streams), num_returns=len(streams), timeout=0)
        return [streams[stream] for stream in found]

    def _hear(self, worker: _Worker) -> None:
        """Take in one thing that a worker says, or that it is lost."""
        try:
            if not worker.jobs:
                self._prepared(worker, self.ray.get(worker.stream))
                return
            said: Message | dict[str, Message] = self.ray.get(next(worker.stream))
        except self.ray.exceptions.RayTaskError as error:  # a defect, not a loss
            self._stop(worker)
            if not worker.jobs:
                raise
            said = self._all_failed(worker, f"{reason_of(error)}\n{error}")
        except (self.ray.exceptions.RayError, StopIteration) as error:
            self._lost(worker, reason_of(error))
            return
        if isinstance(said, Message):
            self.watcher.said(worker.jobs[0], said)
        else:
            self._ended(worker, said)

    def _ended(self, worker: _Worker, messages: dict[str, Message]) -> None:
        self._changed = True
        for job in worker.jobs:
            message = messages[job.key]
            if message.kind == "failed":
                self.failed[job.key] = message
            else:
                self.done.add(job.key)
                self.made.append(job)
            self.watcher.ended(job, message)
        worker.jobs, worker.stream = (), None
        if worker.shape.gpus and worker in self._workers and any(said.defect for said in messages.values()):
            self._stop(worker)

    def _prepared(self, worker: _Worker, problem: str | None) -> None:
        self._changed = True
        if problem is None and not answered(self.surroundings.marker, worker.name):
            problem = f"what it writes to {self.surroundings.marker.root} is not seen here: that must be shared storage"
        if problem is not None:
            raise UserInputError(f"a node of the Ray cluster can't run jobs: {problem}")
        worker.ready, worker.stream, self._died_early = True, None, 0

    def _lost(self, worker: _Worker, reason: str) -> None:
        """A worker or its node died: its jobs are tried again, elsewhere where need be."""
        self._stop(worker)
        self._changed, self._nodes_at = True, float("-inf")
        if not worker.jobs:
            self._died_early += 1
            if self._died_early >= _EARLY_DEATHS:
                raise JobError(f"{_EARLY_DEATHS} workers in a row were lost before they could begin ({reason})")
            return
        first = worker.jobs[0]
        self._tries[first.key] += 1
        if self._tries[first.key] < _TRIES:
            self.watcher.said(first, Message("waiting", f"its worker is lost ({reason}); trying again"))
            self.queue[:0] = worker.jobs
            return
        self._ended(worker, self._all_failed(worker, f"its worker was lost {_TRIES} times ({reason})"))

    def _all_failed(self, worker: _Worker, text: str) -> dict[str, Message]:
        """What a worker would say of its jobs, and note in the store, if it could."""
        for job in worker.jobs:
            Store(self.executor.root).record_failure(job.stage, job.key, text)
        return {job.key: Message("failed", text) for job in worker.jobs}

    def _stop(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        self.ray.kill(worker.actor, no_restart=True)
