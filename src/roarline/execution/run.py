"""Run what a plan asks for, skipping what exists; show how it goes. Imports torch only where work is left."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from roarline.artifacts.store import Store
from roarline.config.experiment import Runtime
from roarline.errors import JobError, RoarlineError
from roarline.execution.devices import worker_devices
from roarline.execution.executor import NOT_RUN, Executor
from roarline.execution.local import LocalExecutor
from roarline.execution.planned import Plan
from roarline.execution.shards import in_shards
from roarline.execution.worker import Message
from roarline.stages.job import Job

_LOG_EVERY_S = 30.0


class RunError(JobError):
    """At least one job failed; the rest was done and is kept."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class RunResult:
    """How many jobs were made now, and how many existed."""

    made: int
    cached: int
    seconds: float


def run_plan(plan: Plan, store: Store, stage: str | None = None) -> RunResult:
    """Run an experiment, or what one stage of it needs.

    Raises:
        RunError: At least one job failed; names each, with exit code 2 where only the user's input was wrong.
    """
    started = time.perf_counter()
    jobs = plan.jobs if stage is None else plan.needed_by(stage)
    done = {job.key for job in jobs if store.exists(job.stage, job.key)}
    todo = needed(jobs, done)
    if not todo:
        return RunResult(0, len(jobs), time.perf_counter() - started)
    runtime = plan.experiment.runtime
    todo = in_shards(todo, runtime.shards)
    done |= {job.key for job in todo if store.exists(job.stage, job.key)}
    executor = choose_executor(runtime, store, len(todo))
    with _Console(todo) as console:
        failed = executor.run(todo, done, console)
        made = console.made
    if failed:
        raise _failure(todo, failed)
    return RunResult(made, len(jobs) - made, time.perf_counter() - started)


def choose_executor(runtime: Runtime, store: Store, jobs: int) -> Executor:
    """The executor that the configuration names, for so many jobs.

    Raises:
        UserInputError: The device that was asked for isn't there.
    """
    if runtime.executor == "ray":
        from roarline.execution.ray_executor import RayExecutor

        return RayExecutor(
            store.root.absolute(),
            runtime.address,
            runtime.device,
            runtime.gpus_per_job,
            None if runtime.workers == "auto" else runtime.workers,
            runtime.loader_threads,
        )
    devices, cpu_threads = worker_devices(runtime)
    return LocalExecutor(store.root, devices[: max(1, jobs)], cpu_threads, runtime.loader_threads)


def needed(jobs: list[Job], done: set[str]) -> list[Job]:
    """Jobs that must run: those that don't exist and are wanted by a final result that doesn't exist.

    An input that is missing though everything made from it exists (dropped to save space, say) is not made again.
    """
    read = {key for job in jobs for _, key in job.inputs.values()}
    wanted: set[str] = set()
    for job in reversed(jobs):
        if job.key in done:
            continue
        if job.key in wanted or job.key not in read:
            wanted |= {job.key} | {key for _, key in job.inputs.values()}
    return [job for job in jobs if job.key in wanted and job.key not in done]


def _failure(jobs: list[Job], failed: dict[str, Message]) -> RoarlineError:
    own = [(job, failed[job.key]) for job in jobs if job.key in failed and not failed[job.key].text.startswith(NOT_RUN)]
    waiting = len(failed) - len(own)
    lines = equal_failures((job, message.text) for job, message in own)
    if waiting:
        lines.append(
            f"{waiting} more job{'s' if waiting > 1 else ''} not run, waiting on the above; what was finished is kept"
        )
    return RunError("\n".join(lines), 2 if all(message.exit_code == 2 for _, message in own) else 1)


def equal_failures(failed: Iterable[tuple[Job, str]]) -> list[str]:
    """A line for each different message, with the first job that failed so and how many more did."""
    by_text: dict[str, list[str]] = {}
    for job, text in failed:
        by_text.setdefault(text, []).append(job.label)
    return [
        f"{labels[0]}{f' and {len(labels) - 1} more' if len(labels) > 1 else ''}: {text}"
        for text, labels in by_text.items()
    ]


class _Console:
    """Progress on the terminal: one bar over all jobs; plain lines now and then where there is no terminal."""

    def __init__(self, jobs: list[Job]) -> None:
        self.made = 0
        self._total, self._ended, self._last_line = len(jobs), 0, time.monotonic()
        self._running: dict[str, str] = {}
        self._failures: set[str] = set()
        self._started: dict[str, float] = {}
        self._interactive = sys.stderr.isatty()
        self._bar: Any = tqdm(total=len(jobs), unit="job", disable=not self._interactive, dynamic_ncols=True)

    def __enter__(self) -> _Console:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def started(self, job: Job) -> None:
        """A job was given to a worker."""
        self._running[job.key] = job.label
        self._started[job.key] = time.monotonic()
        self._show()

    def said(self, job: Job, message: Message) -> None:
        """A job made progress, or waits."""
        if message.kind == "waiting":
            self._line(f"{job.label}: {message.text or 'another process is making it; waiting'}")
            return
        share = f"{message.done}/{message.total} {message.text}"
        seconds = time.monotonic() - self._started[job.key]
        if message.done and seconds > 1:
            rate = message.done / seconds
            share += f", {rate:.3g}/s, {_duration((message.total - message.done) / rate)} left"
        self._running[job.key] = f"{job.label} {share}"
        self._show()

    def ended(self, job: Job, message: Message) -> None:
        """A job was made, found, or failed."""
        self._running.pop(job.key, None)
        self._ended += 1
        self.made += message.kind == "made" and job.shard_of is None
        self._bar.update()
        if message.kind == "failed" and message.text.startswith(NOT_RUN):
            return
        if message.kind == "failed":
            if message.text not in self._failures:  # the same again is counted at the end
                self._line(f"FAILED {job.label}: {message.text.splitlines()[0]}")
            self._failures.add(message.text)
        elif job.cost >= 2:
            seconds = time.monotonic() - self._started.get(job.key, time.monotonic())
            self._line(f"[{self._ended}/{self._total}] {job.label} ({_duration(seconds)})")
        self._show()

    def _show(self) -> None:
        self._bar.set_postfix_str("; ".join(self._running.values()), refresh=True)
        if not self._interactive and time.monotonic() - self._last_line >= _LOG_EVERY_S:
            self._line(f"[{self._ended}/{self._total}] {'; '.join(self._running.values())}")

    def _line(self, text: str) -> None:
        self._last_line = time.monotonic()
        if self._interactive:
            self._bar.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {seconds:02d} s"
