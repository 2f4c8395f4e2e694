"""Measurements as a table, as notes below it, and as a file."""

from __future__ import annotations

import datetime
import json
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS, Measurement, Options, machine


def table(measurements: Sequence[Measurement]) -> str:
    """The measurements as a Markdown table."""
    header = [
        "hot path", "network", "setting", "images", "passes", "ours, passes/s", "bare, passes/s", "bare at",
        "efficiency", "range", "goal", "peak memory",
    ]  # fmt: skip
    rows = [header, ["---"] * len(header)]
    for m in measurements:
        ours, bare = (m.passes / statistics.median(seconds) for seconds in (m.ours_s, m.bare_s))
        rows.append(
            [
                m.hot_path, m.network, m.setting, str(m.images), f"{m.passes} × {m.pass_kind}", f"{ours:.1f}",
                f"{bare:.1f}", m.bare_choice, f"{m.efficiency:.2f}", f"{min(m.ratios):.2f} to {max(m.ratios):.2f}",
                "" if m.goal is None else f"{m.goal:.2f}", f"{m.peak_memory_mib:.0f} MiB",
            ]
        )  # fmt: skip
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def notes(measurements: Sequence[Measurement]) -> str:
    """What the measurements told beside their ratios, a line each; one that misses its goal says so."""
    noted = [m for m in measurements if m.note]
    return "\n".join(f"- {m.hot_path} {m.network}, {m.setting}: {m.note}{'' if m.holds else ': MISSED'}" for m in noted)


def save(measurements: Sequence[Measurement], options: Options, folder: Path = RESULTS) -> Path:
    """Write the measurements, the kind of machine, the date and the versions as JSON.

    Measurements of other hot paths, networks or settings that the day's file has of the same machine stay in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kind = machine(options.device)
    name = re.sub(r"[^a-z0-9]+", "-", f"{kind['gpu'] or kind['cpu']} {kind['cores']} cores".lower()).strip("-")
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    path = folder / f"{today}-{name}.json"
    found = [{**asdict(m), "efficiency": m.efficiency} for m in measurements]
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if before.get("machine") == kind:
        known = {_what(one) for one in found}
        found = [one for one in before["measurements"] if _what(one) not in known] + found
    content = {"date": today, "machine": kind, "options": asdict(options), "measurements": found}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path


def _what(measurement: Mapping[str, Any]) -> tuple[str, str, str]:
    return measurement["hot_path"], measurement["network"], measurement["setting"]
