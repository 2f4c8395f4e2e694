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


@dataclass(frozen=True)
class RowValues:
    """What was measured of B rows.

    Attributes:
        outputs: float32 [2, B, U], logit and probability of the target for U altered images.
        own: float64 [B, V], the values of V metrics of the user's own.
    """

    outputs: np.ndarray
    own: np.ndarray


class ScoreParts:
    """``rows`` rows of ``columns`` altered images and ``own`` own metrics each, cut into parts of ``part_rows``.

    Attributes:
        spans: The rows of each part.
        missing: Numbers of the parts that no earlier run has finished.
    """

    def __init__(self, folder: Path, rows: int, part_rows: int, columns: int, own: int = 0) -> None:
        self.rows, self.part_rows, self.columns, self.own = rows, part_rows, columns, own
        self.spans = [slice(start, min(start + part_rows, rows)) for start in range(0, rows, part_rows)]
        self._paths = [folder / f"{index:06d}.npz" for index in range(len(self.spans))]
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
        expected, came = self._shapes(index), (values.outputs.shape, values.own.shape)
        if came != expected:
            raise ArtifactError(f"{self._paths[index]}: outputs and own values are {came}, expected {expected}")
        with atomic_path(self._paths[index]) as partial, partial.open("wb") as file:
            np.savez(
                file,
                outputs=values.outputs.astype(np.float32, copy=False),
                own=values.own.astype(np.float64, copy=False),
            )

    def read(self) -> RowValues:
        """All parts as one, of ``rows`` rows.

        Raises:
            ArtifactError: One can't be read any more.
        """
        found = [RowValues(np.empty((2, 0, self.columns), dtype=np.float32), np.empty((0, self.own)))]
        for index, path in enumerate(self._paths):
            values = self._load(index)
            if values is None:
                raise ArtifactError(f"{path}: was written and can't be read any more; run again")
            found.append(values)
        return RowValues(
            np.concatenate([values.outputs for values in found], axis=1),
            np.concatenate([values.own for values in found]),
        )

    def _shapes(self, index: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        rows = self.spans[index].stop - self.spans[index].start
        return (2, rows, self.columns), (rows, self.own)

    def _load(self, index: int) -> RowValues | None:
        try:
            with self._paths[index].open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                values = RowValues(file["outputs"], file["own"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        return values if (values.outputs.shape, values.own.shape) == self._shapes(index) else None
