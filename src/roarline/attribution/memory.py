"""Out of memory on an accelerator: halve the number of images in a pass and go on.

The limit holds for all later batches of the same method. Every row draws from seeds of its own, so that its map is the
same however many rows share a pass, up to the order in which floating point numbers are summed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch

from roarline.errors import ModelError
from roarline.models.passes import at_most

Result = TypeVar("Result")


class MemoryWarning(UserWarning):
    """The device's memory was too small for a full pass."""


@dataclass
class PassLimit:
    """How many images may share a pass; None: as many as the fixed rule of ``passes.pass_size`` says."""

    images: int | None = None

    def halve(self, size: int, what: str) -> None:
        """Lower the limit after an out-of-memory error, and warn the first time.

        Args:
            size: Images that were in a pass.
            what: Named in the message.

        Raises:
            ModelError: There was one image in the pass.
        """
        if size <= 1:
            raise ModelError(
                f"{what}: out of memory with a single image in a pass; use a device with more memory, smaller images "
                "(data.resize_px, data.crop_px), or runtime.device: cpu"
            )
        if self.images is None:
            warnings.warn(
                f"{what}: out of memory with {size} images in a pass; going on with {size // 2}, or fewer where that "
                "is still too much; results stay the same",
                MemoryWarning,
                stacklevel=2,
            )
        self.images = size // 2


def within_memory(
    limit: PassLimit, rows: int, rule: int, what: str, compute: Callable[[slice], Result]
) -> Iterator[Result]:
    """Compute ``rows`` rows, all at once or in as many slices as the limit asks for.

    Args:
        limit: Lowered where memory runs out.
        rows: Rows of the batch.
        rule: Images in a pass where nothing limits them.
        what: Named in messages.
        compute: From a slice of the rows to their result; inside, ``passes.pass_size`` keeps the limit.

    Yields:
        The results of consecutive slices.

    Raises:
        ModelError: Even a single image is too much.
    """
    start = 0
    while start < rows:
        stop = min(rows, start + (limit.images or rows))
        try:
            with at_most(limit.images):
                result = compute(slice(start, stop))
        except torch.OutOfMemoryError:
            exhausted = True  # handled below, where the exception no longer holds the pass's tensors
        else:
            exhausted = False
        if exhausted:
            limit.halve(limit.images or rule, what)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            continue
        start = stop
        yield result
