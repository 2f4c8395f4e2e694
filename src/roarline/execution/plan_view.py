"""`roarline plan`: the jobs of an experiment, what exists of them, how large the rest will be. Imports no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from roarline.artifacts.keys import short
from roarline.artifacts.store import Store
from roarline.execution.plan import Plan
from roarline.execution.prepared import load
from roarline.execution.run import needed
from roarline.stages import STAGES


def show_plan(config: Path, overrides: Sequence[str]) -> None:
    """`roarline plan`."""
    plan, store = load(config, overrides)
    done = {job.key for job in plan.jobs if store.exists(job.stage, job.key)}
    todo = {job.key for job in needed(plan.jobs, done)}
    expected = _ExpectedSizes(plan, store)
    print(f"{'state':<9} {'key':<16} {'size':>9}  job")
    for job in plan.jobs:
        exists = job.key in done
        state = "cached" if exists else "pending" if plan.pending else "to do" if job.key in todo else "not needed"
        size = in_bytes(size_on_disk(store.path(job.stage, job.key))) if exists else expected.of(job.parameters)
        print(f"{state:<9} {short(job.key) if not plan.pending else '-':<16} {size:>9}  {job.label}")
    count = Counter(job.stage for job in plan.jobs)
    print(f"\n{len(plan.jobs)} jobs, {len(todo)} to do: " + ", ".join(f"{count[s]} {s}" for s in STAGES if count[s]))
    if plan.pending:
        print(f"pending: {plan.pending}")


class _ExpectedSizes:
    """Expected sizes of maps, where the data set is there to tell; it is asked once."""

    def __init__(self, plan: Plan, store: Store) -> None:
        self._plan, self._store = plan, store

    @cached_property
    def _dataset(self) -> tuple[int, dict[str, int]] | None:
        """Pixels of an image, and rows of each split; None where the data set isn't there, or sizes differ."""
        data = self._plan.of("prepare-data")[0]
        if not self._store.exists(data.stage, data.key):
            return None
        from roarline.artifacts.dataset import DATASET_FILE, SPLITS, DatasetFile

        with DatasetFile(self._store.open(data.stage, data.key).path / DATASET_FILE) as dataset:
            if dataset.image_size is None:
                return None
            splits = {split: len(dataset.rows(split)) for split in SPLITS}
            return dataset.image_size[0] * dataset.image_size[1], splits

    def of(self, parameters: Mapping[str, Any]) -> str:
        """Of the artifact that a job makes."""
        if "split" not in parameters or self._dataset is None:
            return ""
        pixels, rows = self._dataset
        values = rows[parameters["split"]] * pixels * (3 if parameters["channels"] == "none" else 1)
        return "~" + in_bytes(values * (2 if parameters["dtype"] == "float16" else 4))


def size_on_disk(folder: Path) -> int:
    """Bytes of all files in a folder and below it."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def in_bytes(count: float) -> str:
    """A number of bytes for people, e.g. ``1.5 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
