"""What the local executor promises, with workers that only pretend to work; true ones: tests/end_to_end."""

from __future__ import annotations

import os
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from roarline.artifacts.store import Store
from roarline.execution import local
from roarline.execution.local import LocalExecutor
from roarline.execution.worker import Message
from roarline.stages.job import Job


def pretend(pipe: Connection, root: Path, device: str, loader_threads: int) -> None:
    """A worker that does what a job's label says, and notes when it ran and with how many threads."""
    while (jobs := pipe.recv()) is not None:
        job = jobs[0]
        with (root / "tries").open("a") as tries:
            tries.write(f"{job.key}\n")
        (root / f"process of {job.key}").write_text(str(os.getpid()))
        if job.label == "dies" or (job.label == "dies once" and (root / "tries").read_text().count(job.key) == 1):
            os.kill(os.getpid(), signal.SIGKILL)
        begin = time.monotonic()
        time.sleep(1.5 if job.label == "slow" else 0.1)
        with (root / "ran").open("a") as ran:
            ran.write(f"{begin} {time.monotonic()} {job.threads}\n")
        said = Message("failed", "no such layer", 2) if job.label == "fails" else Message("made")
        if job.label == "breaks":
            said = Message("failed", "AcceleratorError: device-side assert triggered", defect=True)
        pipe.send({one.key: said for one in jobs})
        if job.label == "ends afterwards":
            pipe.close()
            os._exit(0)


class Notes:
    """A watcher that writes down what is said."""

    def __init__(self) -> None:
        self.said_of: list[str] = []

    def started(self, job: Job) -> None: ...

    def said(self, job: Job, message: Message) -> None:
        self.said_of.append(f"{job.key}: {message.text}")

    def ended(self, job: Job, message: Message) -> None: ...


def job(key: str, *inputs: str, label: str = "", threads: int = 1) -> Job:
    return Job("s", 1, key, label, {"threads": threads}, {f"i{n}": ("s", name) for n, name in enumerate(inputs)})


@pytest.fixture
def executor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalExecutor:
    """Two workers that pretend."""
    monkeypatch.setattr(local, "work", pretend)
    return LocalExecutor(tmp_path, ["cpu", "cpu"], 2)


def test_the_job_of_a_dead_worker_is_tried_again_and_the_rest_goes_on(executor: LocalExecutor) -> None:
    notes, done = Notes(), set[str]()
    jobs = [job("a", label="dies once"), job("b", label="dies"), job("c"), job("d", "b"), job("e", "a", "c")]
    failed = executor.run(jobs, done, notes)
    assert done == {"a", "c", "e"}
    tries = (executor.root / "tries").read_text().split()
    assert (tries.count("a"), tries.count("b"), tries.count("c")) == (2, 3, 1)
    assert any(line.startswith("a: its worker was ended by SIGKILL") for line in notes.said_of)
    assert failed["b"].text.endswith("3 times")
    assert failed["d"].text == "not run: waits on s, which failed"
    assert Store(executor.root).failure("s", "b") == failed["b"].text  # for `status`: the worker could not note it
    assert Store(executor.root).failure("s", "a") is None


def test_a_worker_that_ends_while_it_is_idle_costs_no_job_a_try(executor: LocalExecutor) -> None:
    notes, done = Notes(), set[str]()
    jobs = [job("a", label="ends afterwards"), job("b", label="slow"), job("c", "a", "b"), job("d", "a", "b")]
    assert executor.run(jobs, done, notes) == {}
    assert done == {"a", "b", "c", "d"}
    assert notes.said_of == []


def test_a_worker_that_ends_as_it_is_given_a_job_is_replaced(
    executor: LocalExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalExecutor, "_let_go_of_the_dead", lambda self: None)  # seen too late
    notes, done = Notes(), set[str]()
    assert executor.run([job("a", label="ends afterwards"), job("b", "a")], done, notes) == {}
    assert done == {"a", "b"}
    assert notes.said_of == ["b: its worker ended with exit code 0; trying again"]


@pytest.mark.parametrize(("device", "new_process"), [("cuda:0", True), ("cpu", False)])
def test_a_defect_on_a_gpu_ends_its_worker_which_cuda_would_fail_ever_after(
    executor: LocalExecutor, device: str, new_process: bool
) -> None:
    executor.devices, executor.cpu_threads = [device], None
    notes, done = Notes(), set[str]()
    failed = executor.run(
        [job("a"), job("b", label="breaks"), job("c"), job("d", label="fails"), job("e")], done, notes
    )
    assert done == {"a", "c", "e"}
    assert failed.keys() == {"b", "d"}
    assert notes.said_of == []
    a, b, c, e = ((executor.root / f"process of {key}").read_text() for key in "abce")
    assert a == b
    assert (b != c) == new_process
    assert c == e  # a failure that is deliberate says nothing about the GPU


def test_a_job_that_fails_is_not_tried_again_and_the_rest_goes_on(executor: LocalExecutor) -> None:
    done = set[str]()
    failed = executor.run([job("a", label="fails"), job("b", "a"), job("c")], done, Notes())
    assert done == {"c"}
    assert failed["a"] == Message("failed", "no such layer", 2)
    assert failed["b"].exit_code == 2
    assert (executor.root / "tries").read_text().split().count("a") == 1


def test_jobs_that_run_together_use_no_more_threads_than_there_are(executor: LocalExecutor) -> None:
    jobs = [job(f"{n}", threads=2 if n % 3 == 1 else 1) for n in range(9)]
    assert executor.run(jobs, set(), Notes()) == {}
    ran = [[float(word) for word in line.split()] for line in (executor.root / "ran").read_text().splitlines()]
    assert len(ran) == 9
    for begin, _, _ in ran:
        assert sum(threads for start, end, threads in ran if start <= begin < end) <= 2


def test_a_stack_goes_to_one_worker_whole_while_another_is_free(executor: LocalExecutor) -> None:
    def stacked(key: str) -> Job:
        return Job("s", 1, key, "", {"threads": 1, "engine": "stacked"}, {}, local={"stack": 3})

    notes, done = Notes(), set[str]()
    assert executor.run([stacked(f"k{n}") for n in range(7)], done, notes) == {}
    assert notes.said_of == []  # no worker was sent nothing, and died of it
    assert done == {f"k{n}" for n in range(7)}
    tried = (executor.root / "tries").read_text().split()
    assert sorted(tried) == ["k0", "k3", "k6"]  # the first of each stack, once


@pytest.mark.parametrize(("devices", "stacks"), [(["cuda:0", "cuda:1"], 2), (["cuda:0"], 1), (["cpu", "cpu"], 1)])
def test_gpus_have_a_stack_each_and_cpus_the_stacks_that_follow_from_the_jobs(
    executor: LocalExecutor, devices: list[str], stacks: int
) -> None:
    executor.devices, executor.cpu_threads = devices, None
    parameters = {"threads": 1, "engine": "stacked"}
    jobs = [Job("s", 1, f"k{n}", "", parameters, {}, local={"stack": 32}) for n in range(6)]
    assert executor.run(jobs, set(), Notes()) == {}
    assert len((executor.root / "tries").read_text().split()) == stacks


def test_a_job_wider_than_the_machine_runs_alone(executor: LocalExecutor) -> None:
    done = set[str]()
    assert executor.run([job("a"), job("wide", threads=8), job("b")], done, Notes()) == {}
    assert done == {"a", "wide", "b"}
