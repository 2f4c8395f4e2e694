"""The jobs of one experiment under plan: how one is added, and what a stage needs. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from roarline.artifacts.keys import artifact_key
from roarline.config.component import UserComponent
from roarline.config.experiment import Experiment
from roarline.stages import STAGES
from roarline.stages.job import Job


@dataclass
class Plan:
    """All jobs of one experiment, in an order in which they can run.

    Attributes:
        pending: Why keys are provisional (the raw data is missing), or None.
    """

    experiment: Experiment
    jobs: list[Job] = field(default_factory=list)
    pending: str | None = None

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
        known = next((job for job in self.jobs if job.key == key), None)
        if known is not None:
            return known
        job = Job(
            stage=stage,
            stage_version=version,
            key=key,
            label=label,
            parameters=dict(parameters),
            inputs={role: (job.stage, job.key) for role, job in inputs.items()},
            local={**(local or {})},
            cost=cost,
            asked_by=asked_by,
        )
        self.jobs.append(job)
        return job


def as_json(value: Any) -> Any:
    """A section or a plain value as JSON types."""
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else value


def user_parameters(user: UserComponent) -> dict[str, Any]:
    """What of a component of the user's own goes into a key."""
    return {"dotted_path": user.dotted_path, "source_sha256": user.source_sha256}
