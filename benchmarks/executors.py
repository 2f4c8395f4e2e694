"""A retraining grid on a Ray cluster against the same grid with two workers of this machine.

Both make the cells of a small ROAR grid on digits, from the start of their workers to the last artifact, with two CPUs:
Ray on two nodes of one CPU each, started before, the local executor with two processes. The driver's connection to the
cluster and the check of its storage count. "Bare" is no network here but the local executor.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.harness import Measurement, Options, alternate
from roarline.artifacts.store import Store
from roarline.config.load import load_experiment
from roarline.errors import JobError
from roarline.execution.executor import Executor
from roarline.execution.local import LocalExecutor
from roarline.execution.plan import build_plan
from roarline.execution.ray_executor import RayExecutor
from roarline.execution.worker import Message
from roarline.stages.job import Job
from scripts.ray_demo import cluster

_GOAL = 0.9
_REPOSITORY = Path(__file__).parents[1]
_STAGE = "evaluate-roar"
_GRID = ["evaluate-roar.repeats=2", "evaluate-roar.fractions=[0.3, 0.7]", "evaluate-roar.modes=[roar]"]
_GRID += ["evaluate-roar.probe_repeats=0"]
_QUICK_GRID = [*_GRID, "evaluate-roar.repeats=1"]


def measure(options: Options) -> Iterator[Measurement]:
    """The grid of digits.yaml, cut to fewer cells."""
    with cluster() as nodes, tempfile.TemporaryDirectory() as folder, _environment(nodes.environment):
        nodes.add(1)
        nodes.add(1)
        root = Path(folder)
        plan = build_plan(
            load_experiment(_REPOSITORY / "configs" / "digits.yaml", _QUICK_GRID if options.quick else _GRID)
        )
        cells = [job for job in plan.jobs if job.stage == _STAGE]
        before = [job for job in plan.needed_by(_STAGE) if job.stage != _STAGE]
        local, ray = LocalExecutor(root, ["cpu", "cpu"], 2), RayExecutor(root, nodes.address, "cpu")
        done = _make(local, before, set())
        measurement = Measurement(
            hot_path="executors", network="small_cnn", setting="ray, two nodes of one CPU; bare: local, two workers",
            images=len(cells), passes=len(cells), pass_kind="cell", bare_choice="2 workers", goal=_GOAL,
        )  # fmt: skip

        def anew(executor: Executor) -> None:
            for cell in cells:
                Store(root).drop(cell.stage, cell.key)
            _make(executor, cells, set(done))

        yield alternate(measurement, lambda: anew(ray), lambda _: anew(local), options)


def _make(executor: Executor, jobs: list[Job], done: set[str]) -> set[str]:
    failed = executor.run(jobs, done, _Silent())
    if failed:
        raise JobError("\n".join(message.text for message in failed.values()))
    return done


class _Silent:
    """A watcher that says nothing."""

    def started(self, job: Job) -> None: ...
    def said(self, job: Job, message: Message) -> None: ...
    def ended(self, job: Job, message: Message) -> None: ...


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
