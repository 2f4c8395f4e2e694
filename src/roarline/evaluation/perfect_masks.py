"""Masks that a metric of boxes calls best: the ground truth in the shape that the metric judges. numpy, on the CPU.

MaxBoxAcc, OM, LE and F1 take the best of an image's boxes and look for one part of the mask, so that a single box is
perfect, and two boxes that touch are not: they are one part. F1a is a mean over boxes, which no mask brings to 1 where
an image has several.

Boxes are half-open and inside the image. Shapes: H × W px, G boxes, D kinds of pixels, S sizes of a mask.
"""

from __future__ import annotations

import numpy as np


def largest_box_mask(boxes_G4: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """bool [H, W]: the largest box, of equal ones the first; nothing where there is no box."""
    mask = np.zeros(size, dtype=bool)
    if len(boxes_G4):
        sides = boxes_G4[:, 2:] - boxes_G4[:, :2]
        x0, y0, x1, y1 = boxes_G4[int((sides[:, 0] * sides[:, 1]).argmax())].tolist()
        mask[y0:y1, x0:x1] = True
    return mask


def best_mean_f1_mask(boxes_G4: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """bool [H, W]: of all masks of whole pixels the one with the highest mean F1 over the boxes.

    With s the mask's pixels, of which i lie in a box of a pixels, that box's F1 is 2 i / (s + a). So at a given s a
    pixel is worth Σ 1 / (s + a) over the boxes that it lies in, and the s pixels that are worth most are best; every s
    is tried. Pixels in the same boxes are worth the same.
    """
    if not len(boxes_G4):
        return np.zeros(size, dtype=bool)
    planes = np.zeros((len(boxes_G4), *size), dtype=bool)
    for plane, (x0, y0, x1, y1) in zip(planes, boxes_G4.tolist(), strict=True):
        plane[y0:y1, x0:x1] = True
    inside_GN = planes.reshape(len(boxes_G4), -1)
    areas_G = inside_GN.sum(axis=1)
    kinds_GD, kind_of, pixels_D = np.unique(inside_GN, axis=1, return_inverse=True, return_counts=True)
    sizes_S = np.arange(1, int(inside_GN.any(axis=0).sum()) + 1)
    worth_SD = (1 / (sizes_S[:, None] + areas_G)) @ kinds_GD
    order_SD = np.argsort(-worth_SD, axis=1, kind="stable")
    ordered = pixels_D[order_SD]
    taken = np.clip(sizes_S[:, None] - (ordered.cumsum(axis=1) - ordered), 0, ordered)
    best = int((taken * np.take_along_axis(worth_SD, order_SD, axis=1)).sum(axis=1).argmax())
    mask = np.zeros(inside_GN.shape[1], dtype=bool)
    for kind, count in zip(order_SD[best].tolist(), taken[best].tolist(), strict=True):
        mask[np.flatnonzero(kind_of.ravel() == kind)[:count]] = True
    return mask.reshape(size)
