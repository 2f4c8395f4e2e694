"""The tables of aggregate-scores beside the scores themselves: tests, places, agreement, stability. Imports no torch.

Each is written as Parquet and, with the same rows, as CSV; docs/statistics.md says what every column means.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from roarline.artifacts.store import Artifact
from roarline.artifacts.tables import read_parquet, write_csv, write_parquet

COMPARISON_TABLES: dict[str, tuple[str, ...]] = {
    "pairwise_tests": (
        "metric", "setting", "first", "second", "images", "difference", "ci_low", "ci_high", "p_mean", "p_mean_holm",
        "p_wilcoxon", "p_wilcoxon_holm", "test", "better",
    ),
    "critical_difference": ("metric", "setting", "method", "place", "place_low", "place_high", "bars"),
    "metric_reliability": (
        "metric", "setting", "test", "methods", "images", "left_out", "friedman_chi2", "friedman_p", "nemenyi_distance",
        "alpha", "alpha_low", "alpha_high", "alpha_interval", "inter_method",
    ),
    "metric_agreement": (
        "first_metric", "first_setting", "second_metric", "second_setting", "methods", "kendall_tau_b", "images",
        "spearman_images",
    ),
    "rank_stability": ("metric", "setting", "factor", "point", "method", "value", "place"),
    "rank_stability_summary": (
        "metric", "setting", "factor", "points", "methods", "kendall_w", "tau_mean", "tau_min",
    ),
}  # fmt: skip
"""Name of each table to its columns."""

Row = Mapping[str, Any]


def write_comparisons(folder: Path, tables: Mapping[str, Iterable[Row]]) -> None:
    """Write every table, those without rows too."""
    for name, columns in COMPARISON_TABLES.items():
        rows = list(tables.get(name, ()))
        table = {column: [row[column] for row in rows] for column in columns}
        write_parquet(folder / f"{name}.parquet", table)
        write_csv(folder / f"{name}.csv", table)


def read_comparisons(artifact: Artifact) -> dict[str, list[dict[str, Any]]]:
    """Name of each table to its rows.

    Raises:
        ArtifactError: A file is damaged or missing.
    """
    found = {}
    for name in COMPARISON_TABLES:
        table = read_parquet(artifact.file(f"{name}.parquet"))
        found[name] = [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]
    return found
