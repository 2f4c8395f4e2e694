"""Pixels of a raw data set as a stream of batches, decoded in threads, memory flat. Imports no torch."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from roarline.data.archives import stream_members
from roarline.data.decoding import decode, from_array, resize_and_crop, to_array
from roarline.data.raw import OWN_FILE, STREAMED, RawDataset, RawFile, Rows
from roarline.errors import DataError

_MOST_PROBLEMS = 10
_ROWS_A_BATCH = 64
_FILES_A_BATCH = 16
_BATCHES_AHEAD_A_THREAD = 3

Source = tuple[int, str, Callable[[], bytes]]  # row, name for messages, how to get the encoded bytes


@dataclass
class PixelBatch:
    """Some images, resized and cropped, all of one size.

    Attributes:
        rows: [B] int64, of the raw data set.
        pixels: uint8 [B, C, H, W].
        raw_sizes: [B, 2] int64: H, W before resizing.
        sha256: [B] of the encoded file; "" where there is none.
    """

    rows: np.ndarray
    pixels: np.ndarray
    raw_sizes: np.ndarray
    sha256: list[str]


@dataclass
class _Image:
    """One image on its way; ``problem`` says why it has no pixels."""

    row: int
    name: str
    pixels: np.ndarray = field(default_factory=lambda: np.empty((0, 0, 0), dtype=np.uint8))
    raw_size: tuple[int, int] = (0, 0)
    sha256: str = ""
    problem: str = ""


@dataclass
class PixelStream:
    """How raw images are read.

    Attributes:
        root: Where ``raw.files`` lie.
        resize_px: See ``decoding.resize_and_crop``.
        crop_px: See ``decoding.resize_and_crop``.
        stretch: See ``decoding.resize_and_crop``.
        threads: Threads that read and decode files.
        shape: [C, H, W] that every image must have; None: that of the first.
    """

    raw: RawDataset
    root: Path | None
    resize_px: int | None = None
    crop_px: int | None = None
    stretch: bool = False
    threads: int = 2
    shape: tuple[int, ...] | None = None
    _problems: list[str] = field(default_factory=list)

    def batches(self, rows: np.ndarray) -> Iterator[PixelBatch]:
        """Read some rows, each once, in an order that suits the source.

        Raises:
            DataError: Images are missing, unreadable, too small or differ in size; lists up to ten.
        """
        array, files = self.raw.images, self.raw.files or ()
        for images in self._from_files(files, rows) if array is None else self._from_array(array, rows):
            good = [image for image in images if self._fits(image)]
            if good:
                yield PixelBatch(
                    rows=np.asarray([image.row for image in good], dtype=np.int64),
                    pixels=np.stack([image.pixels for image in good]),
                    raw_sizes=np.asarray([image.raw_size for image in good], dtype=np.int64),
                    sha256=[image.sha256 for image in good],
                )
        if self._problems:
            raise self._error(f"{len(self._problems)} of {len(rows)} images can't be used")

    def _fits(self, image: _Image) -> bool:
        if image.problem:
            self._problems.append(image.problem)
            if len(self._problems) >= _MOST_PROBLEMS:
                raise self._error(f"{_MOST_PROBLEMS} images can't be used; perhaps there are more")
            return False
        self.shape = self.shape or image.pixels.shape
        if image.pixels.shape != self.shape:
            (_, height, width), (_, other_height, other_width) = image.pixels.shape, self.shape
            self._problems.append(
                f"{image.name}: {width}×{height} px, where others have {other_width}×{other_height}; "
                "set data.resize_px and data.crop_px, so that all have one size"
            )
            raise self._error("images can't be used")
        return True

    def _error(self, summary: str) -> DataError:
        return DataError("\n  ".join([f"data set {self.raw.name!r}: {summary}:", *self._problems]))

    def _from_array(self, array: Rows, rows: np.ndarray) -> Iterator[list[_Image]]:
        for start in range(0, len(rows), _ROWS_A_BATCH):
            chosen = rows[start : start + _ROWS_A_BATCH]
            images = np.asarray(array[chosen])
            if images.dtype != np.uint8:
                raise DataError(f"data set {self.raw.name!r}: images: expected uint8, got {images.dtype}")
            yield [self._changed(int(row), pixels) for row, pixels in zip(chosen, images, strict=True)]

    def _changed(self, row: int, pixels: np.ndarray) -> _Image:
        name = self.raw.sample_ids[row]
        image = _Image(row, name, pixels, (pixels.shape[1], pixels.shape[2]))
        if self.resize_px is not None or self.crop_px is not None:
            try:
                image.pixels = self._seen(from_array(pixels), name)
            except DataError as error:
                image.problem = str(error)
        return image

    def _from_files(self, files: Sequence[RawFile], rows: np.ndarray) -> Iterator[list[_Image]]:
        if self.root is None:
            raise DataError(f"data set {self.raw.name!r} lists files: set data.root to where they lie")
        waiting: deque[Future[list[_Image]]] = deque()
        with (
            _open_tar(self.root, any(files[row].offset >= 0 for row in rows)) as tar,
            ThreadPoolExecutor(self.threads, thread_name_prefix="decode") as pool,
        ):
            try:
                batch: list[Source] = []
                for source in self._sources(files, self.root, tar, rows):
                    batch.append(source)
                    if len(batch) == _FILES_A_BATCH:
                        waiting.append(pool.submit(self._decode_all, batch))
                        batch = []
                    if len(waiting) > _BATCHES_AHEAD_A_THREAD * self.threads:
                        yield waiting.popleft().result()
                waiting.append(pool.submit(self._decode_all, batch))
                while waiting:
                    yield waiting.popleft().result()
            finally:
                pool.shutdown(cancel_futures=True)

    def _decode_all(self, sources: list[Source]) -> list[_Image]:
        return [self._decode(*source) for source in sources]

    def _decode(self, row: int, name: str, fetch: Callable[[], bytes]) -> _Image:
        image = _Image(row, name)
        try:
            data = fetch()
            decoded = decode(data, name)
            image.raw_size = (decoded.height, decoded.width)
            image.pixels = self._seen(decoded, name)
            image.sha256 = hashlib.sha256(data).hexdigest()
        except OSError as error:
            image.problem = f"{name}: can't be read ({error.strerror})"
        except DataError as error:
            image.problem = str(error)
        return image

    def _seen(self, image: Image.Image, name: str) -> np.ndarray:
        return to_array(resize_and_crop(image, self.resize_px, self.crop_px, name, stretch=self.stretch))

    def _sources(self, files: Sequence[RawFile], root: Path, tar: int, rows: np.ndarray) -> Iterator[Source]:
        streamed = {files[row].path: row for row in rows.tolist() if files[row].offset == STREAMED}
        if streamed:
            for path, data in stream_members(root, streamed):
                yield streamed.pop(path), f"{root}:{path}", _given(data)
                if not streamed:
                    break
            for path in sorted(streamed):
                self._problems.append(f"{root}:{path}: no longer there")
        for row in rows.tolist():
            path, offset, size = files[row]
            if offset == OWN_FILE:
                yield row, str(root / path), (root / path).read_bytes
            elif offset >= 0:
                yield row, f"{root}:{path}", _part(tar, offset, size)


def _given(data: bytes) -> Callable[[], bytes]:
    return lambda: data


def _part(tar: int, offset: int, size: int) -> Callable[[], bytes]:
    return lambda: os.pread(tar, size, offset)


@contextlib.contextmanager
def _open_tar(path: Path, needed: bool) -> Iterator[int]:
    if not needed:
        yield -1
        return
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield handle
    finally:
        os.close(handle)
