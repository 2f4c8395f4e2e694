"""The leaderboard: methods by metrics, from the summary's rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from roarline.config.component import MetricComponent
from roarline.config.metrics import METRICS
from roarline.report.formatting import fraction_percent
from roarline.report.scores import MEAN_SETTING, Method, Score, Scores

_TITLES = {
    "roar_accuracy": "ROAR accuracy",
    "kar_accuracy": "KAR accuracy",
    "roar_leakage": "ROAR leakage",
    "kar_leakage": "KAR leakage",
    "recursive_roar_accuracy": "Recursive ROAR accuracy",
    "recursive_roar_leakage": "Recursive ROAR leakage",
    "roar_relative_area": "ROAR relative area",
    "recursive_roar_relative_area": "Recursive ROAR relative area",
    "ffid_plus": "FFid+",
    "ffid_minus": "FFid−",
    "idsds": "IDSDS",
    "morf": "MoRF",
    "lerf": "LeRF",
    "srg": "SRG",
    "insertion": "Insertion",
    "deletion": "Deletion",
    "morf_deviation": "MoRF deviation",
    "lerf_deviation": "LeRF deviation",
    "road_morf": "ROAD MoRF",
    "road_lerf": "ROAD LeRF",
    "road_combined": "ROAD combined",
    "irof": "IROF",
    "aopc": "AOPC",
    "sensitivity_n": "Sensitivity-n",
    "max_sensitivity": "Max-sensitivity",
    "avg_sensitivity": "Average sensitivity",
    "aic": "AIC",
    "sic": "SIC",
    "max_box_acc": "MaxBoxAcc",
    "max_box_acc_v2": "MaxBoxAccV2",
    "pxap": "PxAP",
    "om": "OM",
    "le": "LE",
    "f1": "F1",
    "f1a": "F1a",
    "sm": "SM",
    "sm_area": "SM, area term",
    "sm_confidence": "SM, confidence term",
    "mask_tv": "Mask TV",
    "mean_f1": "Mean F1",
    "f1_curve": "F1 curve",
    "soft_f1": "Soft F1",
    "discrete_f1_25": "F1 at 0.25",
    "discrete_f1_50": "F1 at 0.5",
    "discrete_f1_75": "F1 at 0.75",
    "discrete_iou_curve": "IoU curve",
    "continuous_iou": "Continuous IoU",
    "roc_auc": "ROC AUC",
    "grid_pointing_game": "GridPG",
    "difull": "DiFull",
}

# Settings that sum a metric up and go without saying.
UNSAID = (MEAN_SETTING, "mean over explanation sizes")


def metric_title(metric: str) -> str:
    """A metric's name for readers."""
    if metric in METRICS and metric not in _TITLES:
        return metric.replace("_", " ").capitalize()
    return _TITLES.get(metric, metric)


@dataclass(frozen=True)
class Column:
    """One metric in one setting.

    Attributes:
        arrow: ``↑`` higher is better, ``↓`` lower is better, empty where neither.
        summary: What it measures, in one line.
    """

    metric: str
    setting: str
    title: str
    arrow: str
    summary: str
    unit: str

    @property
    def ranked(self) -> bool:
        """True where the metric has a direction; the leakage probe has none."""
        return bool(self.arrow)


@dataclass(frozen=True)
class Row:
    """One method; ``cells`` are in the order of the columns, None where the summary has no such row."""

    method: str
    baseline: bool
    mean_rank: float | None
    cells: tuple[Score | None, ...]


@dataclass(frozen=True)
class Leaderboard:
    """Rows in order of their mean rank, baselines apart."""

    columns: tuple[Column, ...]
    methods: tuple[Row, ...]
    baselines: tuple[Row, ...]


def build_leaderboard(
    scores: Scores,
    methods: list[Method],
    metrics: Mapping[str, MetricComponent] = METRICS,
    *,
    of: Callable[[str], bool] = lambda metric: True,
) -> Leaderboard:
    """One column for each metric and setting that is not a single point of a curve, one row for each method.

    Args:
        of: Which metrics have columns.
    """
    columns = tuple(
        _column(metric, setting, scores, metrics.get(metric))
        for metric in sorted(filter(of, scores.metrics), key=lambda name: _order(name, scores))
        for setting in scores.settings(metric)
    )
    table = [scores.overall(column.metric, column.setting) for column in columns]
    rows = []
    for method in methods:
        cells = tuple(column.get(method.name) for column in table)
        ranks = [cell.rank for cell in cells if cell is not None and cell.rank is not None]
        rows.append(Row(method.name, method.baseline, sum(ranks) / len(ranks) if ranks else None, cells))
    rows.sort(key=lambda row: (row.mean_rank is None, row.mean_rank or 0.0))
    return Leaderboard(
        columns,
        tuple(row for row in rows if not row.baseline),
        tuple(row for row in rows if row.baseline),
    )


def _column(metric: str, setting: str, scores: Scores, component: MetricComponent | None) -> Column:
    row = next(iter(scores.overall(metric, setting).values()))
    arrow = {True: "↑", False: "↓", None: ""}[row.higher_is_better]
    if row.removed_fraction is not None:
        shown = f", {fraction_percent(row.removed_fraction)} removed"
    else:
        shown = f", {setting}" if setting and setting not in UNSAID else ""
    return Column(
        metric, setting, f"{metric_title(metric)}{shown}", arrow, component.summary if component else "", row.unit
    )


def _order(metric: str, scores: Scores) -> tuple[int, int]:
    """Retraining first, each with its probe beside it; then the rest as in the table of metrics."""
    first = (
        "roar_accuracy", "roar_leakage", "roar_relative_area", "kar_accuracy", "kar_leakage", "recursive_roar_accuracy",
        "recursive_roar_leakage", "recursive_roar_relative_area",
    )  # fmt: skip
    return (0, first.index(metric)) if metric in first else (1, scores.metrics.index(metric))
