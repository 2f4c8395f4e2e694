"""Pixels of a ``dataset`` artifact, packed or from the files that it lists, as tensors.

Shapes: B rows, C channels (1 grey, 3 RGB), H×W px.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import torch
from torch import Tensor

from roarline.artifacts.dataset import DatasetFile
from roarline.data.channel_values import channel_values
from roarline.data.decoding import decode, resize_and_crop, to_array
from roarline.data.raw import OWN_FILE
from roarline.errors import DataError

_BATCHES_AHEAD = 2


class ImageReader:
    """Reads images by row; a context manager that ends its threads.

    Args:
        dataset: The open ``dataset.h5``.
        root: Where the raw data lies: needed where the pixels aren't packed.
        threads: Threads that decode files.
    """

    def __init__(self, dataset: DatasetFile, root: str | Path | None, threads: int = 2) -> None:
        self.dataset = dataset
        self.root = Path(root) if root is not None else None
        self.threads = threads
        self._tar: int | None = None
        self._opening = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the threads and close the tar."""
        if "_decoders" in self.__dict__:
            self._decoders.shutdown(cancel_futures=True)
            del self.__dict__["_decoders"]
        if self._tar is not None:
            os.close(self._tar)
            self._tar = None

    def read(self, rows: Sequence[int] | np.ndarray) -> Tensor:
        """Pixels of some rows, in the order asked for.

        Returns:
            uint8 [B, C, H, W].

        Raises:
            DataError: A file is missing, changed since prepare-data, or unreadable; the message names it.
        """
        if self.dataset.packed:
            return torch.from_numpy(self.dataset.pixels(rows))
        entries = self.dataset.file_entries(rows)
        images = list(self._decoders.map(self._read_file, entries))
        if not images:
            height, width = self.dataset.image_size or (0, 0)
            return torch.empty((0, 3, height, width), dtype=torch.uint8)
        return torch.from_numpy(np.stack(images))

    def batches(self, rows: Sequence[int] | np.ndarray, batch_size: int) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Batches in the order of ``rows``, the next ones read in the background; the last may be smaller.

        Yields:
            Row numbers [B] int64 and their pixels, as ``read`` gives them.
        """
        order = np.asarray(rows, dtype=np.int64)
        starts = iter(range(0, len(order), batch_size))
        waiting: deque[tuple[np.ndarray, Future[Tensor]]] = deque()
        with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as ahead:

            def ask() -> None:
                start = next(starts, None)
                if start is not None:
                    batch = order[start : start + batch_size]
                    waiting.append((batch, ahead.submit(self.read, batch)))

            try:
                for _ in range(_BATCHES_AHEAD):
                    ask()
                while waiting:
                    batch, pixels = waiting.popleft()
                    ask()
                    yield batch, pixels.result()
            finally:  # a consumer that stops early leaves no thread reading a closed file
                ahead.shutdown(cancel_futures=True)

    @cached_property
    def _decoders(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.threads, thread_name_prefix="decode")

    def _read_file(self, entry: tuple[str, int, int, str]) -> np.ndarray:
        path, offset, size, sha256 = entry
        name, data = self._bytes(path, offset, size)
        if len(data) != size or (sha256 and hashlib.sha256(data).hexdigest() != sha256):
            raise DataError(
                f"{name}: changed since prepare-data read it ({len(data)} bytes, then {size}); "
                "restore it, or run prepare-data again on the changed data"
            )
        of = self.dataset
        image = resize_and_crop(decode(data, name), of.resize_px, of.crop_px, name, stretch=of.stretched)
        pixels = to_array(image)
        expected = self.dataset.image_size
        if expected is not None and pixels.shape[1:] != expected:
            raise DataError(f"{name}: {pixels.shape[1:]} px, expected {expected}")
        return pixels

    def _bytes(self, path: str, offset: int, size: int) -> tuple[str, bytes]:
        if self.root is None:
            raise DataError(f"data set {self.dataset.name!r} is an index of files: set data.root to where they lie")
        if offset == OWN_FILE:
            name = self.root / path
            try:
                return str(name), name.read_bytes()
            except OSError as error:
                raise DataError(f"{name}: can't be read ({error.strerror}); is data.root right?") from error
        return f"{self.root}:{path}", self._tar_bytes(offset, size)

    def _tar_bytes(self, offset: int, size: int) -> bytes:
        try:
            with self._opening:
                if self._tar is None:
                    self._tar = os.open(str(self.root), os.O_RDONLY | os.O_CLOEXEC)
            return os.pread(self._tar, size, offset)
        except OSError as error:
            raise DataError(f"{self.root}: can't be read ({error.strerror}); is data.root right?") from error


def normalise(pixels: Tensor, mean: Sequence[float] | np.ndarray, std: Sequence[float] | np.ndarray) -> Tensor:
    """Pixels to network inputs: (pixels / 255 − mean) / std.

    Args:
        pixels: uint8 [B, C, H, W]; a single channel is repeated to 3.
        mean: In [0, 1], one number or three.
        std: As ``mean``, above 0.

    Returns:
        float32 [B, 3, H, W], on the device of ``pixels``.

    Raises:
        DataError: The number of channels or of statistics is neither 1 nor 3.
    """
    if pixels.ndim != 4 or pixels.shape[1] not in (1, 3) or len(mean) not in (1, 3) or len(mean) != len(std):
        raise DataError(
            f"normalise: expected pixels [B, 1 or 3, H, W] and 1 or 3 numbers of mean and std, "
            f"got {list(pixels.shape)}, {len(mean)} and {len(std)}"
        )
    centre, scale = (channel_values(given, torch.float32, pixels.device) for given in (mean, std))
    values = pixels.to(torch.float32).div_(255)
    if centre.shape[1] in (1, values.shape[1]):
        values.sub_(centre).div_(scale)
    else:
        values = (values - centre) / scale
    return values.expand(-1, 3, -1, -1).contiguous() if values.shape[1] == 1 else values
