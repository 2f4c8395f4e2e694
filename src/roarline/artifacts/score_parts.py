"""Parts of a ``scores`` artifact under way: closed files from which an interrupted evaluation goes on. No torch.

A part is an npz archive with one array ``outputs`` float32 [2, B, U]: logit and probability of the target, for B rows
and U altered images. The archive has a checksum; a part that is missing, unfinished or damaged is made again.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from roarline.artifacts.files import atomic_path
from roarline.errors import ArtifactError


class ScoreParts:
    """``rows`` rows of ``columns`` altered images each, cut into parts of ``part_rows``.

    Attributes:
        spans: The rows of each part.
        missing: Numbers of the parts that no earlier run has finished.
    """

    def __init__(self, folder: Path, rows: int, part_rows: int, columns: int) -> None:
        self.rows, self.part_rows, self.columns = rows, part_rows, columns
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

    def write(self, index: int, outputs: np.ndarray) -> None:
        """Keep a part.

        Raises:
            ArtifactError: It has another shape, or can't be written.
        """
        span = self.spans[index]
        expected = (2, span.stop - span.start, self.columns)
        if outputs.shape != expected:
            raise ArtifactError(f"{self._paths[index]}: outputs have shape {outputs.shape}, expected {expected}")
        with atomic_path(self._paths[index]) as partial, partial.open("wb") as file:
            np.savez(file, outputs=outputs.astype(np.float32, copy=False))

    def read(self) -> np.ndarray:
        """All parts: float32 [2, rows, columns].

        Raises:
            ArtifactError: One can't be read any more.
        """
        found = []
        for index, path in enumerate(self._paths):
            outputs = self._load(index)
            if outputs is None:
                raise ArtifactError(f"{path}: was written and can't be read any more; run again")
            found.append(outputs)
        return np.concatenate(found, axis=1) if found else np.empty((2, 0, self.columns), dtype=np.float32)

    def _load(self, index: int) -> np.ndarray | None:
        span = self.spans[index]
        try:
            with self._paths[index].open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                outputs: np.ndarray = file["outputs"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        return outputs if outputs.shape == (2, span.stop - span.start, self.columns) else None
