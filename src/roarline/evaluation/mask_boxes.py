"""A mask, the box around its largest part, and the object's boxes: F1, localization error, statistics of masks.

Boxes are half-open: x0, y0 the first px, x1, y1 the first px after the last. Shapes: B rows, H × W px, G boxes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from roarline.evaluation.box_overlap import iou_matrix

Compat = Literal["corrected", "original"]
_EPSILON, _LEAST_SHARE = 1e-6, 1e-6
_RIGHT_OVERLAP = 0.5


@dataclass(frozen=True)
class BoxScores:
    """What one mask scores against each of G boxes: float64 [G] each.

    Attributes:
        f1: Of the continuous mask and the box, in [0, 1].
        iou: Of the box around the mask's largest part and the box, in [0, 1].
    """

    f1: np.ndarray
    iou: np.ndarray

    @property
    def localization_error(self) -> float:
        """0 where some box is met with an IoU above 0.5, else 1."""
        return 0.0 if bool((self.iou > _RIGHT_OVERLAP).any()) else 1.0


def binarised(masks_BHW: Tensor, threshold: Literal["mean", "area"] = "mean", compat: Compat = "corrected") -> Tensor:
    """Which pixels are in.

    Args:
        masks_BHW: In [0, 1].
        threshold: ``mean``: those above the mask's mean; ``area``: the highest ones, as many as the mask's mean is a
            share of all, fewer where pixels tie.
        compat: ``original`` has nothing of a constant mask: no pixel is above its mean.

    Returns:
        bool [B, H, W]; all of a constant mask but that of zeros, as the modes ``max`` and ``min`` of
        saliency_investigation have it, so that an object may fill its image.

    Source: saliency_investigation ``binarize_mask`` (mean), casme ``binarize_mask`` (area).
    """
    found = _above(masks_BHW.flatten(1).double(), threshold).reshape(masks_BHW.shape)
    if compat == "original":
        return found
    low, high = masks_BHW.amin(dim=(1, 2), keepdim=True), masks_BHW.amax(dim=(1, 2), keepdim=True)
    return found | ((low == high) & (high > 0))


def _above(flat_BN: Tensor, threshold: Literal["mean", "area"]) -> Tensor:
    """bool [B, N]."""
    first = flat_BN[:, :1]
    mean = (flat_BN - first).mean(dim=1, keepdim=True) + first  # so that a constant mask is its mean exactly
    if threshold == "mean":
        return flat_BN > mean
    count = flat_BN.shape[1]
    below = ((1 - mean.clamp(_LEAST_SHARE, 1 - _LEAST_SHARE)) * count).long().clamp(1, count)
    return flat_BN > flat_BN.sort(dim=1).values.gather(1, below - 1)


def largest_part(inside_HW: np.ndarray) -> np.ndarray:
    """The box around the largest part of a binary mask: int64 [4], half-open; empty at (0, 0) where nothing is in.

    Parts hang together by 4 neighbours; of equal ones the one that begins first, row by row.
    """
    labels, count = ndimage.label(inside_HW)
    if count == 0:
        return np.zeros(4, dtype=np.int64)
    largest = int(np.bincount(labels.ravel())[1:].argmax())
    rows, columns = ndimage.find_objects(labels)[largest]
    return np.array([columns.start, rows.start, columns.stop, rows.stop], dtype=np.int64)


def box_scores(
    mask_HW: np.ndarray, part_4: np.ndarray, boxes_G4: np.ndarray, compat: Compat = "corrected"
) -> BoxScores:
    """Score one mask.

    Args:
        mask_HW: In [0, 1].
        part_4: The box of ``largest_part``.
        boxes_G4: Of the ground truth; may reach outside the image.
        compat: ``original`` takes a row and a column off the part's box, and counts the area of boxes outside the image
            too.

    Source: Phang et al. 2020, arXiv 2010.09750; saliency_investigation ``score_bboxes.py``.
    """
    height, width = mask_HW.shape
    limits = np.array([width, height, width, height])
    inside = np.clip(boxes_G4, 0, limits).astype(np.int64)
    boxes = boxes_G4 if compat == "original" else inside
    part = part_4 - np.array([0, 0, 1, 1]) * (part_4[2:] > part_4[:2]).all() if compat == "original" else part_4
    sums = np.zeros((height + 1, width + 1))
    sums[1:, 1:] = np.asarray(mask_HW, dtype=np.float64).cumsum(axis=0).cumsum(axis=1)
    x0, y0, x1, y1 = inside.T
    covered = np.where((x1 > x0) & (y1 > y0), sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0], 0.0)
    areas = np.clip(boxes[:, 2] - boxes[:, 0], 0, None) * np.clip(boxes[:, 3] - boxes[:, 1], 0, None)
    precision = covered / (sums[-1, -1] + _EPSILON)
    recall = np.where(areas > 0, covered / np.where(areas > 0, areas, 1), 0.0)
    f1 = 2 * precision * recall / (precision + recall + _EPSILON)
    # The part lies inside the image, so that what a box shares with it does too; only its area differs.
    return BoxScores(f1, iou_matrix(part[None], boxes, inclusive=False)[0])


def mask_average(masks_BHW: Tensor) -> Tensor:
    """Mean of each mask: float64 [B]."""
    return masks_BHW.double().mean(dim=(1, 2))


def mask_entropy(masks_BHW: Tensor) -> Tensor:
    """-Σ m log2 m over the pixels with 0 < m < 1, divided by all pixels: float64 [B], 0 for a binary mask.

    Source: saliency_investigation ``score_bboxes.py``; one-sided, so not the entropy of a coin.
    """
    masks = masks_BHW.double()
    return -torch.where((masks > 0) & (masks < 1), torch.xlogy(masks, masks), 0.0).mean(dim=(1, 2)) / math.log(2)


def mask_total_variation(masks_BHW: Tensor) -> Tensor:
    """Mean squared difference of neighbours across plus that of neighbours down: float64 [B].

    Source: saliency_investigation ``score_bboxes.py``.
    """
    masks = masks_BHW.double()
    across, down = masks.diff(dim=2).square(), masks.diff(dim=1).square()
    return across.mean(dim=(1, 2)) + down.mean(dim=(1, 2))


def box_saliency(boxes_B4: Tensor, log_probabilities_B: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Both terms of the saliency metric, which is the first minus the second; lower is better.

    Args:
        boxes_B4: Half-open; what the classifier sees of the image.
        log_probabilities_B: Of the target, given that box of the image enlarged to the whole.
        size: (H, W) of the image.

    Returns:
        float64 [B] each: log of the box's share of the image, at least 5 %, and the log-probability.

    Source: Dabkowski and Gal 2017, arXiv 1705.07857.
    """
    height, width = size
    sides = (boxes_B4[:, 2:] - boxes_B4[:, :2]).clamp_min(0).double()
    share = sides.prod(dim=1) / (height * width)
    return share.clamp(0.05, 1).log(), log_probabilities_B.double()
