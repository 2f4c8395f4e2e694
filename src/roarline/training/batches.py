"""Images that a loop asks for by row: resident on the device, or read while the step before computes.

Shapes: N images of a split, B of a batch, C channels, H × W px, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import torch
from torch import Tensor

Bounds = Sequence[tuple[int, int]]
Prepare = Callable[[Tensor, Tensor], Tensor]
"""(what is stored [B, C, H, W], rows int64 [B]) to network inputs float32 [B, 3, H, W]."""


class Split(Protocol):
    """Images and labels of one split.

    Attributes:
        labels: int64 [N], or float32 [N, K] multi-hot, on the device.
        image_size: (H, W) in px.
    """

    @property
    def labels(self) -> Tensor: ...

    @property
    def image_size(self) -> tuple[int, int]: ...

    def batches(self, order: Tensor, bounds: Bounds) -> Iterator[tuple[Tensor, Tensor]]:
        """For each (start, stop): the network inputs and labels of rows ``order[start:stop]``, on the device."""
        ...


class ResidentSplit:
    """A split that lies on the device as a whole.

    Args:
        images: [N, C, H, W], network inputs, or what ``prepare`` makes them of batch by batch.
        labels: See ``Split``.
        prepare: None where the images are ready.
    """

    def __init__(self, images: Tensor, labels: Tensor, prepare: Prepare | None = None) -> None:
        self.images, self.labels, self.prepare = images, labels, prepare
        self.image_size = (int(images.shape[-2]), int(images.shape[-1]))

    def batches(self, order: Tensor, bounds: Bounds) -> Iterator[tuple[Tensor, Tensor]]:
        """See ``Split``."""
        order = order.to(self.images.device)
        for start, stop in bounds:
            rows = order[start:stop]
            images = self.images.index_select(0, rows)
            if self.prepare is not None:
                images = self.prepare(images, rows)
            yield images, self.labels.index_select(0, rows)


class StreamedSplit:
    """A split that doesn't fit: the next batch is read while this one computes.

    Args:
        read: Rows int64 [B], on the CPU, to what is stored of them [B, C, H, W]; called on a thread of its own.
        labels: See ``Split``.
        prepare: Makes network inputs of it, on the labels' device.
        image_size: (H, W) in px.
    """

    def __init__(
        self, read: Callable[[Tensor], Tensor], labels: Tensor, prepare: Prepare, image_size: tuple[int, int]
    ) -> None:
        self.read, self.labels, self.prepare, self.image_size = read, labels, prepare, image_size

    def batches(self, order: Tensor, bounds: Bounds) -> Iterator[tuple[Tensor, Tensor]]:
        """See ``Split``."""
        order, device = order.cpu(), self.labels.device
        with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as ahead:
            try:
                waiting = [ahead.submit(self.read, order[start:stop]) for start, stop in bounds[:2]]
                for index, (start, stop) in enumerate(bounds):
                    stored = waiting.pop(0).result()
                    if index + 2 < len(bounds):
                        after = bounds[index + 2]
                        waiting.append(ahead.submit(self.read, order[after[0] : after[1]]))
                    rows = order[start:stop].to(device, non_blocking=True)
                    yield self.prepare(stored.to(device, non_blocking=True), rows), self.labels.index_select(0, rows)
            finally:  # a consumer that stops early leaves no thread reading a closed file
                ahead.shutdown(cancel_futures=True)


def batch_bounds(count: int, batch_size: int) -> list[tuple[int, int]]:
    """Where batches start and stop; a last batch of one image joins the batch before it.

    Batch norm can't train on a single image where the map has shrunk to one place, and dropping the image would leave
    it out of an epoch.
    """
    bounds = [(start, min(start + batch_size, count)) for start in range(0, count, batch_size)]
    if batch_size > 1 and len(bounds) > 1 and bounds[-1][1] - bounds[-1][0] == 1:
        bounds[-2:] = [(bounds[-2][0], count)]
    return bounds


def in_order(split: Split, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """All of a split, once, first row first."""
    count = split.labels.shape[0]
    bounds = [(start, min(start + batch_size, count)) for start in range(0, count, batch_size)]
    return split.batches(torch.arange(count), bounds)
