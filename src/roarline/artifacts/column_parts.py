"""Parts of an evaluation under way, with columns of numbers: from them an interrupted run goes on. No torch.

A part is a closed file, an npz archive of one array a column for B rows; one that is missing, unfinished or damaged is
made again.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from roarline.artifacts.files import atomic_path
from roarline.errors import ArtifactError

Columns = dict[str, np.ndarray]


class ColumnParts:
    """``rows`` rows cut into parts of ``part_rows``.

    Args:
        shapes: Column to its shape without the rows.

    Attributes:
        spans: The rows of each part.
        missing: Numbers of the parts that no earlier run has finished.
    """

    def __init__(self, folder: Path, rows: int, part_rows: int, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.rows, self.part_rows, self.shapes = rows, part_rows, dict(shapes)
        self.spans = [slice(start, min(start + part_rows, rows)) for start in range(0, rows, part_rows)]
        self._paths = [folder / f"{span.start:08d}-{span.stop:08d}.npz" for span in self.spans]
        self.missing = [index for index in range(len(self.spans)) if self._load(index) is None]

    @property
    def missing_rows(self) -> np.ndarray:
        """Numbers of the rows whose parts are missing."""
        every = np.arange(self.rows)
        return np.concatenate([every[self.spans[index]] for index in self.missing] or [every[:0]])

    def write(self, index: int, columns: Mapping[str, np.ndarray]) -> None:
        """Keep a part.

        Raises:
            ArtifactError: Columns are missing or have another shape, or the part can't be written.
        """
        came = {name: column.shape for name, column in columns.items()}
        if came != self._expected(index):
            raise ArtifactError(f"{self._paths[index]}: columns are {came}, expected {self._expected(index)}")
        with atomic_path(self._paths[index]) as partial, partial.open("wb") as file:
            np.savez(file, **dict(columns))  # type: ignore[arg-type]

    def read(self) -> Columns:
        """All parts as one, read one after the other; without rows, empty columns of float64.

        Raises:
            ArtifactError: A part can't be read any more, or has columns of another dtype than the first.
        """
        whole: Columns = {}
        for index, (span, path) in enumerate(zip(self.spans, self._paths, strict=True)):
            columns = self._load(index)
            if columns is None:
                raise ArtifactError(f"{path}: was written and can't be read any more; run again")
            for name, shape in self.shapes.items():
                if name not in whole:
                    whole[name] = np.empty((self.rows, *shape), dtype=columns[name].dtype)
                if columns[name].dtype != whole[name].dtype:
                    came, expected = columns[name].dtype, whole[name].dtype
                    raise ArtifactError(f"{path}: {name} is {came}, expected {expected}; delete this file")
                whole[name][span] = columns[name]
        return whole or {name: np.empty((0, *shape)) for name, shape in self.shapes.items()}

    def _expected(self, index: int) -> dict[str, tuple[int, ...]]:
        rows = self.spans[index].stop - self.spans[index].start
        return {name: (rows, *shape) for name, shape in self.shapes.items()}

    def _load(self, index: int) -> Columns | None:
        try:
            with self._paths[index].open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                columns = {name: file[name] for name in file.files}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        numbers = all(column.dtype.kind in "biuf" for column in columns.values())
        shapes = {name: column.shape for name, column in columns.items()}
        return columns if numbers and shapes == self._expected(index) else None
