"""A grid of ResNet-8 at CIFAR-10's size on one GPU: training images a second, by engine and number of processes.

Cells of one method on drawn images: two modes by four fractions of the original's network (64, 128 and 256 channels),
batch 256, bfloat16, channels-last, crops and flips. Layouts take turns as in ``grid``: one network at a time in one
process, which is the default; as many cells as there are, stacked; and several processes that share the GPU
(``runtime.workers``). A cell is everything: ranks, removal, recording, epochs with validation, test, files. "Bare" is
no network but the rate that the project asks for; notes tell operations a second. It is asked of the fastest layout, on
a GPU of the class of an H200; that the default engine is the faster one is asked of every GPU.
"""

from __future__ import annotations

import copy
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.cells import STAGE, Layout, in_turns, make_what_is_read
from benchmarks.gpu import AUGMENTATION
from benchmarks.harness import Measurement, Options
from benchmarks.image_rates import against_asked, forward_flop, is_of_the_class, rates
from benchmarks.profiles import profiled
from roarline.artifacts.dataset import DATASET_FILE, DatasetFile
from roarline.artifacts.store import Store
from roarline.config.experiment import Experiment
from roarline.execution.plan import build_plan
from roarline.execution.run_job import run_job
from roarline.models.build import build
from roarline.stages.job import Context, Job

_GOAL, _ENGINE_GOAL = 1.0, 0.95
_METHOD = "random"
_DEFAULT = "single, one process"
LAYOUTS = {
    _DEFAULT: Layout("single", 1),
    "stacked, one process": Layout("stacked", 1),
    "single, two processes": Layout("single", 2),
    "single, four processes": Layout("single", 4),
}


@dataclass(frozen=True)
class Grid:
    """What is trained.

    Attributes:
        images: Of the training split.
        others: Of the validation and of the test split, each.
        fractions: In both modes.
    """

    arch: str = "resnet8"
    side_px: int = 32
    batch_size: int = 256
    images: int = 20_000
    others: int = 2_000
    epochs: int = 10
    fractions: Sequence[float] = (0.1, 0.3, 0.5, 0.7)

    def experiment(self, layout: Layout, device: str) -> dict[str, Any]:
        """A configuration of its cells."""
        training = {
            "batch_size": self.batch_size, "precision": "bfloat16", "channels_last": True,
            "scheduler": {"name": "one_cycle"}, "augmentation": dict(AUGMENTATION),
        }  # fmt: skip
        drawn = self.images + self.others
        return {
            "name": "grid-on-gpu",
            "data": {
                "dataset": "shapes",
                "params": {"size_px": self.side_px, "train": drawn, "test": self.others, "max_shapes": 1},
                "validation_fraction": self.others / drawn,
            },
            "model": {"arch": self.arch},
            "train-cls": {**training, "epochs": 1},
            "attribution": {"methods": [{"name": _METHOD}], "baselines": []},
            STAGE: {
                "fractions": list(self.fractions), "modes": ["roar", "kar"], "repeats": 1, "probe_repeats": 0,
                "training": {**training, "epochs": self.epochs}, "engine": layout.engine, "threads": layout.threads,
            },
            "runtime": {"device": device, "workers": layout.workers},
        }  # fmt: skip


GRID = Grid()
QUICK_GRID = Grid(images=2_048, others=256, epochs=2, fractions=(0.5,))


def measure(options: Options) -> Iterator[Measurement]:
    """Each layout against the rate that is asked for, then the default against each of the others."""
    yield from measure_grid(QUICK_GRID if options.quick else GRID, LAYOUTS, options)


def measure_grid(grid: Grid, layouts: Mapping[str, Layout], options: Options) -> Iterator[Measurement]:
    """The lines of one grid; the first layout is the default."""
    device = "cuda:0" if options.device == "cuda" else options.device
    with tempfile.TemporaryDirectory(prefix="roarline-grid-") as folder:
        store = Store(folder)
        cells = {layout: cells_of(grid, layout, device, store) for layout in layouts.values()}
        first = next(iter(cells.values()))
        trained = _training_images(store, first[0])
        seconds = in_turns(store, cells, device, options, first=max(layout.workers for layout in cells))
        if options.profile:
            run_job(first[-1], Context(store, device))  # the first in this process
            said = profiled(lambda: run_job(first[0], Context(store, device)), device)
            print(f"grid {grid.arch}, a cell by itself, files and all:\n{said}", file=sys.stderr)
    found = {name: seconds[layout] for name, layout in layouts.items()}
    yield from lines_of(grid, found, len(first), trained, is_of_the_class(device))


def cells_of(grid: Grid, layout: Layout, device: str, store: Store) -> list[Job]:
    """The cells, all that they read made."""
    plan = build_plan(Experiment.model_validate(grid.experiment(layout, device)))
    cells = [job for job in plan.of(STAGE) if job.parameters["mode"] != "reference"]
    make_what_is_read(store, plan.jobs, cells, device)
    return cells


def _training_images(store: Store, cell: Job) -> int:
    """Of one epoch of a cell."""
    stage, key = cell.inputs["dataset"]
    with DatasetFile(store.open(stage, key).file(DATASET_FILE)) as dataset:
        return len(dataset.rows("train"))


def lines_of(
    grid: Grid, seconds: Mapping[str, list[float]], cells: int, images: int, asked: bool
) -> Iterator[Measurement]:
    """What the turns told.

    Args:
        seconds: Of each layout's turns, the default's first.
        cells: In each turn.
        images: Of a training split.
        asked: True where the rate is asked for.
    """
    flop = forward_flop(build(grid.arch, {}, 10, input_size=None, seed=0), grid.side_px)
    fastest = min(seconds, key=lambda name: statistics.median(seconds[name]))
    default = next(iter(seconds))
    line = Measurement(
        hot_path="grid",
        network=grid.arch,
        setting="",
        images=images * cells,
        passes=images * cells * grid.epochs,
        pass_kind="training image",
        bare_choice="",
        goal=None,
    )
    for name, turns in seconds.items():
        own = copy.copy(line)
        own.setting, own.ours_s = f"{grid.side_px} px, bfloat16, channels-last, {cells} cells, {name}", turns
        own.goal = _GOAL if asked and name == fastest else None
        own.note = rates(own, flop)
        yield against_asked(own)
    for name, turns in seconds.items():
        if name != default:
            own = copy.copy(line)
            own.setting, own.bare_choice = f"{grid.side_px} px, default ({default}) against {name}", name
            own.ours_s, own.bare_s = seconds[default], turns
            own.goal = _ENGINE_GOAL if name.startswith("stacked") else None
            yield own
