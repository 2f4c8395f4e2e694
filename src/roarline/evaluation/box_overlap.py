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


def rescaled_boxes(
    boxes_n4: np.ndarray, size_wh: tuple[int, int], side_px: int, *, keep_aspect: bool = False
) -> np.ndarray:
    """Boxes of a picture as they lie in the square that a network sees, truncated to whole px.

    Args:
        boxes_n4: x0, y0, x1, y1 in px of the picture.
        size_wh: Width and height of the picture.
        side_px: Side of the square.
        keep_aspect: True: the shorter side was scaled to ``side_px`` and the longer one cropped at its centre; boxes
            may reach outside. False: both sides were scaled.

    Returns:
        int64 [n, 4].

    Source: wsolevaluation ``resize_bbox`` (False), saliency_investigation ``export_bboxes.resize_pos`` (True).
    """
    width, height = size_wh
    boxes = np.asarray(boxes_n4, dtype=np.float64)
    scale, offset = np.array([side_px / width, side_px / height] * 2), np.zeros(4)
    if keep_aspect:
        shorter = min(width, height)
        scale = np.full(4, side_px / shorter)
        offset = np.array([(size * side_px / shorter - side_px) / 2 for size in size_wh] * 2)
    rescaled: np.ndarray = np.trunc(boxes * scale - offset).astype(np.int64)
    return rescaled


def _areas(boxes_n4: np.ndarray, one: int) -> np.ndarray:
    boxes = boxes_n4.astype(np.float64)
    sides = np.clip(boxes[:, 2:] - boxes[:, :2] + one, 0, None)
    return np.asarray(sides[:, 0] * sides[:, 1])
