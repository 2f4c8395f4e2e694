"""The Ray executor: the jobs of a plan on the nodes of a Ray cluster. Imports Ray only where it is used.

A worker is an actor that holds the CPUs, and the share of a GPU, of the jobs that it makes one after the other. Workers
are started while jobs of their shape wait and nodes have room, and stopped where their room is needed otherwise.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import secrets
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from roarline.artifacts.shared_storage import answered, marked, wait_for_artifacts
from roarline.artifacts.store import Store
from roarline.errors import JobError, UserInputError
from roarline.execution.executor import Watcher, drop_hopeless
from roarline.execution.ray_worker import FINAL, RayWorker, Surroundings, problem_here
from roarline.execution.worker import Message
from roarline.stages.job import Job

_TRIES = 5  # more than on one machine: nodes are lost as well as workers
_EARLY_DEATHS = 10
_LISTEN_S = 2.0
_NODES_EVERY_S = 5.0
_NO_ROOM_AFTER_S = 60.0

# Read when Ray is imported. It would print what nodes write, count its users, and warn of how it hides GPUs.
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": "(?s).*",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


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
    """An actor; ``stream`` is what it is going to say next: that it is ready, or of its job."""

    actor: Any
    shape: Shape
    name: str
    stream: Any = None
    ready: bool = False
    job: Job | None = None


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
        with _connected(self.address) as ray, marked(self.root) as marker:
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


def import_ray() -> ModuleType:
    """Ray, told to be quiet.

    Raises:
        UserInputError: It is not installed.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise UserInputError(
            "runtime.executor is 'ray', but Ray is not installed: pip install 'roarline[ray]', here and on every node"
        ) from error
    return ray


def check_nodes(ray: ModuleType, surroundings: Surroundings) -> None:
    """Ask every node whether it sees the artifact folder, the working folder and the same versions.

    Raises:
        UserInputError: Some can't run jobs; names each and says why.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
    ask = ray.remote(problem_here)
    asked = {
        name: ask.options(
            num_cpus=0, max_retries=0, scheduling_strategy=NodeAffinitySchedulingStrategy(name, soft=False)
        ).remote(surroundings, name)
        for name in nodes
    }
    problems = []
    for name, answer in asked.items():
        try:
            problem = ray.get(answer)
        except ray.exceptions.RayError as error:
            if not any(node["Alive"] for node in ray.nodes() if node["NodeID"] == name):
                continue  # lost meanwhile
            problem = f"roarline can't be started there ({_reason(error)}): install it as here"
        if problem is None and not answered(surroundings.marker, name):
            problem = f"what it writes to {surroundings.marker.root} is not seen here: that must be shared storage"
        if problem is not None:
            problems.append(f"node {nodes[name]['NodeManagerAddress']}: {problem}")
    if problems:
        raise UserInputError("\n".join(sorted(problems)))


@contextlib.contextmanager
def _connected(address: str) -> Iterator[ModuleType]:
    """Ray, connected to a cluster; a connection that was there before is used, and left."""
    ray = import_ray()
    if ray.is_initialized():
        yield ray
        return
    try:
        ray.init(
            address=address,
            namespace=f"roarline-{secrets.token_hex(4)}",
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise UserInputError(
            f"no Ray cluster at {address!r} ({str(error).splitlines()[0]}): start one with `ray start --head`, join it "
            "from the other machines, and run roarline on one of its nodes"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


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
    _tries: Counter[str] = field(default_factory=Counter)
    _nodes: list[dict[str, Any]] = field(default_factory=list)
    _nodes_at: float = float("-inf")
    _no_room_since: float | None = None
    _died_early: int = 0

    def to_the_end(self) -> None:
        """Run everything that can run."""
        while True:
            drop_hopeless(self.queue, self.failed, self.watcher)
            self._place()
            if not self.queue and not any(worker.job for worker in self._workers):
                return
            for worker in self._speaking():
                self._hear(worker)

    def close(self) -> None:
        """Stop all workers at once."""
        for worker in list(self._workers):
            self._stop(worker)

    def _shape(self, job: Job) -> Shape:
        return Shape(job.threads, self.gpus)

    def _place(self) -> None:
        """Give ready jobs to idle workers; where some are left, make room and start workers."""
        waiting: dict[Shape, list[Job]] = {}
        idle = [worker for worker in self._workers if worker.ready and worker.job is None]
        for job in [job for job in self.queue if all(key in self.done for _, key in job.inputs.values())]:
            shape = self._shape(job)
            worker = next((worker for worker in idle if worker.shape == shape), None)
            if worker is None:
                waiting.setdefault(shape, []).append(job)
                continue
            idle.remove(worker)
            self.queue.remove(job)
            worker.job = job
            worker.stream = worker.actor.make.options(num_returns="streaming").remote(job)
            self.watcher.started(job)
        if waiting:
            for worker in idle:
                self._stop(worker)
        for shape, jobs in waiting.items():
            self._start(shape, jobs)

    def _start(self, shape: Shape, jobs: list[Job]) -> None:
        """Start workers of a shape: no more than jobs wait for, and than the nodes have room for."""
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
            if worker.job is None:
                self._prepared(worker, self.ray.get(worker.stream))
                return
            message: Message = self.ray.get(next(worker.stream))
        except self.ray.exceptions.RayTaskError as error:  # a defect, not a loss
            self._stop(worker)
            if worker.job is None:
                raise
            message = Message("failed", f"{_reason(error)}\n{error}")
        except (self.ray.exceptions.RayError, StopIteration) as error:
            self._lost(worker, _reason(error))
            return
        if message.kind not in FINAL:
            self.watcher.said(worker.job, message)
            return
        job, worker.job, worker.stream = worker.job, None, None
        if message.kind == "failed":
            self.failed[job.key] = message
        else:
            self.done.add(job.key)
            self.made.append(job)
        self.watcher.ended(job, message)

    def _prepared(self, worker: _Worker, problem: str | None) -> None:
        if problem is None and not answered(self.surroundings.marker, worker.name):
            problem = f"what it writes to {self.surroundings.marker.root} is not seen here: that must be shared storage"
        if problem is not None:
            raise UserInputError(f"a node of the Ray cluster can't run jobs: {problem}")
        worker.ready, worker.stream, self._died_early = True, None, 0

    def _lost(self, worker: _Worker, reason: str) -> None:
        """A worker or its node died: its job is tried again, elsewhere where need be."""
        job = worker.job
        self._stop(worker)
        self._nodes_at = float("-inf")
        if job is None:
            self._died_early += 1
            if self._died_early >= _EARLY_DEATHS:
                raise JobError(f"{_EARLY_DEATHS} workers in a row were lost before they could begin ({reason})")
            return
        self._tries[job.key] += 1
        if self._tries[job.key] < _TRIES:
            self.watcher.said(job, Message("waiting", f"its worker is lost ({reason}); trying again"))
            self.queue.insert(0, job)
            return
        self.failed[job.key] = Message("failed", f"its worker was lost {_TRIES} times ({reason})")
        self.watcher.ended(job, self.failed[job.key])

    def _stop(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        self.ray.kill(worker.actor, no_restart=True)


def _reason(error: BaseException) -> str:
    """The sentence of Ray's message that says most."""
    lines = [line for line in str(error).splitlines() if line and not line.startswith(("\t", " "))]
    return (lines[-1] if lines else type(error).__name__).partition(". ")[0].rstrip(".")
