"""The grid of the demo's digits against a plain PyTorch loop: seconds a cell, and which factor comes from where.

Ours is the whole grid of ``configs/digits.yaml``, 150 cells and a reference for each repeat, as ``roarline run`` makes
it once the maps are there: start of workers, files and digests included. The plain loop trains the same network with
the same batch, epochs and optimiser, at the fastest of 0, 1 and 2 workers; of it a cell is measured. Then what it has
and roarline has not is taken away piece by piece.
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
    """Seconds of each turn.

    Attributes:
        cells: Trainings of the grid.
        grid_s: The grid, by roarline.
        plain_s: A cell, by what was left of the plain loop.
        workers: Of the plain loop's DataLoader, where it is fastest.
        workers_s: Seconds of a cell for each number of workers.
        problem: Why there is nothing to compare, or "".
        goal: The ratio that the project asks for.
    """

    cells: int
    grid_s: list[float] = field(default_factory=list)
    plain_s: dict[str, list[float]] = field(default_factory=dict)
    workers: int = 0
    workers_s: dict[int, float] = field(default_factory=dict)
    problem: str = ""
    goal: float = 2.5

    @property
    def ratio(self) -> float:
        """The plain loop's time for as many cells ÷ ours, the median of the turns."""
        return statistics.median(
            self.cells * plain / grid for plain, grid in zip(self.plain_s[FILES], self.grid_s, strict=True)
        )

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
        grid = statistics.median(self.grid_s)
        ours = grid / self.cells
        yield f"| roarline, its grid of {self.cells} cells in {grid:.1f} s | {ours:.3f} | {(before or 0) / ours:.2f} |"
        yield ""
        yield f"{self.ratio:.1f} times faster than the plain loop (goal {self.goal})"


def compare(options: Options, python: str) -> Retraining:
    """Let the plain loop and roarline take turns."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plan, store = _plan(folder, options), Store(folder / "artifacts")
        run_plan(plan, store, _EXTRACTION)
        settings = _write_pngs(folder / "png", plan, store, options)
        found = Retraining(cells=len(plan.of(_STAGE)))
        with _plain_loops(settings, found, python, options) as loops:
            if found.problem:
                return found
            for _ in range(options.turns):
                for way, loop in loops.items():
                    found.plain_s.setdefault(way, []).append(loop.run())
                found.grid_s.append(_grid(plan, store))
                ours = found.grid_s[-1] / found.cells
                print(f"a cell: ours {ours:.2f} s, plain {found.plain_s[FILES][-1]:.2f} s", file=sys.stderr)
    return found


def _plan(folder: Path, options: Options) -> Plan:
    """The demo's grid without what rides along, or a corner of it."""
    changes = [
        f"runtime.artifacts={folder / 'artifacts'}", f"runtime.device={options.device}", "attribution.baselines=[]",
        "evaluate-roar.probe_repeats=0",
    ]  # fmt: skip
    if options.quick:
        changes += [
            "evaluate-roar.repeats=1", "evaluate-roar.fractions=[0.3]", "train-cls.epochs=1",
            f"attribution.methods=[{{name: {_METHOD}, params: {{layer: conv2}}}}]",
        ]  # fmt: skip
    return build_plan(load_experiment(_CONFIG, changes))


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
