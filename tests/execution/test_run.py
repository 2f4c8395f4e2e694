"""Running a plan: what is said of jobs that failed."""

from __future__ import annotations

import pytest

from roarline.execution.run import _Console, equal_failures
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
