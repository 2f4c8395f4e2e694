"""Tables as Parquet and CSV. Imports no torch."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from roarline.artifacts.files import atomic_path
from roarline.errors import ArtifactError

SCORES_FILE = "scores.parquet"
SCORE_COLUMNS = ("sample_id", "target", "metric", "setting", "value", "status")
OK = "ok"
_ROWS_AT_ONCE = 2**12
GROUND_TRUTH_COLUMN = "ground_truth"
"""Beside them where objects are asked for: the kind that a metric was judged by, empty where it needs none."""


def write_parquet(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write columns of equal length; types are inferred, None is null."""
    import pyarrow
    import pyarrow.parquet

    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ArtifactError(f"{path}: columns of different length: {lengths}")
    with atomic_path(path) as partial:
        pyarrow.parquet.write_table(
            pyarrow.table({name: pyarrow.array(values) for name, values in columns.items()}), partial
        )


def write_score_table(
    path: Path,
    sample_ids: Sequence[str],
    targets: np.ndarray,
    columns: Iterable[tuple[str, str, np.ndarray, Sequence[str]]],
    ground_truth: Callable[[str], str] | None = None,
) -> None:
    """Write a score table, a row for each metric, setting and row, some rows at a time whatever their number.

    Args:
        sample_ids: [M].
        targets: int64 [M].
        columns: One or more: metric, setting, values float [M], statuses [M]; a value that isn't ok becomes null.
        ground_truth: From a metric to the kind that it was judged by, for a further column.
    """
    import pyarrow
    import pyarrow.parquet

    names = [*SCORE_COLUMNS, *([GROUND_TRUTH_COLUMN] if ground_truth else [])]
    types = {"target": pyarrow.int64(), "value": pyarrow.float64()}
    schema = pyarrow.schema([(name, types.get(name, pyarrow.string())) for name in names])
    with atomic_path(path) as partial, pyarrow.parquet.ParquetWriter(partial, schema) as writer:
        for metric, setting, values, statuses in columns:
            for start in range(0, len(sample_ids), _ROWS_AT_ONCE):
                part = slice(start, start + _ROWS_AT_ONCE)
                numbers = zip(values[part].tolist(), statuses[part], strict=True)
                count = len(sample_ids[part])
                block: list[Any] = [
                    sample_ids[part], targets[part], [metric] * count, [setting] * count,
                    [value if status == OK else None for value, status in numbers], statuses[part],
                ]  # fmt: skip
                if ground_truth:
                    block.append([ground_truth(metric)] * count)
                writer.write_table(pyarrow.table(dict(zip(names, block, strict=True)), schema=schema))


def read_parquet(path: Path) -> dict[str, list[Any]]:
    """Read a table as lists, one a column.

    Raises:
        ArtifactError: The file is damaged.
    """
    table = read_table(path)
    return {name: table.column(name).to_pylist() for name in table.column_names}


def read_table(path: Path, columns: Sequence[str] | None = None, repetitive: Sequence[str] = ()) -> Any:
    """Read a table, or some of its columns, as a ``pyarrow.Table``, for tables too long for lists.

    Args:
        repetitive: Columns of texts that come again and again; they are read as dictionaries.

    Raises:
        ArtifactError: The file is damaged, or has no such column.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(
            path, columns=columns and list(columns), read_dictionary=list(repetitive), memory_map=False
        )
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise ArtifactError(
            f"{path}: damaged, can't be read as Parquet ({error}); delete its folder and run again"
        ) from error
    return table


def write_csv(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write the same columns as CSV (RFC 4180 quoting, ``\\n``); floats keep every digit, None is empty."""
    with atomic_path(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(
            ["" if v is None else repr(v) if isinstance(v, float) else v for v in row]
            for row in zip(*columns.values(), strict=True)
        )


def read_csv(path: Path) -> dict[str, list[str]]:
    """Read a CSV file as text columns."""
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        rows = list(reader)
    return {name: [row[index] for row in rows] for index, name in enumerate(header)}
