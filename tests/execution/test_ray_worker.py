"""A worker as a Ray node runs it, called as Ray calls it, in this process."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from roarline.artifacts.shared_storage import marked
from roarline.artifacts.store import Store
from roarline.execution import ray_worker
from roarline.execution.ray_worker import RayWorker, Surroundings, problem_here
from roarline.execution.worker import Message
from roarline.stages.job import Context, Job

JOB = Job("train-cls", 1, "a" * 64, "train-cls", {}, {"dataset": ("prepare-data", "b" * 64)})


@pytest.fixture
def worker(tmp_path: Path) -> Any:
    """A worker that was prepared: torch's settings of this process are left alone."""
    with marked(tmp_path) as marker:
        made = RayWorker(Surroundings.here(marker), "node", 1, on_gpu=False)
        made._context = Context(Store(tmp_path))
        yield made


def publish(store: Store) -> None:
    """The job's input, as far as anybody looks."""
    folder = store.path(*JOB.inputs["dataset"])
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")


def test_a_node_like_the_drivers_is_good(tmp_path: Path) -> None:
    with marked(tmp_path) as marker:
        assert problem_here(Surroundings.here(marker), "node") is None


def test_what_differs_on_a_node_is_said(tmp_path: Path) -> None:
    with marked(tmp_path) as marker:
        here = Surroundings.here(marker)
        older = replace(here, versions=(*here.versions[:2], ("torch", "1.0"), *here.versions[3:]))
        assert "where roarline was started it is 1.0: install the same" in str(problem_here(older, "node"))
        assert "is not there: start it from a folder" in str(problem_here(replace(here, folder="/no/such"), "node"))


def test_messages_come_in_order_and_the_last_says_how_it_ended(worker: RayWorker, monkeypatch: Any) -> None:
    publish(worker._context.store)  # type: ignore[union-attr]

    def attempt(jobs: Any, context: Context, pipe: Any) -> dict[str, Message]:
        for done in range(100):
            pipe.send(Message("progress", "images", done=done, total=100))
        pipe.send(Message("waiting"))
        return {job.key: Message("made") for job in jobs}

    monkeypatch.setattr(ray_worker, "attempt_stack", attempt)
    *said, last = worker.make([JOB])
    assert [message.kind for message in said] == ["progress", "waiting"]  # type: ignore[union-attr] # one progress a second
    assert last == {JOB.key: Message("made")}


def test_inputs_that_another_node_has_just_made_are_waited_for(worker: RayWorker, monkeypatch: Any) -> None:
    store = worker._context.store  # type: ignore[union-attr]

    def attempt(jobs: Any, context: Context, pipe: Any) -> dict[str, Message]:
        return {job.key: Message("made" if store.exists(*job.inputs["dataset"]) else "failed") for job in jobs}

    monkeypatch.setattr(ray_worker, "attempt_stack", attempt)
    threading.Timer(0.3, publish, [store]).start()
    said, last = worker.make([JOB])
    assert isinstance(said, Message)
    assert said.text == "this node doesn't see its inputs yet; waiting"
    assert last == {JOB.key: Message("made")}


def test_a_defect_reaches_whoever_listens(worker: RayWorker, monkeypatch: Any) -> None:
    publish(worker._context.store)  # type: ignore[union-attr]

    def attempt(*_: Any) -> dict[str, Message]:
        raise SystemExit(3)

    monkeypatch.setattr(ray_worker, "attempt_stack", attempt)
    with pytest.raises(SystemExit):
        list(worker.make([JOB]))
