"""What surrounds a stage: the device it runs on, who is told that it begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from roarline.artifacts.store import Store
from roarline.errors import JobError
from roarline.execution import run_job as module
from roarline.execution.run_job import _numerics, run_job
from roarline.stages.job import Context, Job

JOB = Job("prepare-data", 1, "a" * 64, "prepare-data", {"threads": 1}, {})


@pytest.mark.parametrize(("device", "index"), [("cuda:1", 1), ("cuda", 0)])
def test_a_jobs_gpu_is_the_processs_own_before_anything_is_asked_of_it(
    monkeypatch: pytest.MonkeyPatch, device: str, index: int
) -> None:
    """A worker of a second GPU would record its steps on the first, and a fresh process has no peak to reset."""
    calls: list[Any] = []
    monkeypatch.setattr(torch.cuda, "set_device", lambda given: calls.append(("set", given)))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda given: calls.append(("reset", given)))
    with _numerics(JOB, device):
        assert calls == [("set", index), ("reset", device)]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_last_gpu_is_the_current_one_in_a_job() -> None:
    last = torch.cuda.device_count() - 1
    with _numerics(JOB, f"cuda:{last}"):
        assert torch.cuda.current_device() == last


def test_too_little_memory_is_no_defect_and_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stage(job: Job, context: Context, writer: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore")

    monkeypatch.setattr(module, "import_stage", lambda name: stage)
    with pytest.raises(
        JobError, match=r"cpu has too little memory for prepare-data \(CUDA out of .* 2 GiB\.\); let fewer"
    ):
        run_job(JOB, Context(Store(tmp_path)))


def test_the_beginning_is_told_only_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever computes along must not begin where the artifact is there."""
    told: list[str] = []

    def stage(job: Job, context: Context, writer: Any) -> None:
        told.append("stage")
        (writer.out / "x").write_text("x")

    monkeypatch.setattr(module, "import_stage", lambda name: stage)
    context = Context(Store(tmp_path))
    assert run_job(JOB, context, on_begin=lambda: told.append("begin"))
    assert told == ["begin", "stage"]
    assert not run_job(JOB, context, on_begin=lambda: told.append("begin"))
    assert told == ["begin", "stage"]
