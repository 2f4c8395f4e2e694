"""Where the objects of a data set are, row by row, for evaluations: strictly those of the row's own target.

Shapes: B rows, each an (image, target class) pair, H × W px, G boxes of a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from roarline.artifacts.dataset import DatasetFile
from roarline.errors import DataError
from roarline.imaging.ground_truth import VOID

Kind = Literal["segmentation", "boxes"]


@dataclass(frozen=True)
class Truth:
    """Ground truth of some rows.

    Attributes:
        masks: bool [B, H, W], pixels of the target's objects.
        valid: bool [B, H, W], pixels that count: not a void border; none of an image that has no segmentation.
        boxes: [B] arrays int64 [G, 4], x0, y0, x1, y1 in px, inclusive.
        shares: float32 [B, H, W] in [0, 1], how much of a pixel is an object's where masks are soft, else None.
        any_boxes: [B] True where the image has boxes of any class.
        difficult: [B] True where ``masks`` are of boxes, all of which are flagged as difficult.
    """

    masks: Tensor
    valid: Tensor
    boxes: list[np.ndarray]
    any_boxes: np.ndarray
    difficult: np.ndarray
    shares: Tensor | None = None


def known_kind(dataset: DatasetFile, asked: str, metric: str) -> Kind:
    """The kind of ground truth that a metric is given.

    Args:
        asked: ``segmentation``, ``boxes``, or ``auto``: segmentation where there is one.

    Raises:
        DataError: The data set has none of that kind.
    """
    if asked == "auto" and not dataset.segmented and dataset.boxes is None:
        raise DataError(
            f"{metric} needs boxes or segmentation, and data set {dataset.name!r} has neither; leave the metric out"
        )
    kind: Kind = "segmentation" if asked == "segmentation" or (asked == "auto" and dataset.segmented) else "boxes"
    if (kind == "segmentation" and not dataset.segmented) or (kind == "boxes" and dataset.boxes is None):
        raise DataError(
            f"{metric} needs {kind}, and data set {dataset.name!r} has none; leave the metric out, or change its "
            "ground_truth"
        )
    return kind


class Objects:
    """Looks ground truth up.

    Args:
        kind: Of the pixels that are the object's; None: segmentation where there is one.
        void_is_object: Count void borders as object, as some published code does.
    """

    def __init__(
        self,
        dataset: DatasetFile,
        size: tuple[int, int],
        kind: Kind | None = None,
        *,
        void_is_object: bool = False,
    ) -> None:
        self.dataset, self.size, self.void_is_object = dataset, size, void_is_object
        self.by_segmentation = dataset.segmented if kind is None else kind == "segmentation"

    def of(self, rows: np.ndarray, targets: np.ndarray, device: torch.device) -> Truth:
        """Ground truth of some rows of the data set and their target classes; empty where there is none."""
        found = [self._boxes(row, target) for row, target in zip(rows.tolist(), targets.tolist(), strict=True)]
        boxes = [own for own, _, _ in found]
        masks, valid = self._segmented(rows, targets) if self.by_segmentation else self._filled(boxes)
        hard = np.array([row[1] and not self.by_segmentation for row in found], dtype=bool)
        some = np.array([row[2] for row in found], dtype=bool)
        soft = self.dataset.shares(rows) if self.by_segmentation else None
        shares = None if soft is None else (masks * torch.from_numpy(soft).float() / 255).to(device)
        return Truth(masks.to(device), valid.to(device), boxes, some, hard, shares)

    def _segmented(self, rows: np.ndarray, targets: np.ndarray) -> tuple[Tensor, Tensor]:
        labels = torch.from_numpy(self.dataset.class_masks(rows, targets))
        void = labels == VOID
        if self.void_is_object:
            known = ~void.all(dim=2).all(dim=1)[:, None, None]
            return ((labels == 1) | void) & known, known.expand_as(void)
        return labels == 1, ~void

    def _filled(self, boxes: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
        masks = torch.zeros(len(boxes), *self.size, dtype=torch.bool)
        for mask, own in zip(masks, boxes, strict=True):
            for x0, y0, x1, y1 in own.tolist():
                mask[max(y0, 0) : y1 + 1, max(x0, 0) : x1 + 1] = True
        return masks, torch.ones_like(masks)

    def _boxes(self, row: int, target: int) -> tuple[np.ndarray, bool, bool]:
        """Boxes of the target, whether all of them are difficult, whether the image has any box."""
        boxes, flags = self._sorted
        span = slice(*np.searchsorted(boxes[:, 0], [row, row + 1]).tolist())
        own = boxes[span, 1] == target
        hard = flags[span][own]
        return boxes[span][own][:, 2:6], bool(len(hard) and hard.all()), bool(span.stop > span.start)

    @cached_property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray]:
        boxes, flags = self.dataset.boxes, self.dataset.box_difficult
        if boxes is None:
            return np.empty((0, 6), dtype=np.int64), np.empty(0, dtype=bool)
        order = np.argsort(boxes[:, 0], kind="stable")
        return boxes[order], np.zeros(len(boxes), dtype=bool) if flags is None else np.asarray(flags, dtype=bool)[order]
