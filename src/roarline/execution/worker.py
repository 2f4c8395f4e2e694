"""A worker process: takes jobs from a pipe, runs them, says how it goes. Imports torch only when it starts to work."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

from roarline.artifacts.store import Store
from roarline.errors import RoarlineError
from roarline.execution.allocator import give_back_freed_memory, keep_freed_memory
from roarline.execution.stacks import stacked
from roarline.stages.job import Context, Job

_PROGRESS_EVERY_S = 0.2


@dataclass(frozen=True)
class Message:
    """What a worker says about the job it has.

    Attributes:
        defect: True where something other than a deliberate error ended a job. On a GPU it may have left the process
            unable to use it: CUDA answers every later call with the same error.
    """

    kind: Literal["progress", "waiting", "made", "cached", "failed"]
    text: str = ""
    exit_code: int = 1
    done: int = 0
    total: int = 0
    defect: bool = False


def work(pipe: Connection, root: Path, device: str, loader_threads: int) -> None:
    """The worker's main loop; ends when told None, or when its parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    import torch

    torch.set_num_interop_threads(1)
    keep_freed_memory()
    context = Context(Store(root), device, loader_threads=loader_threads)
    while (jobs := pipe.recv()) is not None:
        messages = attempt_stack(jobs, context, pipe)
        give_back_freed_memory()
        pipe.send(messages)


def attempt_stack(jobs: Sequence[Job], context: Context, pipe: Connection) -> dict[str, Message]:
    """Run the jobs of a stack, which may be one, and say how each ended; every failure is recorded.

    Args:
        jobs: See ``stacks.in_stacks``.
        pipe: Is told of progress, in all of the stack.

    Returns:
        Key to the last message of each job.
    """
    from roarline.execution.run_job import run_job, run_stack

    last = 0.0

    def progress(done: int, total: int, unit: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _PROGRESS_EVERY_S or done == total:
            last = now
            pipe.send(Message("progress", unit, done=done, total=total))

    def waits() -> None:
        pipe.send(Message("waiting"))

    context.progress = progress
    outcomes: dict[str, bool | RoarlineError] = {}
    failure: Message | None = None
    recorded = ""
    try:
        if stacked(jobs):
            outcomes = run_stack(jobs, context, on_wait=waits)
        else:
            outcomes = {job.key: run_job(job, context, on_wait=waits) for job in jobs}
    except RoarlineError as error:
        recorded, failure = str(error), Message("failed", str(error), error.exit_code)
    except MemoryError:
        recorded = "out of memory; a smaller batch size, or fewer workers, needs less"
        failure = Message("failed", recorded, defect=True)
    except Exception as error:  # noqa: BLE001 - the worker must survive a defect in one job and report it
        recorded = f"{type(error).__name__}: {error}"
        failure = Message("failed", f"{recorded}\n{traceback.format_exc()}", defect=True)
    messages: dict[str, Message] = {}
    for job in jobs:
        outcome = outcomes.get(job.key)
        if isinstance(outcome, RoarlineError):
            messages[job.key] = Message("failed", str(outcome), outcome.exit_code)
            context.store.record_failure(job.stage, job.key, str(outcome))
        elif outcome is None and failure is not None:
            messages[job.key] = failure
            context.store.record_failure(job.stage, job.key, recorded)
        else:
            messages[job.key] = Message("made" if outcome else "cached")
    return messages


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
