"""Parts of a ``maps`` artifact under way: closed files, each with its SHA-256 beside it, written on a thread. No torch.

An HDF5 file that is open when its process is killed can't be opened again, so every part is a file of its own; one that
is missing, unfinished or damaged is made again.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from roarline.artifacts.files import file_sha256, read_json, write_json
from roarline.artifacts.maps import MapRows, write_part
from roarline.errors import ArtifactError


class MapParts:
    """``total`` rows cut into parts of ``part_rows``; inside its context parts are written in the background.

    Args:
        compression: Of the maps in their files.
    """

    def __init__(self, folder: Path, total: int, part_rows: int, compression: str = "none") -> None:
        self._compression = compression
        self.spans = [(start, min(start + part_rows, total)) for start in range(0, total, part_rows)]
        self.paths = [folder / f"{start:08d}-{stop:08d}.h5" for start, stop in self.spans]
        self.missing = [index for index, path in enumerate(self.paths) if not _is_whole(path)]
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="write-part")
        self._pending: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True)
        if kind is None:
            self._settle()

    @property
    def rows_present(self) -> int:
        """Rows of the parts that were there at the start."""
        missing = set(self.missing)
        return sum(stop - start for index, (start, stop) in enumerate(self.spans) if index not in missing)

    def write(self, index: int, batches: Sequence[MapRows]) -> None:
        """Write a part on the thread, once the one before is on disk.

        Raises:
            ArtifactError: The part before could not be written, or this one has another number of rows.
        """
        self._settle()
        start, stop = self.spans[index]
        count = sum(len(batch.sample_ids) for batch in batches)
        if count != stop - start:
            raise ArtifactError(f"{self.paths[index]}: {count} rows, expected {stop - start}")
        self._pending = self._pool.submit(_write_whole, self.paths[index], batches, self._compression)

    def _settle(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()


def _write_whole(path: Path, batches: Sequence[MapRows], compression: str) -> None:
    rows = MapRows(
        [sample_id for batch in batches for sample_id in batch.sample_ids],
        np.concatenate([batch.targets for batch in batches]),
        np.concatenate([batch.maps for batch in batches]),
        np.concatenate([batch.logits for batch in batches]),
    )
    _seal(path).unlink(missing_ok=True)
    write_part(path, rows, compression)
    write_json(_seal(path), file_sha256(path))


def _is_whole(path: Path) -> bool:
    try:
        return bool(read_json(_seal(path)) == file_sha256(path))
    except (ArtifactError, FileNotFoundError):
        return False


def _seal(path: Path) -> Path:
    return path.with_suffix(".sha256.json")
