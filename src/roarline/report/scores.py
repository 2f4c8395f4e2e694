"""The summary's rows as typed scores, and what their intervals say against the random baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from roarline.config.component import Channels, Sign
from roarline.config.metrics import METRICS

REFERENCE = "(nothing removed)"
MEAN_SETTING = "mean over fractions"
FRACTION_SETTING = "removed_fraction="
THRESHOLD_SETTING = "threshold="
SIZE_SETTING = "explanation_size="
LAYER_SETTING = "layer="
OK = "ok"

Verdict = Literal["better", "worse", "undecided", "unknown"]


@dataclass(frozen=True)
class Method:
    """One method of the experiment.

    Attributes:
        component: The name in the table of methods, or a dotted path.
        sign: How its values are read where pixels are ranked.
        channels: How maps with channels became one plane.
        baseline: True for a control that knows nothing of the classifier.
    """

    name: str
    component: str
    sign: Sign
    channels: Channels
    params: dict[str, Any]
    baseline: bool


@dataclass(frozen=True)
class Score:
    """One row of the summary; the difference is the paired one to the random baseline."""

    method: str
    metric: str
    setting: str
    value: float | None
    ci_low: float | None
    ci_high: float | None
    n: int
    failed: int
    higher_is_better: bool | None
    unit: str
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    rank: int | None
    status: str

    @property
    def removed_fraction(self) -> float | None:
        """The removed fraction of a row that stands for one, else None."""
        if not self.setting.startswith(FRACTION_SETTING):
            return None
        return float(self.setting.removeprefix(FRACTION_SETTING))

    @property
    def verdict(self) -> Verdict:
        """Against random: decided only where the paired interval excludes 0."""
        if self.higher_is_better is None or self.difference_low is None or self.difference_high is None:
            return "unknown"
        if self.difference_low <= 0 <= self.difference_high:
            return "undecided"
        return "better" if (self.difference_low > 0) == self.higher_is_better else "worse"


class Scores:
    """All rows of the summary, with the few look-ups that the page needs."""

    def __init__(self, rows: Sequence[Score]) -> None:
        self.rows = tuple(rows)

    @property
    def metrics(self) -> list[str]:
        """Metrics that have rows, in the order of roarline's table of metrics, others after them."""
        known = list(METRICS)
        present = list(dict.fromkeys(row.metric for row in self.rows))
        return sorted(present, key=lambda metric: known.index(metric) if metric in known else len(known))

    def settings(self, metric: str) -> list[str]:
        """Settings that sum a metric up: those that are no single point of a curve; else the only fraction there is."""
        rows = [row for row in self.rows if row.metric == metric and row.method != REFERENCE]
        points = (FRACTION_SETTING, THRESHOLD_SETTING, SIZE_SETTING, LAYER_SETTING)
        found = list(dict.fromkeys(row.setting for row in rows if not row.setting.startswith(points)))
        fractions = list(dict.fromkeys(row.setting for row in rows))
        return found or (fractions if len(fractions) == 1 else [])

    def overall(self, metric: str, setting: str | None = None) -> dict[str, Score]:
        """Method to its row for one metric and setting (default: the metric's first), without the reference."""
        settings = self.settings(metric)
        if setting is None and settings:
            setting = settings[0]
        return {
            row.method: row
            for row in self.rows
            if row.metric == metric and row.setting == setting and row.method != REFERENCE
        }

    def by_fraction(self, metric: str) -> dict[str, list[Score]]:
        """Method to its rows by rising removed fraction, without the reference; rows without a value are left out."""
        found: dict[str, list[tuple[float, Score]]] = {}
        for row in self.rows:
            fraction = row.removed_fraction
            if row.metric == metric and fraction is not None and row.value is not None and row.method != REFERENCE:
                found.setdefault(row.method, []).append((fraction, row))
        return {method: [row for _, row in sorted(pairs, key=lambda pair: pair[0])] for method, pairs in found.items()}

    def reference(self, metric: str) -> Score | None:
        """The row of networks that were retrained with nothing removed, where it has a value."""
        rows = [row for row in self.rows if row.method == REFERENCE and row.value is not None]
        return next((row for row in rows if row.metric == metric), rows[0] if rows else None)


def scores_from_columns(columns: Mapping[str, Sequence[Any]]) -> Scores:
    """Read the columns of the summary's ``scores.parquet``."""
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return Scores(
        [
            Score(
                method=row["method"],
                metric=row["metric"],
                setting=row["setting"] or "",
                value=row["value"],
                ci_low=row["ci_low"],
                ci_high=row["ci_high"],
                n=int(row["n"] or 0),
                failed=int(row["failed"] or 0),
                higher_is_better=row["higher_is_better"],
                unit=row["unit"] or "",
                difference=row["difference_to_random"],
                difference_low=row["difference_ci_low"],
                difference_high=row["difference_ci_high"],
                rank=None if row["rank"] is None else int(row["rank"]),
                status=row["status"] or OK,
            )
            for row in rows
        ]
    )


def methods_from_parameters(parameters: Sequence[Mapping[str, Any]]) -> list[Method]:
    """Read the job's list of methods."""
    return [
        Method(
            name=entry["name"],
            component=entry["method"],
            sign=entry["sign"],
            channels=entry["channels"],
            params=dict(entry["params"]),
            baseline=bool(entry["baseline"]),
        )
        for entry in parameters
    ]
