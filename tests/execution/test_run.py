"""Running a plan: what is given to the executor, what is said of jobs that failed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from roarline.artifacts.store import Store
from roarline.execution import run as module
from roarline.execution.planned import Plan
from roarline.execution.run import _Console, equal_failures, run_plan
from roarline.execution.shards import shards_of
from roarline.execution.worker import Message
from roarline.stages.job import Job


def job(label: str) -> Job:
    return Job("evaluate-roar", 1, label, label, {}, {})


def test_equal_failures_are_listed_once_with_their_count() -> None:
    failed = [
        (job("a"), "no such layer"),
        (job("b"), "no such layer"),
        (job("c"), "out of memory"),
        (job("d"), "no such layer"),
    ]
    assert equal_failures(failed) == ["a and 2 more: no such layer", "c: out of memory"]


def test_the_console_says_the_same_failure_once(capsys: pytest.CaptureFixture[str]) -> None:
    jobs = [job(label) for label in "abc"]
    with _Console(jobs) as console:
        for one, text in zip(jobs, ["no such layer", "no such layer", "out of memory"], strict=True):
            console.started(one)
            console.ended(one, Message("failed", text, 2))
    said = capsys.readouterr().err
    assert said.count("FAILED") == 2
    assert "FAILED a: no such layer" in said
    assert "FAILED c: out of memory" in said


class MakesAll:
    """An executor that has everything made at once, and notes what was asked of it."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.done: set[str] = set()

    def run(self, jobs: Iterable[Job], done: set[str], watcher: Any) -> dict[str, Message]:
        self.keys, self.done = [one.key for one in jobs], set(done)
        for one in jobs:
            watcher.started(one)
            watcher.ended(one, Message("cached" if one.key in done else "made"))
        return {}


def test_extraction_runs_in_shards_of_which_those_that_are_there_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Job("extract-attribution-maps", 1, "a" * 64, "maps", {"method": "gradient"}, {})
    first, second = shards_of(whole, 2)
    store, executor = Store(tmp_path), MakesAll()
    folder = store.path(first.stage, first.key)
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    monkeypatch.setattr(module, "choose_executor", lambda runtime, store, jobs: executor)
    plan = Plan(SimpleNamespace(runtime=SimpleNamespace(shards=2)), [whole])  # type: ignore[arg-type]
    result = run_plan(plan, store)
    assert executor.keys == [first.key, second.key, whole.key]
    assert executor.done == {first.key}
    assert (result.made, result.cached) == (1, 0)  # as `plan` counts: shards are no jobs of the experiment
