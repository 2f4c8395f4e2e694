"""Composites of 2 × 2 images: one that shows a class, in a random quadrant, and three that don't show it.

Shapes: N images of a split, B of a batch, K classes, C channels, H × W px, h × w cells of a map.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from roarline.errors import DataError

NEGATIVES = 3
# Which tile stands in the quadrants top left, top right, bottom left, bottom right: 0 the image itself, 1 to 3 its
# negatives in the order in which they were drawn; one row for each quadrant that the image itself may have.
_TILES = ((0, 3, 2, 1), (3, 0, 2, 1), (3, 2, 0, 1), (3, 2, 1, 0))


@dataclass(frozen=True)
class Drawn:
    """What chance decided for N images.

    Attributes:
        targets_N: The class whose maps are compared, int64; -1 for an image without any, which has no composite.
        negatives_N3: Rows of images that don't show it, int64.
        quadrants_N: Where the image itself stands: 0 top left, 1 top right, 2 bottom left, 3 bottom right.
    """

    targets_N: Tensor
    negatives_N3: Tensor
    quadrants_N: Tensor


def composites(images_BCHW: Tensor, negatives_B3CHW: Tensor, quadrants_B: Tensor) -> Tensor:
    """Put each image into its quadrant and its negatives into the others, the last drawn first.

    Args:
        images_BCHW, negatives_B3CHW: Of one dtype.
        quadrants_B: int64 in [0, 3].

    Returns:
        [B, C, 2H, 2W].

    Source: spec S2.1 (Pillai and Pirsiavash 2021, arXiv 2106.09692; its folder_composite.py).
    """
    rows, channels, height, width = images_BCHW.shape
    tiles = torch.cat([images_BCHW[:, None], negatives_B3CHW], 1)
    chosen = torch.tensor(_TILES, device=images_BCHW.device)[quadrants_B]
    arranged = tiles[torch.arange(rows, device=images_BCHW.device)[:, None], chosen]
    grid = arranged.reshape(rows, 2, 2, channels, height, width).permute(0, 3, 1, 4, 2, 5)
    return grid.reshape(rows, channels, 2 * height, 2 * width)


def placed(maps_Bhw: Tensor, quadrants_B: Tensor) -> Tensor:
    """Each map in its quadrant of a map of twice the sides, zeros elsewhere; in the graph.

    Returns:
        [B, 2h, 2w].
    """
    rows, height, width = maps_Bhw.shape
    here = torch.nn.functional.one_hot(quadrants_B, 4).to(maps_Bhw.dtype).reshape(rows, 2, 1, 2, 1)
    return (here * maps_Bhw[:, None, :, None, :]).reshape(rows, 2 * height, 2 * width)


class Companions:
    """Draws targets, negatives and quadrants for all images of a split at once.

    One class an image: the class of each negative is drawn from the other classes that have images, with replacement,
    then an image of it. Several: the target is drawn from the image's objects, and the negatives are three different
    images that show something, but not the target. Where there are but one or two of them, they stand more than once; a
    class without any is no target.

    Args:
        labels: int64 [N], or multi-hot [N, K].
        objects_NK: How many objects of each class an image has; by default one of each class that it shows.

    Raises:
        DataError: There are too few images of other classes.

    Source: spec S2.1, S2.4.
    """

    def __init__(self, labels: Tensor, objects_NK: Tensor | None = None) -> None:
        self.labels = labels.cpu()
        if labels.ndim == 1:
            self.classes, self.counts = self.labels.unique(return_counts=True)  # type: ignore[no-untyped-call]
            self.by_class = torch.argsort(self.labels, stable=True)
            if len(self.classes) < 2:
                raise DataError("composites need images of 2 classes or more, and the split has one")
            return
        shown_NK = self.labels > 0.5
        self.weights_NK = shown_NK.double() if objects_NK is None else objects_NK.cpu().double() * shown_NK
        something_N = shown_NK.any(1)
        self.without = [torch.nonzero(something_N & ~shown_NK[:, k])[:, 0] for k in range(shown_NK.shape[1])]
        for k, rows in enumerate(self.without):
            if not len(rows):
                self.weights_NK[:, k] = 0
        if not bool(self.weights_NK.any()):
            raise DataError(
                "composites need images that show something but not each other's classes, and there are none"
            )

    def draw(self, generator: torch.Generator) -> Drawn:
        """Draw for every image.

        Args:
            generator: On the CPU; a new state of it gives other draws.
        """
        count = len(self.labels)
        targets, negatives = self._one_class(generator) if self.labels.ndim == 1 else self._several(generator)
        return Drawn(targets, negatives, torch.randint(0, 4, (count,), generator=generator))

    def _one_class(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        own_N = torch.searchsorted(self.classes, self.labels)
        shape = (len(self.labels), NEGATIVES)
        other_N3 = torch.randint(0, len(self.classes) - 1, shape, generator=generator)
        other_N3 = other_N3 + (other_N3 >= own_N[:, None])
        starts = self.counts.cumsum(0) - self.counts
        return self.labels, self.by_class[starts[other_N3] + _below(self.counts[other_N3], generator)]

    def _several(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        sums_NK = self.weights_NK.cumsum(1)
        at_N1 = torch.rand((len(self.labels), 1), generator=generator, dtype=torch.float64) * sums_NK[:, -1:]
        targets_N = torch.searchsorted(sums_NK, at_N1, right=True)[:, 0]
        targets_N = targets_N.where(sums_NK[:, -1] > 0, -1)
        negatives_N3 = torch.zeros((len(self.labels), NEGATIVES), dtype=torch.int64)
        for k in targets_N.unique().tolist():  # type: ignore[no-untyped-call]
            rows = torch.nonzero(targets_N == k)[:, 0]
            if k >= 0:
                negatives_N3[rows] = self.without[k][_different(len(rows), len(self.without[k]), generator)]
        return targets_N, negatives_N3


def _below(limits: Tensor, generator: torch.Generator) -> Tensor:
    """Whole numbers from 0, each below its own limit."""
    draws = torch.rand(limits.shape, generator=generator, dtype=torch.float64)
    return (draws * limits).long().minimum(limits - 1)


def _different(rows: int, limit: int, generator: torch.Generator) -> Tensor:
    """Three different whole numbers below ``limit`` for each row, every ordered triple as likely; below 3: any."""
    if limit < NEGATIVES:
        return _below(torch.full((rows, NEGATIVES), limit), generator)
    draws = [_below(torch.full((rows,), limit - taken), generator) for taken in range(NEGATIVES)]
    first, second, third = draws
    second = second + (second >= first)
    low, high = torch.minimum(first, second), torch.maximum(first, second)
    third = third + (third >= low)
    third = third + (third >= high)
    return torch.stack([first, second, third], 1)
