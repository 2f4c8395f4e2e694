"""Run prepare-data in a folder, without a plan or a store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from roarline.artifacts.dataset import DATASET_FILE
from roarline.artifacts.store import Store, Writer
from roarline.config.datasets import DATASETS
from roarline.stages.job import Context, Job, Progress
from roarline.stages.prepare_data import run


def _silent(done: int, total: int, unit: str) -> None:
    pass


def prepare(
    folder: Path,
    dataset: str,
    root: Path | None = None,
    *,
    progress: Progress = _silent,
    threads: int = 2,
    **changed: Any,
) -> Path:
    """Make ``dataset.h5`` and return its path; ``changed`` parameters differ from the configuration's defaults."""
    parameters = {
        "dataset": dataset, "params": {}, "validation_fraction": 0.0, "resize_px": None, "crop_px": None,
        "limit": {"train": None, "validation": None, "test": None}, "pack_limit_mb": 4096, "seed": 0, **changed,
    }  # fmt: skip
    if dataset not in DATASETS:
        parameters["dotted_path"] = dataset
    writer = Writer(folder / "out", folder / "parts")
    writer.out.mkdir(parents=True, exist_ok=True)
    writer.parts.mkdir(exist_ok=True)
    job = Job("prepare-data", 1, "0" * 64, "prepare-data", parameters, {}, {"root": root and str(root)})
    run(job, Context(Store(folder / "store"), progress=progress, loader_threads=threads), writer)
    return writer.out / DATASET_FILE
