"""What the local executor promises, with workers that only pretend to work; true ones: tests/end_to_end."""

from __future__ import annotations

import os
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

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
        if job.label == "dies" or (job.label == "dies once" and (root / "tries").read_text().count(job.key) == 1):
            os.kill(os.getpid(), signal.SIGKILL)
        begin = time.monotonic()
        time.sleep(0.1)
        with (root / "ran").open("a") as ran:
            ran.write(f"{begin} {time.monotonic()} {job.threads}\n")
        said = Message("failed", "no such layer", 2) if job.label == "fails" else Message("made")
        pipe.send({one.key: said for one in jobs})


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


def test_a_job_wider_than_the_machine_runs_alone(executor: LocalExecutor) -> None:
    done = set[str]()
    assert executor.run([job("a"), job("wide", threads=8), job("b")], done, Notes()) == {}
    assert done == {"a", "wide", "b"}
