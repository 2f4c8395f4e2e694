"""The grid of the demo's digits against a plain PyTorch loop: seconds a cell, and which factor comes from where.

Ours are cells of ``configs/digits.yaml`` as ``roarline run`` makes them, workers and their start included; the grid of
150 cells is reckoned from a small and a larger number of them. The plain loop trains the same network with the same
batch, epochs and optimiser, at the fastest of 0, 1 and 2 workers; then what it has and roarline has not is taken away
piece by piece.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.harness import Options
from benchmarks.peers.environment import ROOT, Peer
from benchmarks.peers.plain_roar import FILES, LOADER, NOTHING, SORTING
from roarline.artifacts.dataset import DATASET_FILE, DatasetFile
from roarline.artifacts.maps import MAPS_FILE, MapsFile
from roarline.artifacts.store import Store
from roarline.config.load import load_experiment
from roarline.execution.plan import Plan, build_plan
from roarline.execution.run import run_plan

GRID_CELLS = 150
_CONFIG = ROOT / "configs" / "digits.yaml"
_STAGE, _EXTRACTION = "evaluate-roar", "extract-attribution-maps"
_METHOD = "gradcam"
_STEPS = (
    (FILES, "the plain loop"),
    (SORTING, "without PNG files: images and maps in memory"),
    (LOADER, "and without an argsort a sample: pixels removed once"),
    (NOTHING, "and without a DataLoader: batches of a resident tensor"),
)


@dataclass
class Retraining:
    """Seconds a cell of each turn.

    Attributes:
        cells: How many cells of ours were made in a turn, beside those that the start was told from.
        start_s: What the start of workers takes.
        ours_s: A cell of ours, all workers at work.
        plain_s: By what was left of the plain loop.
        workers: Of the plain loop's DataLoader, where it is fastest.
        workers_s: Seconds of a cell for each number of workers.
        problem: Why there is nothing to compare, or "".
        goal: The ratio that the project asks for.
    """

    cells: int
    start_s: list[float] = field(default_factory=list)
    ours_s: list[float] = field(default_factory=list)
    plain_s: dict[str, list[float]] = field(default_factory=dict)
    workers: int = 0
    workers_s: dict[int, float] = field(default_factory=dict)
    problem: str = ""
    goal: float = 2.5

    @property
    def ratio(self) -> float:
        """Of the whole grid: the plain loop's time ÷ ours, the median of the turns."""
        plain = self.plain_s[_STEPS[0][0]]
        grids = [start + GRID_CELLS * cell for start, cell in zip(self.start_s, self.ours_s, strict=True)]
        return statistics.median(GRID_CELLS * one / grid for one, grid in zip(plain, grids, strict=True))

    def lines(self) -> Iterator[str]:
        """For people."""
        if self.problem:
            yield f"plain ROAR loop: {self.problem}"
            return
        tried = ", ".join(f"{count}: {seconds:.2f} s" for count, seconds in self.workers_s.items())
        yield f"plain ROAR loop, workers of its DataLoader and a cell's time: {tried}; {self.workers} is taken"
        yield ""
        yield "| a cell of the digits grid | seconds | factor |"
        yield "| --- | --- | --- |"
        before = None
        for way, words in _STEPS:
            seconds = statistics.median(self.plain_s[way])
            yield f"| {words} | {seconds:.3f} | {'' if before is None else f'{before / seconds:.2f}'} |"
            before = seconds
        ours = statistics.median(self.ours_s)
        yield f"| roarline, all workers at work | {ours:.3f} | {(before or 0) / ours:.2f} |"
        yield ""
        yield (
            f"grid of {GRID_CELLS} cells, start of workers included: {self.ratio:.1f} times faster than the plain loop "
            f"(goal {self.goal}); start {statistics.median(self.start_s):.1f} s"
        )


def compare(options: Options, python: str) -> Retraining:
    """Let the plain loop and roarline take turns."""
    turns = 1 if options.quick else min(3, options.alternations)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small, large = _plan(folder, _subset(options)), _plan(folder, _subset(options, large=True))
        store = Store(folder / "artifacts")
        run_plan(large, store, _EXTRACTION)
        settings = _write_pngs(folder / "png", large, store, options)
        found = Retraining(cells=len(large.of(_STAGE)) - len(small.of(_STAGE)))
        with _plain_loops(settings, found, python, options) as loops:
            if found.problem:
                return found
            for _ in range(turns):
                for way, loop in loops.items():
                    found.plain_s.setdefault(way, []).append(loop.run())
                short, long = _grid(small, store), _grid(large, store)
                cell = (long - short) / found.cells
                found.ours_s.append(cell)
                found.start_s.append(max(0.0, short - cell * len(small.of(_STAGE))))
                print(f"a cell: ours {cell:.2f} s, plain {found.plain_s[FILES][-1]:.2f} s", file=sys.stderr)
    return found


def _plan(folder: Path, changes: list[str]) -> Plan:
    return build_plan(load_experiment(_CONFIG, [*changes, f"runtime.artifacts={folder / 'artifacts'}"]))


def _subset(options: Options, *, large: bool = False) -> list[str]:
    """Settings under which the demo's grid has few cells."""
    settings = [
        "attribution.baselines=[]", "evaluate-roar.probe_repeats=0", "evaluate-roar.repeats=1",
        f"evaluate-roar.fractions={[0.3, 0.7] if large and not options.quick else [0.3]}",
        f"evaluate-roar.modes={['roar', 'kar'] if large else ['roar']}",
    ]  # fmt: skip
    if not large or options.quick:
        settings.append(f"attribution.methods=[{{name: {_METHOD}, params: {{layer: conv2}}}}]")
    return settings + (["train-cls.epochs=1"] if options.quick else [])


def _grid(plan: Plan, store: Store) -> float:
    """Seconds of all cells, as ``roarline run`` makes them."""
    for job in plan.of(_STAGE):
        store.drop(job.stage, job.key)
    start = time.perf_counter()
    run_plan(plan, store, _STAGE)
    return time.perf_counter() - start


def _write_pngs(folder: Path, plan: Plan, store: Store, options: Options) -> dict[str, Any]:
    """Images and maps as the plain loop reads them; what it is to train."""
    data = plan.of("prepare-data")[0]
    training = plan.experiment.train_cls
    if training is None:
        raise ValueError(f"{_CONFIG} has no train-cls section")
    labels: dict[str, list[int]] = {}
    with DatasetFile(store.open(data.stage, data.key).file(DATASET_FILE)) as dataset:
        for job in plan.of(_EXTRACTION):
            if job.parameters["method"] != _METHOD:
                continue
            split = job.parameters["split"]
            rows = dataset.rows(split)
            labels[split] = dataset.labels[rows].tolist()
            with MapsFile(store.open(job.stage, job.key).file(MAPS_FILE)) as maps:
                scores = maps.maps([found[0] for found in maps.rows_for([dataset.sample_ids[row] for row in rows])])
            for place, (pixels, map_HW) in enumerate(zip(dataset.pixels(rows), scores, strict=True)):
                spread = max(float(np.ptp(map_HW)), np.finfo(np.float32).tiny)
                for kind, picture in (
                    ("images", pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)),
                    (_METHOD, ((map_HW - map_HW.min()) / spread * 255).astype(np.uint8)),
                ):
                    path = folder / split / kind / f"{place:05d}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(picture).save(path)
        mean, std = (
            [float(value) for value in np.broadcast_to(np.asarray(one), 3)] for one in (dataset.mean, dataset.std)
        )
        classes = dataset.num_classes
    (folder / "labels.json").write_text(json.dumps(labels))
    return {
        "folder": str(folder), "method": _METHOD, "mode": "roar", "fraction": 0.3, "mean": mean, "std": std,
        "epochs": training.epochs, "batch_size": training.batch_size, "lr": training.optimizer.lr,
        "weight_decay": training.optimizer.weight_decay, "width": plan.experiment.model.params["width"],
        "classes": classes, "threads": options.threads, "workers": 0, "way": FILES,
    }  # fmt: skip


@contextmanager
def _plain_loops(
    settings: dict[str, Any], found: Retraining, python: str, options: Options
) -> Iterator[dict[str, Peer]]:
    """The plain loop at its fastest number of workers, and what is left of it step by step, each in its process."""
    for workers in (0,) if options.quick else (0, 1, 2):
        with Peer(python, "plain roar", settings | {"workers": workers}) as loop:
            found.workers_s[workers] = loop.run()
            found.problem = found.problem or loop.problem
    found.workers = min(found.workers_s, key=found.workers_s.__getitem__)
    with ExitStack() as stack:
        yield {
            way: stack.enter_context(
                Peer(python, "plain roar", settings | {"way": way, "workers": found.workers if way == FILES else 0})
            )
            for way, _ in (_STEPS if not found.problem else ())
        }
