"""F-Fidelity against the size of the explanation, as figures."""

from __future__ import annotations

from collections.abc import Sequence

from roarline.report.panels import Line, Panel
from roarline.report.scores import SIZE_SETTING, Method, Scores

_PANELS = {
    "ffid_plus": "FFid+: gaps in the explanation (higher is better)",
    "ffid_minus": "FFid−: gaps in the rest (lower is better)",
}


def f_fidelity_panels(scores: Scores, methods: Sequence[Method]) -> list[Panel]:
    """What gaps take from the fine-tuned network's score, a line a method; none where there is a single size."""
    panels = []
    for metric, title in _PANELS.items():
        lines = [line for method in methods if (line := _line(scores, method.name, metric)) is not None]
        if lines:
            panels.append(
                Panel(
                    metric, title, "Size of the explanation (% of the image)", "What gaps take from the score",
                    tuple(lines), percent=(True, False), group="f-fidelity",
                )
            )  # fmt: skip
    return panels


def _line(scores: Scores, method: str, metric: str) -> Line | None:
    rows = [
        row
        for row in scores.rows
        if (row.method, row.metric) == (method, metric) and row.setting.startswith(SIZE_SETTING)
    ]
    rows.sort(key=lambda row: float(row.setting.removeprefix(SIZE_SETTING)))
    values = tuple(row.value for row in rows if row.value is not None)
    if len(values) < max(2, len(rows)):
        return None
    sizes = tuple(float(row.setting.removeprefix(SIZE_SETTING)) for row in rows)
    return Line(method, sizes, values, tuple(row.ci_low for row in rows), tuple(row.ci_high for row in rows))
