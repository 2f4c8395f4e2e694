"""The digits grid by each engine and layout of workers, in turns: is what `auto` takes the fastest?

A turn makes the same cells in each layout, by the local executor, with workers that have been started and have made a
cell before (starting one takes some seconds, once in a run). A cell is everything: maps ranked, pixels removed, network
trained and tested, artifact published. Every line compares the default layout with another one: its efficiency is the
other's time ÷ the default's.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.harness import Measurement, Options, timed
from roarline.artifacts.store import Store
from roarline.config.load import load_experiment
from roarline.execution.engines import stack_size
from roarline.execution.local import LocalExecutor
from roarline.execution.plan import build_plan
from roarline.stages.job import Job

_CONFIG = Path(__file__).parents[1] / "configs" / "digits.yaml"
_GOAL = 0.95
_CELLS = 10  # a stack for each of two workers
_METHOD = "random"
# Name to engine, workers and threads of a job.
_LAYOUTS = {
    "stacked, two processes": ("stacked", 2, 1),
    "single, one process with both cores": ("single", 1, 2),
    "single, two processes": ("single", 2, 1),
    "stacked, one process with both cores": ("stacked", 1, 2),
}
_DEFAULT = "stacked, two processes"


class _Kept(LocalExecutor):
    """A local executor whose workers stay from one run to the next."""

    def close(self) -> None:
        """Wait for ``end``."""

    def end(self) -> None:
        """Stop the workers."""
        super().close()


class _Silent:
    """Hears how jobs go, and fails where one does."""

    def started(self, job: Job) -> None: ...
    def said(self, job: Job, message: Any) -> None: ...

    def ended(self, job: Job, message: Any) -> None:
        """Raise where a cell was not made."""
        if message.kind != "made":
            raise RuntimeError(f"{job.label}: {message.text}")


def measure(options: Options) -> Iterator[Measurement]:
    """A line for each other layout; on a CPU, whatever ``options.networks`` names."""
    if options.device != "cpu":
        return
    with tempfile.TemporaryDirectory(prefix="roarline-grid-") as folder:
        store = Store(folder)
        cells = {name: _cells(store, *layout, whole=options.whole) for name, layout in _LAYOUTS.items()}
        executors = {
            name: _Kept(store.root, ["cpu"] * workers, cpu_threads=None) for name, (_, workers, _) in _LAYOUTS.items()
        }
        seconds: dict[str, list[float]] = {name: [] for name in _LAYOUTS}
        try:
            for turn in range(2 if options.quick else options.alternations + 1):  # the first starts the workers
                names = list(_LAYOUTS)
                for name in names if turn % 2 else reversed(names):
                    some = cells[name] if turn else cells[name][:_CELLS]
                    took = timed(lambda name=name, some=some: _make(executors[name], some), "cpu")  # type: ignore[misc]
                    shutil.rmtree(store.root / "evaluate-roar")
                    if turn:
                        seconds[name].append(took)
        finally:
            for executor in executors.values():
                executor.end()
    count, epochs = len(cells[_DEFAULT]), cells[_DEFAULT][0].parameters["training"]["epochs"]
    for name in _LAYOUTS:
        if name != _DEFAULT:
            yield Measurement(
                hot_path="grid",
                network="small_cnn",
                setting=f"digits, default ({_DEFAULT}) against {name}",
                images=count,
                passes=count * epochs,
                pass_kind="epoch of a cell",
                bare_choice=name,
                goal=_GOAL,
                ours_s=seconds[_DEFAULT],
                bare_s=seconds[name],
            )


def _cells(store: Store, engine: str, workers: int, threads: int, *, whole: bool) -> list[Job]:
    """Some cells of one method, or the whole grid, all that they read made."""
    words = [
        f"evaluate-roar.engine={engine}",
        f"evaluate-roar.threads={threads}",
        f"runtime.workers={workers}",
        "runtime.device=cpu",
    ]
    words += (
        ["attribution.baselines=[]", "evaluate-roar.probe_repeats=0"]
        if whole
        else [f"attribution.methods=[{{name: {_METHOD}}}]"]
    )
    experiment = load_experiment(_CONFIG, words)
    plan = build_plan(experiment)
    cells = plan.of("evaluate-roar")
    if not whole:
        of_method = [job for job in cells if f"evaluate-roar {_METHOD}" in job.label]
        cells = of_method[: max(_CELLS, stack_size(experiment))]
    read = {key for job in cells for _, key in job.inputs.values()}
    stages = ("prepare-data", "train-cls", "extract-attribution-maps")
    before = [job for job in plan.jobs if job.stage in stages and (job.key in read or job.stage != stages[-1])]
    done = {job.key for job in before if store.exists(job.stage, job.key)}
    LocalExecutor(store.root, ["cpu"], cpu_threads=None).run(before, done, _Silent())
    return cells


def _make(executor: LocalExecutor, cells: list[Job]) -> None:
    executor.run(cells, {key for job in cells for _, key in job.inputs.values()}, _Silent())
