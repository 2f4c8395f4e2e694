"""Pixels and sums on disk while a data set is prepared, so that a killed run goes on where it was. Imports no torch.

``pixels.u8`` holds image n at byte n · C · H · W; each ``chunk-*.json``, written after its pixels, says which rows are
done.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from fractions import Fraction
from io import RawIOBase
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from roarline.artifacts.files import flush, read_json, write_json, writing_to
from roarline.artifacts.keys import canonical_json
from roarline.data.pixels import PixelBatch
from roarline.errors import ArtifactError

_CHUNK_BYTES = 64 * 2**20
_CHUNK_ROWS = 8192
_COPY_BYTES = 16 * 2**20


class Staging:
    """Takes the images of N rows, in any order; a context manager.

    Args:
        folder: Survives a kill.
        recipe: JSON that says what the rows are; what another recipe left in the folder is dropped.
        counted: bool [N]: the rows whose pixels make up mean and standard deviation.
        keep_below: Pixels are kept where all N images take this many bytes or fewer.

    Attributes:
        shape: [C, H, W], once an image came.
        done: bool [N].
        raw_sizes: [N, 2] int64: H, W before resizing.
        sha256: [N] of the encoded files.
    """

    def __init__(self, folder: Path, recipe: Any, counted: np.ndarray, keep_below: int) -> None:
        count = len(counted)
        self.folder, self.counted, self.keep_below = folder, counted, keep_below
        self.shape: tuple[int, ...] | None = None
        self.done = np.zeros(count, dtype=bool)
        self.raw_sizes = np.zeros((count, 2), dtype=np.int64)
        self.sha256 = [""] * count
        self._recipe = hashlib.sha256(canonical_json(recipe).encode()).hexdigest()
        self._sums = [0, 0, 0]
        self._squares = [0, 0, 0]
        self._pixels_path = folder / "pixels.u8"
        self._file: RawIOBase | None = None
        self._chunks = 0
        self._chunk = _empty_chunk()
        self._chunk_bytes = 0
        self._resume()

    @property
    def kept(self) -> bool:
        """True where pixels are kept."""
        return self.shape is not None and len(self.done) * math.prod(self.shape) <= self.keep_below

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def add(self, batch: PixelBatch) -> None:
        """Take some images; ``batch.rows`` count from 0 to N - 1.

        Raises:
            ArtifactError: The disk is full.
        """
        self.shape = batch.pixels.shape[1:]
        if self.kept:
            self._write(batch)
        counted = batch.pixels[self.counted[batch.rows]]
        chunk = self._chunk
        chunk["rows"] += batch.rows.tolist()
        chunk["raw_sizes"] += batch.raw_sizes.tolist()
        chunk["sha256"] += batch.sha256
        for channel in range(counted.shape[1]):
            values = counted[:, channel]
            chunk["sums"][channel] += int(values.sum(dtype=np.int64))
            chunk["squares"][channel] += int(np.square(values, dtype=np.uint16).sum(dtype=np.int64))
        self._chunk_bytes += batch.pixels.nbytes
        if self._chunk_bytes >= _CHUNK_BYTES or len(chunk["rows"]) >= _CHUNK_ROWS:
            self._close_chunk()

    def finish(self) -> None:
        """Close the last chunk.

        Raises:
            ArtifactError: A row is missing.
        """
        if self._chunk["rows"]:
            self._close_chunk()
        if not self.done.all():
            raise ArtifactError(f"{self.folder}: {int((~self.done).sum())} of {len(self.done)} images never came")

    def statistics(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Mean and standard deviation of the counted rows' pixels in [0, 1], float64 [C]; None without such rows.

        Sums are whole numbers, so that neither order nor interruption can change a bit.
        """
        if self.shape is None or not self.counted.any():
            return None
        channels, pixels = self.shape[0], int(self.counted.sum()) * math.prod(self.shape[1:])
        means = [Fraction(total, pixels) for total in self._sums[:channels]]
        variances = [Fraction(total, pixels) - mean**2 for total, mean in zip(self._squares, means, strict=False)]
        mean = np.asarray([float(value / 255) for value in means])
        std = np.asarray([math.sqrt(value / 255**2) for value in variances])
        return mean, std

    def chunks(self) -> Iterator[np.ndarray]:
        """The kept pixels, in the order of the rows: uint8 [B, C, H, W]."""
        if self.shape is None:
            return
        row_bytes = math.prod(self.shape)
        step = max(1, _COPY_BYTES // row_bytes)
        with self._pixels_path.open("rb") as file:
            for start in range(0, len(self.done), step):
                rows = min(step, len(self.done) - start)
                data = file.read(rows * row_bytes)
                yield np.frombuffer(data, dtype=np.uint8).reshape(rows, *self.shape)

    def _write(self, batch: PixelBatch) -> None:
        with writing_to(self._pixels_path):
            if self._file is None:  # without a buffer, so that a full disk shows here and not on closing
                self._file = self._pixels_path.open("r+b" if self._pixels_path.exists() else "w+b", buffering=0)
            row_bytes = batch.pixels[0].nbytes
            runs = np.flatnonzero(np.diff(batch.rows, prepend=-2) != 1)
            for start, stop in zip(runs, [*runs[1:], len(batch.rows)], strict=True):
                self._file.seek(int(batch.rows[start]) * row_bytes)
                _write_all(self._file, batch.pixels[start:stop])

    def _close_chunk(self) -> None:
        if self._file is not None:
            with writing_to(self._pixels_path):
                flush(self._pixels_path)
        chunk = {**self._chunk, "recipe": self._recipe, "shape": list(self.shape or ())}
        write_json(self.folder / f"chunk-{self._chunks:05d}.json", chunk)
        self._take(chunk)
        self._chunk, self._chunk_bytes = _empty_chunk(), 0

    def _take(self, chunk: dict[str, Any]) -> None:
        rows = np.asarray(chunk["rows"], dtype=np.int64)
        self.done[rows] = True
        self.raw_sizes[rows] = chunk["raw_sizes"]
        for row, sha256 in zip(chunk["rows"], chunk["sha256"], strict=True):
            self.sha256[row] = sha256
        self._sums = [a + b for a, b in zip(self._sums, chunk["sums"], strict=True)]
        self._squares = [a + b for a, b in zip(self._squares, chunk["squares"], strict=True)]
        self.shape = tuple(chunk["shape"])
        self._chunks += 1

    def _resume(self) -> None:
        paths = sorted(self.folder.glob("chunk-*.json"))
        chunks = [read_json(path) for path in paths]
        if all(chunk["recipe"] == self._recipe for chunk in chunks):
            for chunk in chunks:
                self._take(chunk)
        else:
            for path in paths:
                path.unlink()


def _write_all(file: RawIOBase, array: np.ndarray) -> None:
    left = memoryview(array.tobytes())
    while left:
        left = left[file.write(left) :]


def _empty_chunk() -> dict[str, Any]:
    return {"rows": [], "raw_sizes": [], "sha256": [], "sums": [0, 0, 0], "squares": [0, 0, 0]}
