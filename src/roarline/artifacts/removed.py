"""``removed.h5``: which pixels of every image a recursive cell has taken away. Imports no torch.

Layout: ``/sample_ids`` [N] str, of all splits; ``/removed`` [N, ceil(H · W / 8)] uint8, a bit a pixel row by row, the
first pixel in the highest bit. Attributes: schema_version, image_size [H, W].
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from roarline.artifacts.files import atomic_path
from roarline.artifacts.rows import read_rows
from roarline.errors import ArtifactError

REMOVED_FILE = "removed.h5"
_SCHEMA_VERSION = 1


def write_removed(
    path: Path, sample_ids: Sequence[str], image_size: tuple[int, int], masks: Iterable[np.ndarray]
) -> None:
    """Write ``removed.h5`` atomically, some images at a time.

    Args:
        sample_ids: [N], unique.
        image_size: (H, W) in px.
        masks: bool [b, H, W] each, together N in the order of the ids.

    Raises:
        ArtifactError: There are more or fewer masks than ids.
    """
    import h5py

    width = -(-image_size[0] * image_size[1] // 8)
    with atomic_path(path) as partial, h5py.File(partial, "w", libver="v110") as file:
        file.create_dataset("sample_ids", data=list(sample_ids), dtype=h5py.string_dtype())
        removed = file.create_dataset("removed", (len(sample_ids), width), dtype=np.uint8)
        start = 0
        for some in masks:
            stop = start + len(some)
            if stop > len(sample_ids):
                break
            removed[start:stop] = np.packbits(some.reshape(len(some), -1), axis=1)
            start = stop
        else:
            stop = start
        if stop != len(sample_ids):
            raise ArtifactError(f"{path}: {stop} masks or more, expected {len(sample_ids)}")
        file.attrs["schema_version"] = _SCHEMA_VERSION
        file.attrs["image_size"] = np.array(image_size)


class RemovedFile:
    """Read access to ``removed.h5``."""

    def __init__(self, path: Path) -> None:
        import h5py

        self.path = path
        try:
            self._file: Any = h5py.File(path, "r")
            version = int(self._file.attrs["schema_version"])
            self.image_size = (int(self._file.attrs["image_size"][0]), int(self._file.attrs["image_size"][1]))
            rows = len(self._file["removed"]) - len(self._file["sample_ids"])
        except (OSError, KeyError) as error:
            raise ArtifactError(
                f"{path}: damaged, can't be read as removed pixels ({error}); delete its folder and run again"
            ) from error
        if version != _SCHEMA_VERSION or rows:
            raise ArtifactError(f"{path}: schema {version}, this roarline reads {_SCHEMA_VERSION}; or rows are missing")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {str(sample_id): row for row, sample_id in enumerate(self._file["sample_ids"].asstr()[:])}

    def masks(self, sample_ids: Sequence[str]) -> np.ndarray:
        """bool [B, H, W], True where a pixel was removed, in the order asked for.

        Raises:
            ArtifactError: An image has no mask; the message names it.
        """
        missing = [sample_id for sample_id in sample_ids if sample_id not in self._rows]
        if missing:
            raise ArtifactError(f"{self.path}: no mask for sample {missing[0]!r} ({len(missing)} missing)")
        rows = np.array([self._rows[sample_id] for sample_id in sample_ids], dtype=np.int64)
        packed = read_rows(self._file["removed"], rows)
        height, width = self.image_size
        return np.unpackbits(packed, axis=1, count=height * width).reshape(-1, height, width).astype(bool)
