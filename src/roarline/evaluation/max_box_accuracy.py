"""MaxBoxAcc: does a box around what a map shows meet the object's box, at the best of many thresholds?

Accuracy at a threshold is a mean over images, and the best threshold is the data set's, not an image's: so a row gives
a vector, right or wrong at each threshold, and ``statistics_of_means`` takes the maximum of their mean.

Maps are cut into 256 grey levels, as published, so that a thousand thresholds have at most 256 different answers; all
of them come from one labelling (``imaging.level_components``). numpy, on the CPU.

Shapes: H × W px, T thresholds, D overlaps, n boxes of a map at all levels, G boxes of the ground truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
    found = boxes_at_levels(map_HW, step=step, which=which, compat=compat)
    best = np.zeros(int(found.of_threshold.max()) + 1)
    np.maximum.at(best, found.level, iou_matrix(found.boxes, boxes_G4).max(axis=1, initial=0))
    return np.asarray([(best >= overlap)[found.of_threshold] for overlap in overlaps])


@dataclass(frozen=True)
class LevelBoxes:
    """Boxes of a map at each grey level that a threshold falls on.

    Attributes:
        boxes: int64 [n, 4], x0, y0, x1, y1 in px, inclusive, in no particular order.
        level: int64 [n], the level of each.
        of_threshold: int64 [T], the level that each threshold falls on.
    """

    boxes: np.ndarray
    level: np.ndarray
    of_threshold: np.ndarray


def boxes_at_levels(
    map_HW: np.ndarray,
    *,
    step: float = 0.01,
    which: Literal["largest", "all"] = "largest",
    compat: Compat = "corrected",
) -> LevelBoxes:
    """The boxes that ``boxes_right`` compares: none where nothing exceeds a level, (0, 0, 0, 0) for ``original``."""
    levels, of_threshold, found = _found(map_HW, step, compat)
    if which == "largest":
        chosen = _largest(found) if compat == "corrected" else _enclosing_most(found, levels, _grey(map_HW))
        boxes, level = found.boxes[chosen], found.level[chosen]
    else:
        boxes, level = found.boxes, found.level
    if compat == "original":
        if which == "all":
            holes = _holes(_grey(map_HW), levels)
            boxes, level = np.concatenate([boxes, holes.boxes]), np.concatenate([level, holes.level])
        empty = np.setdiff1d(np.arange(len(levels)), level)
        boxes = np.concatenate([_published(boxes, map_HW.shape), np.zeros((len(empty), 4), dtype=np.int64)])
        level = np.concatenate([level, empty])
    return LevelBoxes(boxes, level, of_threshold)


def _found(map_HW: np.ndarray, step: float, compat: Compat) -> tuple[np.ndarray, np.ndarray, LevelComponents]:
    """Grey levels [L] that thresholds fall on, [T] which of them each falls on, and the components above each."""
    grey = _grey(map_HW)
    cuts = (thresholds(step) * int(grey.max())).astype(np.int64)
    levels, of_threshold = np.unique(cuts, return_inverse=True)
    weights = _contour_weights(grey) if compat == "original" else ()
    return levels, of_threshold, components_above(grey, levels, 8, weights)


def _grey(map_HW: np.ndarray) -> np.ndarray:
    """uint8: [0, 1] in 256 levels, truncated, as published."""
    return (np.asarray(map_HW, dtype=np.float64) * _LEVELS).astype(np.uint8)


def _largest(found: LevelComponents) -> np.ndarray:
    """Which component of each level is the largest: int64 [≤ L]; of equal ones the topmost, then the leftmost."""
    order = np.lexsort((-found.boxes[:, 0], -found.boxes[:, 1], found.pixels, found.level))
    return order[np.flatnonzero(np.append(np.diff(found.level[order]) != 0, True))[: len(order)]]


def _enclosing_most(found: LevelComponents, levels: np.ndarray, grey_HW: np.ndarray) -> np.ndarray:
    """Which component of each level has the contour that encloses most: int64 [≤ L].

    A contour encloses its component and the component's holes, with what lies in them. Where a component has no hole,
    its own area is the answer; else that lies between its own area and its box's, and only where this leaves several
    to choose from is a hole filled. The largest area of a level is no smaller than that of any higher level.
    """
    own, euler = found.sums.T
    sides = found.boxes[:, 2:] - found.boxes[:, :2]
    most = np.where(euler > 0.5, own, sides[:, 0] * sides[:, 1])  # Euler's number is 1 - holes
    chosen, least = [], 0.0
    present, first = np.unique(found.level, return_index=True)  # components come by rising level
    ends = np.append(first, len(found.level))[1:]
    for level, start, stop in zip(present[::-1].tolist(), first[::-1].tolist(), ends[::-1].tolist(), strict=True):
        here = np.arange(start, stop)
        least = max(least, float(own[here].max()))
        candidates = here[most[here] >= least]
        if len(candidates) > 1:
            areas = np.full(len(candidates), -1.0)
            for place in np.argsort(-most[candidates], kind="stable").tolist():
                one = candidates[place]
                if most[one] >= least:
                    whole = euler[one] > 0.5
                    areas[place] = own[one] if whole else _filled_area(grey_HW, int(levels[level]), found.boxes[one])
                    least = max(least, float(areas[place]))
            candidates = candidates[areas >= areas.max()]
        # OpenCV lists contours from the last row up; of equal ones the first of the list is taken.
        chosen.append(max(candidates.tolist(), key=lambda one: (found.boxes[one, 1], found.boxes[one, 0])))
    return np.array(chosen, dtype=np.int64)


def _published(boxes_n4: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Boxes as published code writes them: x1 and y1 one px after the last, but never beyond the image."""
    height, width = shape
    limits = np.array([width, height, width - 1, height - 1])
    return np.asarray(np.minimum(boxes_n4 + np.array([0, 0, 1, 1]), limits))


def _contour_weights(grey_HW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What each pixel adds to its component's area and Euler number, as pixels come in from the highest to the lowest.

    Both are sums over 2 × 2 pixels. Area of the polygon through the outermost pixels' centres: three inside enclose a
    triangle of 1/2 px², four the whole square. Euler's number of 8-connected components: (one inside − three inside −
    2 · two inside across) / 4 (Gray 1971). All four touch each other, so that each change belongs to the component of
    the pixel that makes it.
    """
    height, width = grey_HW.shape
    index = np.arange((height + 2) * (width + 2)).reshape(height + 2, width + 2)
    values = np.pad(grey_HW.astype(np.int64), 1, constant_values=-1).ravel()
    corners = np.stack([index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]], axis=-1).reshape(-1, 4)
    order = np.sort(values[corners] * len(values) * 4 + corners * 4 + np.arange(4), axis=1)[:, ::-1]
    place, pixel = order % 4, (order // 4) % len(values)
    across = place[:, 0] + place[:, 1] == 3  # the first two lie on a diagonal
    changes = np.empty((len(corners), 4))
    changes[:, 0], changes[:, 3] = 0.25, 0.25
    changes[:, 1] = np.where(across, -0.75, -0.25)
    changes[:, 2] = np.where(across, 0.25, -0.25)
    area = 0.5 * np.bincount(pixel[:, 2:].ravel(), minlength=len(values))
    euler = np.bincount(pixel.ravel(), changes.ravel(), minlength=len(values))
    inside = np.s_[1:-1, 1:-1]
    return area.reshape(height + 2, -1)[inside], euler.reshape(height + 2, -1)[inside]


def _holes(grey_HW: np.ndarray, levels: np.ndarray) -> LevelComponents:
    """Holes of the components as boxes around the pixels that border them; a hole hangs together by 4 neighbours."""
    height, width = grey_HW.shape
    # {grey <= level} is {-grey > -level - 1}; negated levels rise in reverse.
    dark = components_above(-grey_HW.astype(np.int64), -levels[::-1] - 1, 4)
    x0, y0, x1, y1 = dark.boxes.T
    closed = (x0 > 0) & (y0 > 0) & (x1 < width - 1) & (y1 < height - 1)
    around = dark.boxes[closed] + np.array([-1, -1, 1, 1])
    return LevelComponents(len(levels) - 1 - dark.level[closed], around, dark.pixels[closed], dark.sums[closed])


def _filled_area(grey_HW: np.ndarray, level: int, box_4: np.ndarray) -> float:
    """What the polygon around one component encloses, its holes included, in px²."""
    x0, y0, x1, y1 = box_4.tolist()
    labels, count = ndimage.label(grey_HW[y0 : y1 + 1, x0 : x1 + 1] > level, np.ones((3, 3)))
    whole = 1
    if count > 1:
        extents = ndimage.find_objects(labels)
        whole = next(number for number in range(1, count + 1) if _spans(extents[number - 1], labels.shape))
    outside, _ = ndimage.label(np.pad(labels != whole, 1, constant_values=True))
    filled = outside[1:-1, 1:-1] != outside[0, 0]
    corners = filled[:-1, :-1].astype(np.int64) + filled[:-1, 1:] + filled[1:, :-1] + filled[1:, 1:]
    return float((corners == 4).sum() + 0.5 * (corners == 3).sum())


def _spans(extent: tuple[slice, slice], shape: tuple[int, ...]) -> bool:
    return all(part.start == 0 and part.stop == side for part, side in zip(extent, shape, strict=True))
