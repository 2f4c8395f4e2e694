"""Overlap of boxes, in both conventions that published code uses.

Boxes are x0, y0, x1, y1 in px. Shapes: n and m boxes.
"""

from __future__ import annotations

import numpy as np


def iou_matrix(boxes_n4: np.ndarray, others_m4: np.ndarray, *, inclusive: bool = True) -> np.ndarray:
    """Intersection over union of every box with every other.

    Args:
        boxes_n4, others_m4: Real.
        inclusive: True: x1 and y1 are the last px of a box; False: the first px after it.

    Returns:
        float64 [n, m] in [0, 1]; 0 where both boxes are empty.
    """
    one = 1 if inclusive else 0
    a, b = boxes_n4[:, None].astype(np.float64), others_m4[None].astype(np.float64)
    width = np.minimum(a[..., 2], b[..., 2]) - np.maximum(a[..., 0], b[..., 0]) + one
    height = np.minimum(a[..., 3], b[..., 3]) - np.maximum(a[..., 1], b[..., 1]) + one
    shared = np.clip(width, 0, None) * np.clip(height, 0, None)
    union = _areas(boxes_n4, one)[:, None] + _areas(others_m4, one)[None] - shared
    return np.asarray(np.where(union > 0, shared / np.where(union > 0, union, 1), 0.0))


def _areas(boxes_n4: np.ndarray, one: int) -> np.ndarray:
    boxes = boxes_n4.astype(np.float64)
    sides = np.clip(boxes[:, 2:] - boxes[:, :2] + one, 0, None)
    return np.asarray(sides[:, 0] * sides[:, 1])
