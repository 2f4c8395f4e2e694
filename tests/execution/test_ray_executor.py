"""How the Ray executor gives out jobs, on a cluster that is played; a true one: tests/end_to_end/test_ray.py."""

from __future__ import annotations

import builtins
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from roarline.artifacts.shared_storage import marked
from roarline.artifacts.store import Store
from roarline.errors import JobError, UserInputError
from roarline.execution import ray_cluster, ray_executor
from roarline.execution.ray_cluster import check_nodes, import_ray
from roarline.execution.ray_executor import RayExecutor, _Run
from roarline.execution.ray_worker import Surroundings
from roarline.execution.stacks import SIZE
from roarline.execution.worker import Message
from roarline.stages.job import Job

MADE = Message("made")


class RayError(Exception):
    """As ray.exceptions.RayError."""


class RayTaskError(RayError):
    """As ray.exceptions.RayTaskError."""


class LostError(RayError):
    """A worker or node that died."""


@dataclass(eq=False)
class Actor:
    """A worker of the played cluster; ``node`` is where it has found room."""

    ray: PlayedRay
    cpus: float
    gpus: float
    marker: Any
    name: str
    node: int | None = None
    alive: bool = True

    @property
    def prepare(self) -> Any:
        return SimpleNamespace(remote=lambda: Stream(self, self._prepared()))

    @property
    def make(self) -> Any:
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda jobs: Stream(self, self._makes(jobs))))

    def _prepared(self) -> Iterator[Any]:
        if self.ray.problem is None:
            (self.marker.folder / self.name).touch()
        yield self.ray.problem

    def _makes(self, jobs: tuple[Job, ...]) -> Iterator[Any]:
        self.ray.running += 1
        self.ray.most_running = max(self.ray.most_running, self.ray.running)
        self.ray.stacks.append([job.key for job in jobs])
        self.ray.tried.update(job.key for job in jobs)
        yield Message("progress", "images", done=1, total=2)
        self.ray.running -= 1
        answers = {job.key: self.ray.answer(job, self.ray.tried[job.key]) for job in jobs}
        yield next((said for said in answers.values() if isinstance(said, Exception)), answers)


@dataclass(eq=False)
class Stream:
    """What an actor says, one after the other."""

    actor: Actor
    says: Iterator[Any]

    def __next__(self) -> Stream:
        return self


@dataclass
class PlayedRay:
    """As much of Ray as the executor uses. Nodes have CPUs and GPUs, actors wait until a node has room."""

    cpus_gpus: list[tuple[float, float]]
    answer: Callable[[Job, int], Any] = lambda job, tries: MADE
    problem: str | None = None
    on_wait: Callable[[], None] = lambda: None
    actors: list[Actor] = field(default_factory=list)
    tried: Counter[str] = field(default_factory=Counter)
    stacks: list[list[str]] = field(default_factory=list)
    running: int = 0
    most_running: int = 0
    exceptions: Any = field(default_factory=lambda: SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError))

    def nodes(self) -> list[dict[str, Any]]:
        return [
            {
                "NodeID": f"{n + 1:056x}",
                "NodeManagerAddress": f"10.0.0.{n}",
                "Alive": True,
                "Resources": {"CPU": c, "GPU": g},
            }
            for n, (c, g) in enumerate(self.cpus_gpus)
        ]

    def remote(self, what: Any) -> Any:
        def started(options: dict[str, Any], *given: Any, **_: Any) -> Actor:
            actor = Actor(self, options["num_cpus"], options["num_gpus"], given[0].marker, given[1])
            self.actors.append(actor)
            return actor

        def options(**words: Any) -> Any:
            return SimpleNamespace(remote=lambda *given, **more: started(words, *given, **more))

        return SimpleNamespace(options=options)

    def wait(self, streams: list[Stream], *, num_returns: int, timeout: float) -> tuple[list[Stream], list[Stream]]:
        self.on_wait()
        for actor in self.actors:
            if actor.alive and actor.node is None:
                actor.node = next((n for n in range(len(self.cpus_gpus)) if self._fits(actor, n)), None)
        ready = [stream for stream in streams if stream.actor.node is not None][:num_returns]
        return ready, [stream for stream in streams if stream not in ready]

    def get(self, stream: Stream) -> Any:
        said = next(stream.says)
        if isinstance(said, BaseException):
            raise said
        return said

    def kill(self, actor: Actor, *, no_restart: bool) -> None:
        assert no_restart
        actor.alive = False

    def _fits(self, actor: Actor, node: int) -> bool:
        there = [a for a in self.actors if a.alive and a.node == node]
        cpus, gpus = self.cpus_gpus[node]
        taken_cpus, taken_gpus = sum(a.cpus for a in there) + actor.cpus, sum(a.gpus for a in there) + actor.gpus
        return taken_cpus <= cpus and taken_gpus <= gpus + 1e-9  # shares of a GPU are counted exactly by Ray


@dataclass
class Notes:
    """A watcher that writes down what it is told."""

    lines: list[str] = field(default_factory=list)
    said_of: list[str] = field(default_factory=list)

    def started(self, job: Job) -> None:
        self.lines.append(f"started {job.key}")

    def said(self, job: Job, message: Message) -> None:
        self.said_of.append(f"{job.key}: {message.kind} {message.text}")

    def ended(self, job: Job, message: Message) -> None:
        self.lines.append(f"{message.kind} {job.key}")


def job(key: str, *inputs: str, threads: int = 1) -> Job:
    return Job("s", 1, key, key, {"threads": threads}, {f"i{n}": ("s", name) for n, name in enumerate(inputs)})


def play(
    ray: PlayedRay, jobs: list[Job], root: Path, *, gpus: float = 0.0, most: int | None = None
) -> tuple[_Run, Notes]:
    """Run jobs on the played cluster to the end, with a limit of steps, and stop its workers."""
    notes, steps = Notes(), 0
    asked = ray.on_wait

    def count() -> None:
        nonlocal steps
        steps += 1
        assert steps < 1000, "it goes on for ever"
        asked()

    ray.on_wait = count
    with marked(root) as marker:
        surroundings = Surroundings(marker, "/", (), ())
        run = _Run(RayExecutor(root, most_workers=most), ray, surroundings, gpus, list(jobs), set(), notes, [])  # type: ignore[arg-type]
        try:
            run.to_the_end()
        finally:
            run.close()
    assert not any(actor.alive for actor in ray.actors)
    return run, notes


def test_jobs_run_after_what_they_read(tmp_path: Path) -> None:
    ray = PlayedRay([(2, 0)])
    run, notes = play(ray, [job("a"), job("b", "a"), job("c", "a"), job("d", "b", "c")], tmp_path)
    assert run.done == {"a", "b", "c", "d"}
    assert run.failed == {}
    assert notes.lines.index("made a") < notes.lines.index("started b")
    assert max(notes.lines.index("made b"), notes.lines.index("made c")) < notes.lines.index("started d")
    assert "a: progress images" in notes.said_of


def test_a_failing_job_stops_only_what_depends_on_it(tmp_path: Path) -> None:
    bad = Message("failed", "no such layer", 2)
    ray = PlayedRay([(2, 0)], lambda job, _: bad if job.key == "a" else MADE)
    run, _ = play(ray, [job("a"), job("b", "a"), job("c")], tmp_path)
    assert run.done == {"c"}
    assert run.failed["a"] == bad
    assert run.failed["b"].text == "not run: waits on s, which failed"
    assert run.failed["b"].exit_code == 2
    assert ray.tried["a"] == 1


def test_a_lost_workers_job_is_tried_again_by_another(tmp_path: Path) -> None:
    ray = PlayedRay([(1, 0)], lambda job, tries: LostError("The node died. And more.") if tries < 3 else MADE)
    run, notes = play(ray, [job("a")], tmp_path)
    assert run.done == {"a"}
    assert ray.tried["a"] == 3
    assert len(ray.actors) == 3
    assert "a: waiting its worker is lost (The node died); trying again" in notes.said_of


def test_a_job_that_loses_every_worker_fails_and_the_rest_goes_on(tmp_path: Path) -> None:
    ray = PlayedRay([(1, 0)], lambda job, _: LostError("out of memory") if job.key == "a" else MADE)
    run, _ = play(ray, [job("a"), job("b")], tmp_path)
    assert run.done == {"b"}
    assert ray.tried["a"] == 5
    assert run.failed["a"].text == "its worker was lost 5 times (out of memory)"
    assert Store(tmp_path).failure("s", "a") == run.failed["a"].text  # for `status`: the worker could not note it


def test_a_defect_in_a_worker_is_a_failure_not_a_loss(tmp_path: Path) -> None:
    ray = PlayedRay([(1, 0)], lambda job, _: RayTaskError("TypeError: x") if job.key == "a" else MADE)
    run, _ = play(ray, [job("a"), job("b")], tmp_path)
    assert run.done == {"b"}
    assert ray.tried["a"] == 1
    assert run.failed["a"].text.startswith("TypeError: x")
    assert str(Store(tmp_path).failure("s", "a")).startswith("TypeError: x")


@pytest.mark.parametrize(("gpus", "workers"), [(1.0, 2), (0.0, 1)])
def test_a_defect_on_a_gpu_ends_its_worker_which_cuda_would_fail_ever_after(
    tmp_path: Path, gpus: float, workers: int
) -> None:
    answers = {"a": Message("failed", "device-side assert", defect=True), "b": Message("failed", "diverged")}
    ray = PlayedRay([(1, 1)], lambda job, _: answers.get(job.key, MADE))
    run, _ = play(ray, [job("a"), job("b"), job("c")], tmp_path, gpus=gpus)
    assert run.failed.keys() == {"a", "b"}
    assert run.done == {"c"}
    assert len(ray.actors) == workers


def stackable(key: str, *inputs: str) -> Job:
    made = job(key, *inputs)
    return replace(made, local={SIZE: 2}, inputs={**made.inputs, "dataset": ("s", "data")})


def test_a_stack_goes_to_one_worker_and_each_of_its_jobs_ends_in_its_own_way(tmp_path: Path) -> None:
    bad = Message("failed", "diverged")
    ray = PlayedRay([(2, 0)], lambda job, _: bad if job.key == "b" else MADE)
    jobs = [job("data"), *(stackable(key) for key in "abcde"), job("of b", "b")]
    run, _ = play(ray, jobs, tmp_path)
    assert sorted(ray.stacks) == [["a", "b"], ["c", "d"], ["data"], ["e"]]
    assert run.done == {"data", "a", "c", "d", "e"}
    assert run.failed.keys() == {"b", "of b"}


@pytest.mark.parametrize(
    ("nodes", "gpus", "most", "largest"), [([(8, 2)], 0.5, None, 2), ([(8, 2)], 0.5, 2, 4), ([(8, 0)], 0.0, None, 7)]
)
def test_gpus_have_a_stack_each_and_cpus_the_stacks_that_follow_from_the_jobs(
    tmp_path: Path, nodes: list[tuple[float, float]], gpus: float, most: int | None, largest: int
) -> None:
    ray = PlayedRay(nodes)
    jobs = [replace(stackable(key), local={SIZE: 32}) for key in "abcdefg"]
    play(ray, [job("data"), *jobs], tmp_path, gpus=gpus, most=most)
    assert max(map(len, ray.stacks)) == largest


def test_a_lost_stack_is_tried_again_whole(tmp_path: Path) -> None:
    ray = PlayedRay([(1, 0)], lambda job, tries: LostError("gone") if job.key == "a" and tries == 1 else MADE)
    run, _ = play(ray, [job("data"), stackable("a"), stackable("b")], tmp_path)
    assert ray.stacks == [["data"], ["a", "b"], ["a", "b"]]
    assert run.done == {"data", "a", "b"}


def test_wide_and_narrow_jobs_find_room_in_turn(tmp_path: Path) -> None:
    jobs = [job(f"n{n}") for n in range(4)] + [job(f"w{n}", threads=2) for n in range(3)] + [job("last", "w0", "n0")]
    run, _ = play(PlayedRay([(2, 0)]), jobs, tmp_path)
    assert run.done == {one.key for one in jobs}


@pytest.mark.parametrize(("share", "at_once"), [(0.5, 4), (1.0, 2), (0.1, 20), (0.4, 4)])
def test_jobs_share_gpus(tmp_path: Path, share: float, at_once: int) -> None:
    ray = PlayedRay([(64, 2)])
    run, _ = play(ray, [job(f"{n}") for n in range(30)], tmp_path, gpus=share)
    assert len(run.done) == 30
    assert ray.most_running == at_once
    assert all(actor.gpus == share for actor in ray.actors)


def test_no_more_workers_than_asked_for(tmp_path: Path) -> None:
    ray = PlayedRay([(8, 0)])
    play(ray, [job(f"{n}") for n in range(20)], tmp_path, most=3)
    assert ray.most_running == 3


def test_no_more_workers_than_jobs_wait_for(tmp_path: Path) -> None:
    ray = PlayedRay([(64, 0), (64, 0)])
    play(ray, [job("a"), job("b")], tmp_path)
    assert len(ray.actors) == 2


def test_a_job_that_fits_no_node_waits_for_one_to_join(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_executor, "_NODES_EVERY_S", -1.0)
    ray = PlayedRay([(2, 0)])
    waits = 0

    def joins() -> None:
        nonlocal waits
        waits += 1
        if waits == 20:
            ray.cpus_gpus.append((4, 0))

    ray.on_wait = joins
    run, notes = play(ray, [job("wide", threads=4)], tmp_path)
    assert run.done == {"wide"}
    assert [line for line in notes.said_of if "no node of the cluster has 4 CPUs; waiting" in line]


def test_a_node_that_can_not_run_jobs_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match="a node of the Ray cluster can't run jobs: torch is 1"):
        play(PlayedRay([(1, 0)], problem="torch is 1"), [job("a")], tmp_path)


def test_workers_that_never_begin_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(actor: Actor) -> Iterator[Any]:
        yield LostError("no such module")

    monkeypatch.setattr(Actor, "_prepared", dies)
    with pytest.raises(JobError, match=r"could begin \(no such module\)"):
        play(PlayedRay([(1, 0)]), [job("a")], tmp_path)


def test_ctrl_c_stops_every_worker(tmp_path: Path) -> None:
    ray = PlayedRay([(2, 0)])

    def interrupt() -> None:
        if ray.running:
            raise KeyboardInterrupt

    ray.on_wait = interrupt
    with pytest.raises(KeyboardInterrupt):
        play(ray, [job("a"), job("b")], tmp_path)
    assert ray.actors
    assert not any(actor.alive for actor in ray.actors)


def test_what_is_wrong_with_each_node_is_said_in_one_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    ray: Any = PlayedRay([(1, 0)] * 3)
    names = [node["NodeID"] for node in ray.nodes()]
    answers = {names[0]: None, names[1]: "no folder", names[2]: None}
    ray.remote = lambda _: SimpleNamespace(
        options=lambda scheduling_strategy, **_: SimpleNamespace(remote=lambda *_: scheduling_strategy.node_id)
    )
    ray.get = answers.get
    monkeypatch.setattr(ray_cluster, "answered", lambda marker, name: name == names[0])
    with marked(tmp_path) as marker, pytest.raises(UserInputError) as caught:
        check_nodes(ray, Surroundings(marker, "/", (), ()))
    first, second = str(caught.value).splitlines()
    assert first == "node 10.0.0.1: no folder"
    assert second.startswith("node 10.0.0.2: what it writes")


@pytest.mark.parametrize(
    ("device", "gpus", "share"), [("auto", 0, 0.0), ("auto", 4, 0.25), ("cpu", 4, 0.0), ("cuda", 4, 0.25)]
)
def test_gpus_are_asked_for_where_there_are_any(device: str, gpus: int, share: float) -> None:
    ray: Any = SimpleNamespace(cluster_resources=lambda: {"CPU": 8.0, "GPU": float(gpus)})
    assert RayExecutor(Path(), device=device, gpus_per_job=0.25)._gpus(ray) == share


@pytest.mark.parametrize(
    ("device", "said"), [("cuda", "no node of the Ray cluster has a GPU"), ("cuda:1", "Ray chooses")]
)
def test_a_gpu_that_is_not_there_is_refused(device: str, said: str) -> None:
    ray: Any = SimpleNamespace(cluster_resources=lambda: {"CPU": 8.0})
    with pytest.raises(UserInputError, match=said):
        RayExecutor(Path(), device=device)._gpus(ray)


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    true_import = builtins.__import__

    def refuse(name: str, *rest: Any, **more: Any) -> Any:
        if name == "ray":
            raise ImportError(name)
        return true_import(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(UserInputError, match=r"roarline\[ray\]"):
        import_ray()
