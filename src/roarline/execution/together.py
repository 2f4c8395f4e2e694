"""A stage that several processes make together, as torchrun starts them. Imports torch.

The first process makes what the stage reads, holds the right to write, and publishes; the others compute with it and
write nowhere.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import torch
from torch import distributed

from roarline.artifacts.store import Store
from roarline.config.experiment import Runtime
from roarline.errors import UserInputError
from roarline.execution.planned import Plan
from roarline.execution.run import RunResult, run_plan
from roarline.execution.run_job import follow_job, run_job
from roarline.stages.job import Context, Job

SHARED_STAGES = ("train-cls", "train-explainer")
_LONGEST_STEP = timedelta(days=2)


def run_together(plan: Plan, store: Store, stage: str) -> RunResult | None:
    """Make the artifacts of one stage, one after the other, in all processes.

    Returns:
        How it went, in the first process; None in the others.

    Raises:
        UserInputError: The stage trains nothing, or there are fewer GPUs than processes.
    """
    if stage not in SHARED_STAGES:
        raise UserInputError(
            f"{stage} can't be shared by the processes of torchrun, only {' and '.join(SHARED_STAGES)}; start it as "
            "`roarline` does"
        )
    started = time.perf_counter()
    own = [job for job in plan.of(stage) if job.stage == stage]
    others = [job for job in plan.needed_by(stage) if job not in own]
    with _group(plan.experiment.runtime) as (rank, device):
        wanted = [[job.key for job in own if not store.exists(job.stage, job.key)]]
        made = run_plan(replace(plan, jobs=others), store).made if rank == 0 and wanted[0] else 0
        distributed.broadcast_object_list(wanted, src=0)
        context = Context(store, device, loader_threads=plan.experiment.runtime.loader_threads)
        for job in own:
            if job.key in wanted[0]:
                made += _lead(job, context) if rank == 0 else _follow(job, context)
        distributed.barrier()
    cached = len(own) + len(others) - made
    return RunResult(made, cached, time.perf_counter() - started) if rank == 0 else None


def _lead(job: Job, context: Context) -> bool:
    """Make an artifact in the first process; the others follow, but where somebody else has made it meanwhile."""
    made = run_job(job, context, on_begin=lambda: distributed.broadcast_object_list([True], src=0))
    if not made:
        distributed.broadcast_object_list([False], src=0)
    return made


def _follow(job: Job, context: Context) -> bool:
    told: list[bool] = [False]
    distributed.broadcast_object_list(told, src=0)
    if told[0]:
        follow_job(job, context)
    return False


@contextmanager
def _group(runtime: Runtime) -> Iterator[tuple[int, str]]:
    """The process group: which process this is, and its device."""
    local = int(os.environ.get("LOCAL_RANK", "0"))
    on_gpu = runtime.device != "cpu" and torch.cuda.is_available()
    if on_gpu:
        if local >= torch.cuda.device_count():
            raise UserInputError(
                f"torchrun started process {local} of this machine, which has {torch.cuda.device_count()} CUDA "
                "devices: start as many as there are, or set runtime.device: cpu"
            )
        torch.cuda.set_device(local)
    elif runtime.device not in ("cpu", "auto"):
        raise UserInputError(f"runtime.device is {runtime.device!r}, but torch sees no CUDA device; use cpu or auto")
    distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=_LONGEST_STEP)
    try:
        yield distributed.get_rank(), f"cuda:{local}" if on_gpu else "cpu"
    finally:
        distributed.destroy_process_group()
