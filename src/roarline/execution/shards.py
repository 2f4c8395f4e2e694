"""Extraction cut into shards: jobs of sample ranges, and one that joins them under the key of the whole. No torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from roarline.artifacts.keys import artifact_key
from roarline.artifacts.manifest import Manifest
from roarline.stages.job import SHARD_ROLE, Job

_STAGE = "extract-attribution-maps"
_PARAMETER = "shard"
_JOIN_COST = 0.1


def in_shards(jobs: Iterable[Job], count: int) -> list[Job]:
    """Jobs, each extraction replaced by its shards and the job that joins them.

    Args:
        jobs: In an order in which they can run; so is the result.
        count: Shards of each extraction; 1 leaves all as they are.
    """
    return [piece for job in jobs for piece in (*shards_of(job, count), _joining(job, count))]


def shards_of(job: Job, count: int) -> list[Job]:
    """The jobs that make the pieces of an extraction; none where it isn't cut."""
    if count == 1 or job.stage != _STAGE or "filter" in job.parameters:  # a filter asks no network
        return []
    inputs = {role: key for role, (_, key) in job.inputs.items()}
    shards = []
    for index in range(count):
        parameters = {**job.parameters, _PARAMETER: {"index": index, "count": count}}
        shards.append(
            replace(
                job,
                key=artifact_key(job.stage, job.stage_version, parameters, inputs),
                label=f"{job.label}, shard {index + 1} of {count}",
                parameters=parameters,
                cost=job.cost / count,
                shard_of=(job.stage, job.key),
            )
        )
    return shards


def whole_key(manifest: Manifest) -> str | None:
    """Key of the artifact that a shard is a piece of; None where the artifact is no shard."""
    if manifest.stage != _STAGE or _PARAMETER not in manifest.parameters:
        return None
    parameters = {name: value for name, value in manifest.parameters.items() if name != _PARAMETER}
    inputs = {role: entry.key for role, entry in manifest.inputs.items()}
    return artifact_key(manifest.stage, manifest.stage_version, parameters, inputs)


def _joining(job: Job, count: int) -> Job:
    shards = shards_of(job, count)
    if not shards:
        return job
    roles = {f"{SHARD_ROLE}{index:04d}": (shard.stage, shard.key) for index, shard in enumerate(shards)}
    return replace(job, inputs=job.inputs | roles, cost=_JOIN_COST)
