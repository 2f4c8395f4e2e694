"""``scores.parquet`` as arrays: a column for each metric and setting, all over the same rows. Imports no torch."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from roarline.artifacts.tables import GROUND_TRUTH_COLUMN, OK, SCORE_COLUMNS, read_table
from roarline.errors import ArtifactError


@dataclass(frozen=True)
class ScoreColumn:
    """One metric in one setting: values float64 [M], NaN where a row failed, and why rows failed."""

    values: np.ndarray
    reasons: Counter[str]


@dataclass(frozen=True)
class ScoreTable:
    """Rows by sample id, then target, whatever their order in the file.

    Attributes:
        sample_ids: [M]; an image with several targets has several rows.
        targets: int64 [M].
        columns: (metric, setting) to its column, in the file's order.
    """

    sample_ids: list[str]
    targets: np.ndarray
    columns: dict[tuple[str, str], ScoreColumn]


def read_scores(path: Path) -> ScoreTable:
    """Read ``scores.parquet``.

    Raises:
        ArtifactError: The file is damaged, a row stands twice, a metric lacks a row that another has, or a row that is
            ok has no value.
    """
    table = read_table(path, SCORE_COLUMNS, repetitive=("sample_id", "metric", "setting", "status"))
    sample_names, samples = _codes(table.column("sample_id"))
    order = np.argsort(np.argsort(np.array(sample_names, dtype=str), kind="stable"), kind="stable")
    targets = np.asarray(table.column("target"), dtype=np.int64)
    span = int(targets.max(initial=0)) + 1
    keys = order[samples].astype(np.int64) * span + targets
    values = np.asarray(table.column("value").cast("double"), dtype=np.float64)
    reasons, statuses = _codes(table.column("status"))
    failed = np.array([reason != OK for reason in reasons], dtype=bool)[statuses]
    if np.isnan(values[~failed]).any():
        row = int(np.flatnonzero(np.isnan(values) & ~failed)[0])
        raise ArtifactError(f"{path}: row {row} (sample {sample_names[samples[row]]!r}) is ok and has no value")
    metrics, metric_codes = _codes(table.column("metric"))
    settings, setting_codes = _codes(table.column("setting"))
    groups = metric_codes.astype(np.int64) * len(settings) + setting_codes
    names, first = np.unique(groups, return_index=True)
    columns: dict[tuple[str, str], ScoreColumn] = {}
    expected: np.ndarray | None = None
    for group in names[np.argsort(first)]:
        name = metrics[group // len(settings)], settings[group % len(settings)]
        rows = np.flatnonzero(groups == group)
        rows = rows[np.argsort(keys[rows], kind="stable")]
        found = keys[rows]
        if expected is None:
            expected = found
        if len(np.unique(found)) != len(found) or not np.array_equal(found, expected):
            raise ArtifactError(f"{path}: {' '.join(name).strip()} has rows twice, or other rows than the first metric")
        bad = failed[rows]
        counted = Counter(reasons[code] for code in statuses[rows[bad]].tolist())
        columns[name] = ScoreColumn(np.where(bad, np.nan, values[rows]), counted)
    keys_found = np.empty(0, dtype=np.int64) if expected is None else expected
    by_order = sorted(sample_names)
    return ScoreTable([by_order[key // span] for key in keys_found.tolist()], keys_found % span, columns)


def read_ground_truths(path: Path) -> dict[str, str]:
    """Metric to the kind of ground truth that it was judged by, of those that were.

    Raises:
        ArtifactError: The file is damaged.
    """
    import pyarrow.parquet

    if GROUND_TRUTH_COLUMN not in pyarrow.parquet.read_schema(path).names:
        return {}
    names = ["metric", GROUND_TRUTH_COLUMN]
    rows = read_table(path, names).group_by(names).aggregate([]).to_pylist()
    return {row["metric"]: row[GROUND_TRUTH_COLUMN] for row in rows if row[GROUND_TRUTH_COLUMN]}


def _codes(column: Any) -> tuple[list[str], np.ndarray]:
    """Distinct texts of a column, and for each row which one it has."""
    encoded = column.unify_dictionaries().combine_chunks()
    return encoded.dictionary.to_pylist(), np.asarray(encoded.indices, dtype=np.int64)
