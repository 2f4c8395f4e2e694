"""The leaderboard on the terminal. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_REFERENCE = "(nothing removed)"
_UNRANKED = 99.0
_POINTS = ("removed_fraction=", "threshold=", "explanation_size=", "layer=")

Row = dict[str, str]


def leaderboard(scores: Mapping[str, Sequence[str]], confidence: float = 0.95) -> str:
    """A text table: a row a method, a column a metric, best first by mean rank.

    A metric that has a value for each removed fraction is shown by its mean over fractions, or by its one fraction.

    Args:
        scores: Columns of ``scores.csv`` as text.
        confidence: Of the intervals.

    Returns:
        Lines; a value that differs from the random baseline's (its paired interval excludes 0) bears a ``*``.
    """
    rows = [dict(zip(scores, values, strict=True)) for values in zip(*scores.values(), strict=True)]
    shown = _one_setting_a_metric([row for row in rows if row["method"] != _REFERENCE])
    metrics = list(dict.fromkeys(row["metric"] for row in shown))
    arrows = {row["metric"]: {"true": " ↑", "false": " ↓"}.get(row["higher_is_better"].lower(), "") for row in shown}
    cells = {(row["method"], row["metric"]): _cell(row) for row in shown}
    methods = sorted({row["method"] for row in shown}, key=lambda method: (_mean_rank(shown, method), method))
    table = [["method", *(f"{metric}{arrows[metric]}" for metric in metrics)]]
    table += [[method, *(cells.get((method, metric), "") for metric in metrics)] for method in methods]
    lines = _aligned(table)
    reference = next((float(row["value"]) for row in rows if row["method"] == _REFERENCE and row["value"]), None)
    if reference is not None:
        lines.append(f"with nothing removed, a retrained network reaches {reference:.3f}")
    legend = "↑ higher is better, ↓ lower"
    if any(row["difference_ci_low"] for row in shown):
        legend += f"; * the {confidence:.0%} interval of the paired difference to random excludes 0"
    lines.append(legend)
    return "\n".join(lines)


def _one_setting_a_metric(rows: list[Row]) -> list[Row]:
    by_fraction = [row for row in rows if row["setting"].startswith(_POINTS)]
    shown = [row for row in rows if not row["setting"].startswith(_POINTS)]
    summed_up = {row["metric"] for row in shown}
    for metric in dict.fromkeys(row["metric"] for row in by_fraction):
        own = [row for row in by_fraction if row["metric"] == metric]
        if metric not in summed_up and len({row["setting"] for row in own}) == 1:
            shown += own
    return shown


def _cell(row: Row) -> str:
    if not row["value"]:
        return row["status"]
    low, high = row["difference_ci_low"], row["difference_ci_high"]
    differs = bool(low and high) and float(low) * float(high) > 0
    return f"{float(row['value']):.3f}{'*' if differs else ' '}"


def _mean_rank(rows: list[Row], method: str) -> float:
    ranks = [float(row["rank"]) for row in rows if row["method"] == method and row["rank"]]
    return sum(ranks) / len(ranks) if ranks else _UNRANKED


def _aligned(table: list[list[str]]) -> list[str]:
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    first, *others = widths
    lines = [
        "  ".join([line[0].ljust(first), *(text.rjust(w) for text, w in zip(line[1:], others, strict=True))]).rstrip()
        for line in table
    ]
    lines.insert(1, "─" * max(len(line) for line in lines))
    return lines
