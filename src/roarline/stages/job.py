"""What a stage is given: a job, and the place where it runs. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from roarline.artifacts.store import Artifact, Store, Writer
from roarline.errors import RoarlineError

SHARD_ROLE = "shard:"
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Job:
    """One artifact to be made.

    Attributes:
        stage: Name of the stage.
        parameters: All that can change the result, as JSON types; part of the key.
        inputs: Role to (stage, key) of the artifacts that are read. Those whose role begins with ``shard:`` are pieces
            of the artifact itself: in no key, and dropped once it is whole.
        key: SHA-256 of the recipe.
        label: For people, e.g. ``evaluate-roar gradcam roar 0.3 #2``.
        local: What can't change a result: paths, limits of this machine; never part of the key.
        cost: Rough share of the work, for progress and order; any unit.
        asked_by: The stage that a user runs to get it, where that is not its own: maps of a network that was retrained
            for evaluate-roar, say. Never part of the key.
        shard_of: (stage, key) of the artifact that this one is a piece of; where that exists, nothing is left to do.
    """

    stage: str
    stage_version: int
    key: str
    label: str
    parameters: dict[str, Any]
    inputs: dict[str, tuple[str, str]]
    local: dict[str, Any] = field(default_factory=dict)
    cost: float = 1.0
    asked_by: str | None = None
    shard_of: tuple[str, str] | None = None

    @property
    def shards(self) -> dict[str, tuple[str, str]]:
        """The inputs that are pieces of the artifact, in their order."""
        return {role: found for role, found in self.inputs.items() if role.startswith(SHARD_ROLE)}

    @property
    def threads(self) -> int:
        """CPU threads that the job computes with."""
        return int(self.parameters.get("threads", 1))


@dataclass
class Context:
    """Where a job runs: none of it may change a result on a CPU."""

    store: Store
    device: str = "cpu"
    progress: Progress = lambda done, total, unit: None
    loader_threads: int = 2

    def inputs(self, job: Job) -> dict[str, Artifact]:
        """Open the job's inputs, but for its shards."""
        return {role: self.store.open(*found) for role, found in job.inputs.items() if role not in job.shards}

    def shards(self, job: Job) -> list[Artifact]:
        """Open the job's shards, in their order."""
        return [self.store.open(*found) for found in job.shards.values()]


@dataclass(frozen=True)
class StageSpec:
    """One line of the stage table.

    Attributes:
        implementation: ``module:function`` taking (job, context, writer).
        stacked: ``module:function`` that makes several jobs in one go, see ``RunStack``; None where there is none.
    """

    version: int
    implementation: str
    summary: str
    stacked: str | None = None


Run = Callable[[Job, Context, Writer], None]
RunStack = Callable[[Sequence[tuple[Job, Writer]], Context], dict[str, RoarlineError]]
"""Makes the artifacts of several jobs; returns key to error of those that failed while others did not."""
