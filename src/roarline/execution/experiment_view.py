"""The readable view of one experiment: ``artifacts/experiments/<name>/``. Imports no torch."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from roarline.artifacts.comparison_tables import COMPARISON_TABLES
from roarline.artifacts.files import atomic_path, read_json, write_json
from roarline.artifacts.store import Store
from roarline.errors import ArtifactError
from roarline.execution.planned import Plan


def write_view(plan: Plan, store: Store) -> Path:
    """Bring ``experiment.json``, ``scores.csv``, ``statistics/`` and ``report/index.html`` up to date.

    Unchanged files aren't touched.

    Returns:
        The folder.

    Raises:
        ArtifactError: A table or the page was damaged since it was made.
    """
    folder = store.root / "experiments" / plan.experiment.name
    jobs = [
        {"stage": job.stage, "key": job.key, "label": job.label, "done": store.exists(job.stage, job.key)}
        for job in plan.jobs
    ]
    view: dict[str, Any] = {
        "schema_version": 1,
        "name": plan.experiment.name,
        "configuration": plan.experiment.model_dump(mode="json", by_alias=True, exclude={"runtime"}),
        "jobs": jobs,
    }
    path = folder / "experiment.json"
    if _known(path) != view:
        write_json(path, view)
    for stage, name, target in (
        ("aggregate-scores", "scores.csv", "scores.csv"),
        *(("aggregate-scores", f"{name}.csv", f"statistics/{name}.csv") for name in COMPARISON_TABLES),
        ("report", "index.html", "report/index.html"),
    ):
        for job in plan.of(stage):
            if store.exists(stage, job.key):
                _copy(store.open(stage, job.key).file(name), folder / target)
    return folder


def _known(path: Path) -> Any:
    """The view as it stands; None where there is none, or a damaged one, which is then written anew."""
    try:
        return read_json(path)
    except ArtifactError:
        return None


def _copy(source: Path, target: Path) -> None:
    if (
        target.exists()
        and target.stat().st_size == source.stat().st_size
        and target.read_bytes() == source.read_bytes()
    ):
        return
    with atomic_path(target) as partial:
        shutil.copyfile(source, partial)
