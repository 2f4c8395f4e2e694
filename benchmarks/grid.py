"""The digits grid by each engine and layout of workers, in turns: is what `auto` takes the fastest?

A turn makes the same cells in each layout, by the local executor, with workers that have been started and have made a
cell before (starting one takes some seconds, once in a run). A cell is everything: maps ranked, pixels removed, network
trained and tested, artifact published. Every line compares the default layout with another one: its efficiency is the
other's time ÷ the default's. On a GPU another grid is made, see ``grid_on_gpu``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks import grid_on_gpu
from benchmarks.cells import STAGE, Layout, in_turns, make_what_is_read
from benchmarks.harness import Measurement, Options
from roarline.artifacts.store import Store
from roarline.config.load import load_experiment
from roarline.execution.engines import stack_size
from roarline.execution.plan import build_plan
from roarline.stages.job import Job

_CONFIG = Path(__file__).parents[1] / "configs" / "digits.yaml"
_GOAL = 0.95
_CELLS, _QUICK_CELLS = 10, 4  # a stack for each of two workers
_METHOD = "random"
_LAYOUTS = {
    "stacked, two processes": Layout("stacked", 2, 1),
    "single, one process with both cores": Layout("single", 1, 2),
    "single, two processes": Layout("single", 2, 1),
    "stacked, one process with both cores": Layout("stacked", 1, 2),
}
_DEFAULT = "stacked, two processes"


def measure(options: Options) -> Iterator[Measurement]:
    """A line for each other layout, whatever ``options.networks`` names; on a GPU those of its own grid."""
    if options.on_gpu:
        yield from grid_on_gpu.measure(options)
        return
    with tempfile.TemporaryDirectory(prefix="roarline-grid-") as folder:
        store = Store(folder)
        cells = {layout: _cells(store, layout, options) for layout in _LAYOUTS.values()}
        seconds = in_turns(store, cells, "cpu", options, first=_CELLS)
    default = cells[_LAYOUTS[_DEFAULT]]
    for name, layout in _LAYOUTS.items():
        if name != _DEFAULT:
            yield Measurement(
                hot_path="grid",
                network="small_cnn",
                setting=f"digits, default ({_DEFAULT}) against {name}",
                images=len(default),
                passes=len(default) * default[0].parameters["training"]["epochs"],
                pass_kind="epoch of a cell",
                bare_choice=name,
                goal=_GOAL,
                ours_s=seconds[_LAYOUTS[_DEFAULT]],
                bare_s=seconds[layout],
            )


def _cells(store: Store, layout: Layout, options: Options) -> list[Job]:
    """Some cells of one method, or the whole grid, all that they read made."""
    words = [
        f"{STAGE}.engine={layout.engine}",
        f"{STAGE}.threads={layout.threads}",
        f"runtime.workers={layout.workers}",
        "runtime.device=cpu",
    ]
    words += (
        ["attribution.baselines=[]", f"{STAGE}.probe_repeats=0"]
        if options.whole
        else [f"attribution.methods=[{{name: {_METHOD}}}]"]
    )
    if options.quick:
        words.append("train-cls.epochs=1")
    experiment = load_experiment(_CONFIG, words)
    plan = build_plan(experiment)
    cells = plan.of(STAGE)
    if not options.whole:
        of_method = [job for job in cells if f"{STAGE} {_METHOD}" in job.label]
        cells = of_method[: _QUICK_CELLS if options.quick else max(_CELLS, stack_size(experiment))]
    make_what_is_read(store, plan.jobs, cells, "cpu")
    return cells
