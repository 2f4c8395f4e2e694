"""Parts of a ``scores`` artifact under way: closed files from which an interrupted evaluation goes on. No torch.

A part is an npz archive of ``RowValues`` for B rows. The archive has a checksum; a part that is missing, unfinished or
damaged is made again.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from roarline.artifacts.files import atomic_path
from roarline.errors import ArtifactError

Shapes = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class RowValues:
    """What was measured of B rows.

    Attributes:
        outputs: float32 [2, B, U], logit and probability of the target for U altered images.
        values: float64 [B, V], numbers in V columns, each a metric in a setting; NaN where a row failed.
        outcomes: uint8 [B, V], 0 where a value is one, else the number of the reason why there is none.
    """

    outputs: np.ndarray
    values: np.ndarray
    outcomes: np.ndarray


class ScoreParts:
    """``rows`` rows of ``altered`` altered images and ``columns`` numbers each, cut into parts of ``part_rows``.

    Attributes:
        spans: The rows of each part.
        missing: Numbers of the parts that no earlier run has finished.
    """

    def __init__(self, folder: Path, rows: int, part_rows: int, altered: int, columns: int = 0) -> None:
        self.rows, self.part_rows, self.altered, self.columns = rows, part_rows, altered, columns
        self.spans = [slice(start, min(start + part_rows, rows)) for start in range(0, rows, part_rows)]
        self._paths = [folder / f"{span.start:08d}-{span.stop:08d}.npz" for span in self.spans]
        self.missing = [index for index in range(len(self.spans)) if self._load(index) is None]

    @property
    def missing_rows(self) -> np.ndarray:
        """Numbers of the rows whose parts are missing."""
        every = np.arange(self.rows)
        return np.concatenate([every[self.spans[index]] for index in self.missing] or [every[:0]])

    @property
    def rows_present(self) -> int:
        """Rows of the parts that were there at the start."""
        return self.rows - len(self.missing_rows)

    def write(self, index: int, values: RowValues) -> None:
        """Keep a part.

        Raises:
            ArtifactError: It has another shape, or can't be written.
        """
        expected, came = self._shapes(index), _shapes(values)
        if came != expected:
            raise ArtifactError(f"{self._paths[index]}: outputs, values, outcomes are {came}, expected {expected}")
        with atomic_path(self._paths[index]) as partial, partial.open("wb") as file:
            np.savez(
                file,
                outputs=values.outputs.astype(np.float32, copy=False),
                values=values.values.astype(np.float64, copy=False),
                outcomes=values.outcomes.astype(np.uint8, copy=False),
            )

    def read(self) -> RowValues:
        """All parts as one, of ``rows`` rows, read one after the other.

        Raises:
            ArtifactError: One can't be read any more.
        """
        whole = RowValues(
            np.empty((2, self.rows, self.altered), dtype=np.float32),
            np.empty((self.rows, self.columns)),
            np.empty((self.rows, self.columns), dtype=np.uint8),
        )
        for index, (span, path) in enumerate(zip(self.spans, self._paths, strict=True)):
            values = self._load(index)
            if values is None:
                raise ArtifactError(f"{path}: was written and can't be read any more; run again")
            whole.outputs[:, span], whole.values[span], whole.outcomes[span] = (
                values.outputs, values.values, values.outcomes
            )  # fmt: skip
        return whole

    def _shapes(self, index: int) -> Shapes:
        rows = self.spans[index].stop - self.spans[index].start
        return (2, rows, self.altered), (rows, self.columns), (rows, self.columns)

    def _load(self, index: int) -> RowValues | None:
        try:
            with self._paths[index].open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                values = RowValues(file["outputs"], file["values"], file["outcomes"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        return values if _shapes(values) == self._shapes(index) else None


def _shapes(values: RowValues) -> Shapes:
    return values.outputs.shape, values.values.shape, values.outcomes.shape
