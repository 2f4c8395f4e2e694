"""What was run: versions, devices, times and keys, joined from the manifests. Undigested: times and versions differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from roarline.artifacts.keys import short
from roarline.artifacts.manifest import Manifest
from roarline.report.formatting import duration

VERSIONS = ("roarline", "git_commit", "python", "torch", "torchvision", "captum", "numpy", "cuda", "platform", "device")


@dataclass(frozen=True)
class StageTime:
    """All artifacts of one stage.

    Attributes:
        duration: Sum of the jobs' durations, in words; jobs may have run side by side.
        memory_mb: Largest peak memory of a job, None where unknown.
    """

    stage: str
    artifacts: int
    duration: str
    longest: str
    memory_mb: float | None
    started: str


@dataclass(frozen=True)
class MethodCost:
    """What one method's maps of the test split cost."""

    method: str
    seconds: float | None
    per_image_ms: float | None
    memory_mb: float | None


@dataclass(frozen=True)
class ArtifactLine:
    """One artifact that the page stands on."""

    stage: str
    label: str
    key: str
    digest: str
    duration: str


@dataclass(frozen=True)
class Provenance:
    """Everything of the page that may differ between two runs of the same experiment."""

    versions: tuple[tuple[str, str], ...]
    stages: tuple[StageTime, ...]
    costs: tuple[MethodCost, ...]
    artifacts: tuple[ArtifactLine, ...]


def collect(manifests: Iterable[Manifest], maps: Mapping[str, tuple[Manifest, int]]) -> Provenance:
    """Join the manifests; a provenance key that is missing is left out or shown as unknown.

    Args:
        manifests: Of every artifact that the report reads, directly or not, in the order of the stages.
        maps: Method to the manifest of its test maps, and their number of rows.
    """
    listed = list(manifests)
    return Provenance(
        versions=tuple((name, " / ".join(values)) for name in VERSIONS if (values := _distinct(listed, name))),
        stages=tuple(_stage_time(stage, listed) for stage in dict.fromkeys(item.stage for item in listed)),
        costs=tuple(_cost(method, manifest, rows) for method, (manifest, rows) in maps.items()),
        artifacts=tuple(
            ArtifactLine(item.stage, item.label, short(item.key), short(item.digest), _duration_of(item))
            for item in listed
        ),
    )


def _distinct(manifests: Sequence[Manifest], name: str) -> list[str]:
    return list(dict.fromkeys(str(value) for item in manifests if (value := item.provenance.get(name)) is not None))


def _stage_time(stage: str, manifests: Sequence[Manifest]) -> StageTime:
    own = [item.provenance for item in manifests if item.stage == stage]
    seconds = _numbers(own, "duration_s")
    return StageTime(
        stage,
        len(own),
        duration(sum(seconds)) if seconds else "unknown",
        duration(max(seconds)) if seconds else "unknown",
        max(_numbers(own, "peak_memory_mb"), default=None),
        min((str(item["started"]) for item in own if item.get("started")), default="unknown"),
    )


def _cost(method: str, manifest: Manifest, rows: int) -> MethodCost:
    seconds = next(iter(_numbers([manifest.provenance], "duration_s")), None)
    memory = next(iter(_numbers([manifest.provenance], "peak_memory_mb")), None)
    return MethodCost(method, seconds, 1000 * seconds / rows if seconds is not None and rows else None, memory)


def _numbers(provenances: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    values = (item.get(name) for item in provenances)
    return [float(value) for value in values if isinstance(value, int | float) and not isinstance(value, bool)]


def _duration_of(manifest: Manifest) -> str:
    seconds = _numbers([manifest.provenance], "duration_s")
    return duration(seconds[0]) if seconds else "unknown"
