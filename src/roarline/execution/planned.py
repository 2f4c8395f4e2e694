"""The jobs of one experiment under plan: how one is added, and what a stage needs. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from roarline.artifacts.files import file_sha256
from roarline.artifacts.keys import artifact_key
from roarline.config.component import UserComponent
from roarline.config.experiment import Experiment
from roarline.config.published_models import is_weights_path
from roarline.stages import STAGES
from roarline.stages.job import Job

PENDING = "pending"
_WITH_CURVES = ("train-cls", "train-explainer")


@dataclass
class Plan:
    """All jobs of one experiment, in an order in which they can run.

    Attributes:
        pending: Why keys are provisional (the raw data is missing), or None.
    """

    experiment: Experiment
    jobs: list[Job] = field(default_factory=list)
    pending: str | None = None
    _by_key: dict[str, Job] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._by_key = {job.key: job for job in self.jobs}

    def of(self, stage: str) -> list[Job]:
        """The jobs of one stage: its own, and those of earlier stages that are made for it alone."""
        return [job for job in self.jobs if (job.asked_by or job.stage) == stage]

    def needed_by(self, stage: str) -> list[Job]:
        """The jobs of one stage and all that they read, directly or not."""
        wanted = {job.key for job in self.of(stage)}
        for job in reversed(self.jobs):
            if job.key in wanted:
                wanted |= {key for _, key in job.inputs.values()}
        return [job for job in self.jobs if job.key in wanted]

    def add(
        self,
        stage: str,
        label: str,
        parameters: Mapping[str, Any],
        inputs: Mapping[str, Job],
        *,
        local: Mapping[str, Any] | None = None,
        cost: float = 1.0,
        asked_by: str | None = None,
    ) -> Job:
        """Plan a job, or find the one that has its recipe.

        Args:
            inputs: Role to a job that was planned before.
            asked_by: See ``Job``.
        """
        version = STAGES[stage].version
        key = artifact_key(stage, version, parameters, {role: job.key for role, job in inputs.items()})
        if key in self._by_key:
            return self._by_key[key]
        job = Job(
            stage=stage,
            stage_version=version,
            key=key,
            label=label,
            parameters=dict(parameters),
            inputs={role: (job.stage, job.key) for role, job in inputs.items()},
            local={**(local or {}), **self._of_training(stage)},
            cost=cost,
            asked_by=asked_by,
        )
        self.jobs.append(job)
        self._by_key[key] = job
        return job

    def _of_training(self, stage: str) -> dict[str, Any]:
        """What jobs that train are told of ``runtime``, where it isn't the default."""
        runtime, found = self.experiment.runtime, dict[str, Any]()
        if runtime.tensorboard is not None and stage in _WITH_CURVES:
            found["tensorboard"] = runtime.tensorboard
        if not runtime.record_steps and stage in (*_WITH_CURVES, "evaluate-roar"):
            found["record_steps"] = False
        return found


def as_json(value: Any) -> Any:
    """A section or a plain value as JSON types."""
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else value


def user_parameters(user: UserComponent) -> dict[str, Any]:
    """What of a component of the user's own goes into a key."""
    return {"dotted_path": user.dotted_path, "source_sha256": user.source_sha256}


def fixed_weights(plan: Plan, weights: str | None, key: str) -> tuple[str | None, dict[str, str]]:
    """Weights as they go into a key, by name or by content, and where a file of them lies.

    Args:
        weights: A published name, a path, or None.
        key: Of the configuration, for messages.

    Returns:
        (what the key holds, what goes into ``Job.local``).
    """
    if weights is None or not is_weights_path(weights):
        return weights, {}
    hint = " (a weight name has no slash, e.g. IMAGENET1K_V2)"
    return fixed_content(plan, weights, key, hint), {"weights": str(Path(weights))}


def fixed_content(plan: Plan, path: str, key: str, hint: str = "") -> str:
    """A file as it goes into a key: its digest, or a mark that keys are provisional until it is there.

    Args:
        key: Of the configuration, for messages.
        hint: What else the user may have meant.
    """
    if Path(path).is_file():
        return f"sha256:{file_sha256(Path(path))}"
    plan.pending = plan.pending or f"{key}: {path}: no such file{hint}; keys are provisional until it is there"
    return PENDING
