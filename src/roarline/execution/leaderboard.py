"""The leaderboard on the terminal. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_OVERALL = ("", "mean over fractions")


def leaderboard(scores: Mapping[str, Sequence[str]]) -> str:
    """A text table: a row a method, a column a metric, best first by mean rank.

    Args:
        scores: Columns of ``scores.csv`` as text.

    Returns:
        Lines; a value that differs from the random baseline's (its paired interval excludes 0) bears a ``*``.
    """
    rows = [dict(zip(scores, values, strict=True)) for values in zip(*scores.values(), strict=True)]
    cells: dict[tuple[str, str], str] = {}
    ranks: dict[str, list[int]] = {}
    directions: dict[str, str] = {}
    for row in rows:
        if "removed_fraction=" in row["setting"]:
            continue
        metric = row["metric"]
        directions[metric] = {"true": " ↑", "false": " ↓"}.get(row["higher_is_better"].lower(), "")
        if not row["value"]:
            cells[row["method"], metric] = row["status"]
            continue
        low, high = row["difference_ci_low"], row["difference_ci_high"]
        star = "*" if low and high and float(low) * float(high) > 0 else " "
        cells[row["method"], metric] = f"{float(row['value']):.3f}{star}"
        if row["rank"]:
            ranks.setdefault(row["method"], []).append(int(float(row["rank"])))
    methods = sorted(
        {row["method"] for row in rows}, key=lambda m: (sum(ranks.get(m, [99])) / len(ranks.get(m, [1])), m)
    )
    metrics = list(directions)
    table = [["method", *(f"{m}{directions[m]}" for m in metrics)]]
    table += [[method, *(cells.get((method, metric), "") for metric in metrics)] for method in methods]
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    lines = [
        "  ".join(
            text.ljust(w) if i == 0 else text.rjust(w) for i, (text, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in table
    ]
    lines.insert(1, "─" * len(lines[0]))
    lines.append("↑ higher is better, ↓ lower; * the 95 % interval of the paired difference to random excludes 0")
    return "\n".join(line.rstrip() for line in lines)
