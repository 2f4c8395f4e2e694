"""MaxBoxAcc: does a box around what a map shows meet the object's box, at the best of many thresholds?

Accuracy at a threshold is a mean over images, and the best threshold is the data set's, not an image's: so a row gives
a vector, right or wrong at each threshold, and ``statistics_of_means`` takes the maximum of their mean.

Maps are cut into 256 grey levels, as published, so that a thousand thresholds have at most 256 different answers; all
of them come from one labelling (``imaging.level_components``). numpy, on the CPU.

Shapes: H × W px, T thresholds, D overlaps, n boxes of a map at all levels, G boxes of the ground truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy import ndimage

from roarline.evaluation.box_overlap import iou_matrix
from roarline.imaging.level_components import LevelComponents, components_above

Compat = Literal["corrected", "original"]
_LEVELS = 255


def thresholds(step: float) -> np.ndarray:
    """0, step, 2 · step, … below 1: float64 [T]."""
    return np.arange(0, 1, step)


def boxes_right(
    map_HW: np.ndarray,
    boxes_G4: np.ndarray,
    *,
    step: float = 0.01,
    overlaps: Sequence[float] = (0.5,),
    which: Literal["largest", "all"] = "largest",
    compat: Compat = "corrected",
) -> np.ndarray:
    """Is a box of the map right, at each threshold, for each overlap that is asked for?

    Args:
        map_HW: In [0, 1].
        boxes_G4: x0, y0, x1, y1 in px, inclusive; at least one.
        step: Between thresholds τ; a pixel is in where its grey level exceeds int(τ · the map's highest level).
        overlaps: Right means an intersection over union of at least this with any of the boxes.
        which: ``largest``: the box around the largest component (MaxBoxAcc); ``all``: the best of the boxes around
            every component (MaxBoxAccV2).
        compat: ``original`` takes OpenCV's contours: the largest is that which encloses the largest polygon, holes have
            boxes of their own, and every box is one px too large to the right and below, but for the image's border.

    Returns:
        bool [D, T].

    Source: Choe et al. 2020, arXiv 2001.07437; wsolevaluation ``evaluation.BoxEvaluator``.
    Differs: by default components are counted in pixels, holes are no objects, boxes end where components do.
    """
    levels, of_threshold, found = _found(map_HW, step, compat)
    best = np.zeros(len(levels))
    if which == "all":
        boxes, level = found.boxes, found.level
        if compat == "original":
            holes = _holes(_grey(map_HW), levels)
            boxes, level = np.concatenate([boxes, holes.boxes]), np.concatenate([level, holes.level])
        boxes = _published(boxes, map_HW.shape) if compat == "original" else boxes
        np.maximum.at(best, level, iou_matrix(boxes, boxes_G4).max(axis=1, initial=0))
    else:
        best = iou_matrix(_largest(found, levels, map_HW, compat), boxes_G4).max(axis=1, initial=0)
    if which == "all" and compat == "original":  # where nothing is above the threshold, the original has an empty box
        empty = iou_matrix(np.zeros((1, 4)), boxes_G4).max()
        best[np.setdiff1d(np.arange(len(levels)), found.level)] = empty
    return np.asarray([(best >= overlap)[of_threshold] for overlap in overlaps])


def largest_boxes(map_HW: np.ndarray, *, step: float = 0.01, compat: Compat = "corrected") -> np.ndarray:
    """The box around the largest component at each threshold: int64 [T, 4], x0, y0, x1, y1 in px, inclusive.

    Where nothing exceeds the threshold it is (0, 0, -1, -1), which meets nothing; ``original``: (0, 0, 0, 0).
    """
    levels, of_threshold, found = _found(map_HW, step, compat)
    boxes: np.ndarray = _largest(found, levels, map_HW, compat)[of_threshold]
    return boxes


def all_boxes(map_HW: np.ndarray, *, step: float = 0.01, compat: Compat = "corrected") -> list[np.ndarray]:
    """The boxes around every component at each threshold: T arrays int64 [·, 4], in no particular order."""
    levels, of_threshold, found = _found(map_HW, step, compat)
    boxes, level = found.boxes, found.level
    if compat == "original":
        holes = _holes(_grey(map_HW), levels)
        boxes = _published(np.concatenate([boxes, holes.boxes]), map_HW.shape)
        level = np.concatenate([level, holes.level])
    return [boxes[level == index] for index in of_threshold]


def _found(map_HW: np.ndarray, step: float, compat: Compat) -> tuple[np.ndarray, np.ndarray, LevelComponents]:
    """Grey levels [L] that thresholds fall on, [T] which of them each falls on, and the components above each."""
    grey = _grey(map_HW)
    cuts = (thresholds(step) * int(grey.max())).astype(np.int64)
    levels, of_threshold = np.unique(cuts, return_inverse=True)
    weights = _quad_weights(grey) if compat == "original" else None
    return levels, of_threshold, components_above(grey, levels, 8, weights)


def _grey(map_HW: np.ndarray) -> np.ndarray:
    """uint8: [0, 1] in 256 levels, truncated, as published."""
    return (np.asarray(map_HW, dtype=np.float64) * _LEVELS).astype(np.uint8)


def _largest(found: LevelComponents, levels: np.ndarray, map_HW: np.ndarray, compat: Compat) -> np.ndarray:
    """int64 [L, 4]: of components of equal size the topmost, then the leftmost."""
    boxes = np.zeros((len(levels), 4), dtype=np.int64)
    if compat == "corrected":
        boxes[:, 2:] = -1
        order = np.lexsort((-found.boxes[:, 0], -found.boxes[:, 1], found.pixels, found.level))
        last = np.flatnonzero(np.append(np.diff(found.level[order]) != 0, True))[: len(order)]
        boxes[found.level[order[last]]] = found.boxes[order[last]]
        return boxes
    grey = _grey(map_HW)
    sides = found.boxes[:, 2:] - found.boxes[:, :2]
    most = sides[:, 0] * sides[:, 1]  # what a polygon through the outermost pixels can enclose
    for level in np.unique(found.level).tolist():
        here = np.flatnonzero(found.level == level)
        candidates = here[most[here] >= found.enclosed[here].max()]
        if len(candidates) > 1:
            areas = [_filled_area(grey, int(levels[level]), found.boxes[one]) for one in candidates]
            ties = candidates[np.isclose(areas, max(areas), rtol=0, atol=1e-9)]
            # OpenCV lists contours from the last row up; of equal ones the first of the list is taken.
            chosen = max(ties.tolist(), key=lambda one: (found.boxes[one, 1], found.boxes[one, 0]))
        else:
            chosen = candidates[0]
        boxes[level] = _published(found.boxes[[chosen]], map_HW.shape)[0]
    return boxes


def _published(boxes_n4: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Boxes as published code writes them: x1 and y1 one px after the last, but never beyond the image."""
    height, width = shape
    limits = np.array([width, height, width - 1, height - 1])
    return np.asarray(np.minimum(boxes_n4 + np.array([0, 0, 1, 1]), limits))


def _quad_weights(grey_HW: np.ndarray) -> np.ndarray:
    """Each pixel's share of the polygons through the outermost pixels' centres.

    Of every 2 × 2 pixels, three inside enclose a triangle of 1/2 px², four the whole square. All four touch each other,
    so that the pixel that completes the triangle, and the one that completes the square, bear 1/2 each.
    """
    height, width = grey_HW.shape
    index = np.arange(height * width).reshape(height, width)
    corners = np.stack([index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]], axis=-1).reshape(-1, 4)
    key = grey_HW.ravel()[corners].astype(np.int64) * (height * width) + corners
    lowest = np.sort(key, axis=1)[:, :2] % (height * width)
    return 0.5 * np.bincount(lowest.ravel(), minlength=height * width).reshape(height, width)


def _holes(grey_HW: np.ndarray, levels: np.ndarray) -> LevelComponents:
    """Holes of the components as boxes around the pixels that border them; a hole hangs together by 4 neighbours."""
    height, width = grey_HW.shape
    # {grey <= level} is {-grey > -level - 1}; negated levels rise in reverse.
    dark = components_above(-grey_HW.astype(np.int64), -levels[::-1] - 1, 4)
    x0, y0, x1, y1 = dark.boxes.T
    closed = (x0 > 0) & (y0 > 0) & (x1 < width - 1) & (y1 < height - 1)
    around = dark.boxes[closed] + np.array([-1, -1, 1, 1])
    return LevelComponents(len(levels) - 1 - dark.level[closed], around, dark.pixels[closed], dark.enclosed[closed])


def _filled_area(grey_HW: np.ndarray, level: int, box_4: np.ndarray) -> float:
    """What the polygon around one component encloses, its holes included, in px²."""
    x0, y0, x1, y1 = box_4.tolist()
    crop = grey_HW[y0 : y1 + 1, x0 : x1 + 1] > level
    labels, count = ndimage.label(crop, np.ones((3, 3)))
    extents = ndimage.find_objects(labels)
    whole = next(number for number in range(count) if _spans(extents[number], crop.shape))
    filled = ndimage.binary_fill_holes(labels == whole + 1)
    corners = filled[:-1, :-1].astype(np.int64) + filled[:-1, 1:] + filled[1:, :-1] + filled[1:, 1:]
    return float((corners == 4).sum() + 0.5 * (corners == 3).sum())


def _spans(extent: tuple[slice, slice], shape: tuple[int, ...]) -> bool:
    return all(part.start == 0 and part.stop == side for part, side in zip(extent, shape, strict=True))
