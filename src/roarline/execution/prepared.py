"""What commands that run jobs do first: read the config, plan, see that the raw data is there. Imports no torch."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from roarline.artifacts.store import Store
from roarline.config.component import load_object
from roarline.config.datasets import DATASETS
from roarline.config.load import load_experiment
from roarline.errors import ArtifactError, DataError
from roarline.execution.experiment_view import write_view
from roarline.execution.plan import Plan, build_plan
from roarline.execution.planned import PENDING
from roarline.execution.run import RunResult, run_plan


def load(config: Path, overrides: Sequence[str]) -> tuple[Plan, Store]:
    """The plan of a config, and the store that it works in."""
    experiment = load_experiment(config, overrides)
    return build_plan(experiment), Store(experiment.runtime.artifacts)


def obtain_data(plan: Plan) -> Plan:
    """Where the raw data is missing: download it if the data set can be, then plan again with true keys."""
    if plan.pending is None:
        return plan
    data = plan.experiment.data
    component = DATASETS.get(data.dataset)
    if (
        plan.of("prepare-data")[0].parameters["fingerprint"] != PENDING
        or component is None
        or not component.obtain
        or data.root is None
    ):
        raise DataError(plan.pending)
    load_object(component.obtain)(Path(data.root))
    again = build_plan(plan.experiment)
    if again.pending:
        raise DataError(again.pending)
    return again


def run_jobs(plan: Plan, store: Store, stage: str | None = None) -> RunResult:
    """Run with the view written first, so that `gc` knows whose the artifacts are though the run fails or is killed."""
    if any(not store.exists(job.stage, job.key) for job in plan.jobs):
        with contextlib.suppress(ArtifactError):  # an unwritable store is reported by the job that needs it
            write_view(plan, store)
    return run_plan(plan, store, stage)
