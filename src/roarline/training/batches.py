"""Images that a loop asks for by row: resident on the device, or read while the step before computes.

Shapes: N images of a split, B of a batch, C channels, H × W px, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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
        order_there = order.to(device)

        def read(start: int, stop: int) -> Tensor:
            return pinned(self.read(order[start:stop]), device)

        with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as ahead:
            try:
                waiting = [ahead.submit(read, *next_bounds) for next_bounds in bounds[:2]]
                for index, (start, stop) in enumerate(bounds):
                    stored = waiting.pop(0).result()
                    if index + 2 < len(bounds):
                        waiting.append(ahead.submit(read, *bounds[index + 2]))
                    rows = order_there[start:stop]
                    yield self.prepare(stored.to(device, non_blocking=True), rows), self.labels.index_select(0, rows)
            finally:  # a consumer that stops early leaves no thread reading a closed file
                ahead.shutdown(cancel_futures=True)


def pinned(stored: Tensor, device: torch.device) -> Tensor:
    """In memory that a GPU copies from while the program goes on; for a CPU as it is."""
    return stored.pin_memory() if device.type == "cuda" else stored


def batch_bounds(count: int, batch_size: int) -> list[tuple[int, int]]:
    """Where batches start and stop; a last batch of a single image joins the batch before it.

    Batch norm can't train on a single image where the map has shrunk to one place, and dropping the image would leave
    it out of an epoch.
    """
    bounds = [(start, min(start + batch_size, count)) for start in range(0, count, batch_size)]
    if batch_size > 1 and len(bounds) > 1 and bounds[-1][1] - bounds[-1][0] == 1:
        bounds[-2:] = [(bounds[-2][0], count)]
    return bounds


@dataclass(frozen=True)
class Pass:
    """A part of a step's batch that goes through the network at once, in this process.

    Attributes:
        step: From 0, in the epoch.
        part: From 0, among all passes and processes of the step.
        start, stop: Places in the epoch's order.
        weight: What the pass's mean loss counts by, so that the step's gradient is that of the whole batch. 0 where
            there are fewer images than processes: this one runs along with an image that another one has.
        first, last: Of this process's passes of the step.
    """

    step: int
    part: int
    start: int
    stop: int
    weight: float
    first: bool
    last: bool

    @property
    def counted(self) -> bool:
        """Whether the images are this process's, and no other's."""
        return self.weight > 0


def passes(bounds: Bounds, parts: int = 1, rank: int = 0, processes: int = 1) -> list[Pass]:
    """Cut each batch of an epoch into passes of as equal a size as can be, each of them among the processes.

    A pass has at least 2 images among all processes, so that a small last batch has fewer of them; where it has fewer
    than there are processes, some only run along. Steps and passes are the same for any number of processes.

    Args:
        bounds: Of the batches of optimiser steps.
        parts: Passes of a step.
        rank, processes: Which process this is, and of how many.
    """
    found = []
    for step, (start, stop) in enumerate(bounds):
        size = stop - start
        count = max(1, min(parts, size // 2))
        for place in range(count):
            first, end = start + size * place // count, start + size * (place + 1) // count
            low, high = (first + (end - first) * edge // processes for edge in (rank, rank + 1))
            weight = processes * (high - low) / size
            own = (low, high) if low < high else (first, first + 1)
            found.append(Pass(step, place * processes + rank, *own, weight, place == 0, place == count - 1))
    return found


class Reading:
    """Which rows of a split an epoch reads: its images, and beside each of them its companions.

    Args:
        order: Of the epoch, int64 [N].
        companions: Rows int64 [N, n] in that order, or None.
    """

    def __init__(self, order: Tensor, companions: Tensor | None) -> None:
        self.order, self.companions = order, companions
        self.images = len(order)
        self.each = 0 if companions is None else companions.shape[1]

    @property
    def count(self) -> int:
        """Images that are read in an epoch; those of the split come first where something is drawn for each."""
        return self.images * (1 + self.each)

    def plan(self, places: Sequence[Pass]) -> tuple[Tensor, Bounds]:
        """What is read for some passes: of each its images, then all of their companions."""
        if self.companions is None:
            return self.order, [(place.start, place.stop) for place in places]
        rows, bounds, end = [], [], 0
        for place in places:
            own = slice(place.start, place.stop)
            rows += [self.order[own], self.companions[own].flatten()]
            bounds.append((end, end + (place.stop - place.start) * (1 + self.each)))
            end = bounds[-1][1]
        return torch.cat(rows), bounds

    def places(self, place: Pass) -> slice | Tensor:
        """Where the draws of a pass's images lie among those of the epoch."""
        if self.companions is None:
            return slice(place.start, place.stop)
        beside = torch.arange(place.start * self.each, place.stop * self.each) + self.images
        return torch.cat([torch.arange(place.start, place.stop), beside])


def in_order(split: Split, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """All of a split, once, first row first."""
    count = split.labels.shape[0]
    bounds = [(start, min(start + batch_size, count)) for start in range(0, count, batch_size)]
    return split.batches(torch.arange(count), bounds)
