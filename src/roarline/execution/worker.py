"""A worker process: takes jobs from a pipe, runs them, says how it goes. Imports torch only when it starts to work."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

from roarline.artifacts.store import Store
from roarline.errors import RoarlineError
from roarline.execution.allocator import give_back_freed_memory, keep_freed_memory
from roarline.stages.job import Context, Job

_PROGRESS_EVERY_S = 0.2


@dataclass(frozen=True)
class Message:
    """What a worker says about the job it has."""

    kind: Literal["progress", "waiting", "made", "cached", "failed"]
    text: str = ""
    exit_code: int = 1
    done: int = 0
    total: int = 0


def work(pipe: Connection, root: Path, device: str, loader_threads: int) -> None:
    """The worker's main loop; ends when told None, or when its parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    import torch

    torch.set_num_interop_threads(1)
    keep_freed_memory()
    context = Context(Store(root), device, loader_threads=loader_threads)
    while (job := pipe.recv()) is not None:
        message = attempt(job, context, pipe)
        give_back_freed_memory()
        pipe.send(message)


def attempt(job: Job, context: Context, pipe: Connection) -> Message:
    """Run one job and say how it ended; every failure is recorded for ``roarline status``."""
    from roarline.execution.run_job import run_job

    last = 0.0

    def progress(done: int, total: int, unit: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _PROGRESS_EVERY_S or done == total:
            last = now
            pipe.send(Message("progress", unit, done=done, total=total))

    context.progress = progress
    try:
        made = run_job(job, context, on_wait=lambda: pipe.send(Message("waiting")))
    except RoarlineError as error:
        context.store.record_failure(job.stage, job.key, str(error))
        return Message("failed", str(error), error.exit_code)
    except MemoryError:
        message = "out of memory; a smaller batch size, or fewer workers, needs less"
        context.store.record_failure(job.stage, job.key, message)
        return Message("failed", message)
    except Exception as error:  # noqa: BLE001 - the worker must survive a defect in one job and report it
        message = f"{type(error).__name__}: {error}"
        context.store.record_failure(job.stage, job.key, message)
        return Message("failed", f"{message}\n{traceback.format_exc()}")
    return Message("made" if made else "cached")


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
