"""What every executor does, and what executors share. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from roarline.execution.worker import Message
from roarline.stages.job import Job

NOT_RUN = "not run:"


class Watcher(Protocol):
    """Who is told how the jobs go."""

    def started(self, job: Job) -> None: ...
    def said(self, job: Job, message: Message) -> None: ...
    def ended(self, job: Job, message: Message) -> None: ...


class Executor(Protocol):
    """Runs jobs somewhere: a failed job stops only what depends on it, a job whose worker dies is tried again."""

    def run(self, jobs: Iterable[Job], done: set[str], watcher: Watcher) -> dict[str, Message]:
        """Run jobs in dependency order.

        Args:
            jobs: In an order in which they can run.
            done: Keys of artifacts that exist; grows.
            watcher: Is told of each start, progress and end.

        Returns:
            Key to the last message of each job that failed, or that waits on one that did.
        """
        ...


def is_ready(job: Job, done: set[str]) -> bool:
    """True where everything that a job reads is there."""
    return all(key in done for _, key in job.inputs.values())


def drop_hopeless(queue: list[Job], failed: dict[str, Message], watcher: Watcher) -> None:
    """Take from the queue what waits on a failure, and count it as failed, too."""
    if not failed:  # this is called at every message, and a job may read ten thousand others
        return
    for job in list(queue):
        broken = [stage for stage, key in job.inputs.values() if key in failed]
        if broken:
            queue.remove(job)
            failed[job.key] = Message(
                "failed", f"{NOT_RUN} waits on {broken[0]}, which failed", failed_code(failed, job)
            )
            watcher.ended(job, failed[job.key])


def failed_code(failed: Mapping[str, Message], job: Job) -> int:
    """Exit code of a job that can't run because of the failures it depends on."""
    return max((failed[key].exit_code for _, key in job.inputs.values() if key in failed), default=1)
