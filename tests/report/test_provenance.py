"""Times and versions joined from manifests, some of which know little."""

from __future__ import annotations

from typing import Any

from roarline.artifacts.manifest import Manifest
from roarline.report.provenance import collect


def _manifest(stage: str, label: str, provenance: dict[str, Any]) -> Manifest:
    return Manifest(
        schema_version=1,
        stage=stage,
        stage_version=1,
        key=label * 8,
        label=label,
        parameters={},
        inputs={},
        files={},
        digest=f"d{label}" * 8,
        provenance=provenance,
    )


def test_durations_of_a_stage_add_up():
    known = {"duration_s": 30.0, "peak_memory_mb": 100.0, "started": "2026-01-02T00:00:00", "torch": "2.12.1"}
    found = collect(
        [
            _manifest("train-cls", "aaaa", known),
            _manifest("evaluate-roar", "bbbb", {**known, "duration_s": 10.0, "torch": "2.11.0"}),
            _manifest("evaluate-roar", "cccc", {**known, "peak_memory_mb": 250.0}),
        ],
        {},
    )
    stages = {stage.stage: stage for stage in found.stages}
    assert (stages["evaluate-roar"].duration, stages["evaluate-roar"].longest) == ("40 s", "30 s")
    assert stages["evaluate-roar"].memory_mb == 250.0
    assert stages["evaluate-roar"].artifacts == 2
    # Two versions in one experiment are both named.
    assert dict(found.versions)["torch"] == "2.12.1 / 2.11.0"
    assert found.artifacts[0].key == ("aaaa" * 8)[:16]


def test_missing_keys_are_unknown_and_no_error():
    found = collect([_manifest("report", "aaaa", {"duration_s": None, "started": ""})], {})
    assert found.stages[0].duration == "unknown"
    assert found.stages[0].memory_mb is None
    assert found.versions == ()
    assert found.artifacts[0].duration == "unknown"


def test_the_cost_of_maps_is_their_time_by_image():
    manifest = _manifest("extract-attribution-maps", "aaaa", {"duration_s": 2.0, "peak_memory_mb": 300.0})
    cost = collect([], {"gradient": (manifest, 500)}).costs[0]
    assert (cost.method, cost.seconds, cost.per_image_ms, cost.memory_mb) == ("gradient", 2.0, 4.0, 300.0)
    assert collect([], {"gradient": (manifest, 0)}).costs[0].per_image_ms is None
