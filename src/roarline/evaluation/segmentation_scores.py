"""A mask against a segmentation: every score of NN-Explainer's list.

Masks and truths are in [0, 1]; truths may be soft. Pixels that don't count (a void border) are left out of every sum.
Shapes: B rows, H × W px, T thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

# As the original computes them: multiples of 0.1 in floats, where 3 · 0.1 is a little more than 0.3.
CURVE_THRESHOLDS = tuple(0.1 + 0.1 * step for step in range(9))
MEAN_F1_THRESHOLDS = (0.25, 0.5, 0.75)
_F1_EPSILON, _IOU_EPSILON = 1e-10, 1e-15
_LEAST_AREA, _LEAST_PROBABILITY = 0.05, 1e-15


@dataclass(frozen=True)
class Segmented:
    """Masks and truths.

    Attributes:
        masks_BHW: In [0, 1].
        truths_BHW: In [0, 1].
        valid_BHW: bool, pixels that count.

    Source of every score: Stalder et al. 2022, arXiv 2205.11266; NN-Explainer ``assessment_metrics.py``.
    """

    masks_BHW: Tensor
    truths_BHW: Tensor
    valid_BHW: Tensor | None = None

    @cached_property
    def valid(self) -> Tensor:
        """float64 [B, N], 1 where a pixel counts."""
        valid = torch.ones_like(self.masks_BHW, dtype=torch.bool) if self.valid_BHW is None else self.valid_BHW
        return valid.flatten(1).double()

    @cached_property
    def masks(self) -> Tensor:
        """float64 [B, N]."""
        return self.masks_BHW.flatten(1).double()

    @cached_property
    def truths(self) -> Tensor:
        """float64 [B, N]."""
        return self.truths_BHW.flatten(1).double()

    def total(self, values_BN: Tensor) -> Tensor:
        """[B], over the pixels that count."""
        return (values_BN * self.valid).sum(dim=1)

    def mean(self, values_BN: Tensor) -> Tensor:
        """[B], over the pixels that count; NaN where none does."""
        return self.total(values_BN) / self.valid.sum(dim=1)

    def binary(self, threshold: float) -> tuple[Tensor, Tensor]:
        """Mask and truth above the same threshold, strictly: float64 [B, N] each."""
        return (self.masks > threshold).double(), (self.truths > threshold).double()


def f1_curve(pair: Segmented, thresholds: Sequence[float] = CURVE_THRESHOLDS) -> Tensor:
    """F1 of the object's pixels at each threshold: float64 [B, T] in [0, 1]."""
    scores = []
    for threshold in thresholds:
        mask, truth = pair.binary(threshold)
        scores.append(_f1(pair.total(mask * truth), pair.total(mask * (1 - truth)), pair.total((1 - mask) * truth)))
    return torch.stack(scores, dim=1)


def mean_f1(pair: Segmented) -> Tensor:
    """Mean of the F1 at 0.25, 0.5 and 0.75: float64 [B] in [0, 1]."""
    return f1_curve(pair, MEAN_F1_THRESHOLDS).mean(dim=1)


def soft_f1(pair: Segmented) -> Tensor:
    """F1 with shares of pixels instead of pixels: float64 [B] in [0, 1]."""
    mask, truth = pair.masks, pair.truths
    return _f1(pair.total(mask * truth), pair.total(mask * (1 - truth)), pair.total((1 - mask) * truth))


def soft_accuracy(pair: Segmented) -> Tensor:
    """Share of right decisions, pixels counted by their shares: float64 [B] in [0, 1]."""
    return pair.mean(pair.masks * pair.truths + (1 - pair.masks) * (1 - pair.truths))


def overlap(pair: Segmented) -> Tensor:
    """1 minus the mean absolute difference: float64 [B] in [0, 1]; ``soft_accuracy`` where the truth is binary."""
    return 1 - pair.mean((pair.truths - pair.masks).abs())


def iou_curve(pair: Segmented, thresholds: Sequence[float] = CURVE_THRESHOLDS) -> Tensor:
    """Intersection over union at each threshold: float64 [B, T] in [0, 1]."""
    scores = []
    for threshold in thresholds:
        mask, truth = pair.binary(threshold)
        scores.append(pair.total(mask * truth) / (pair.total(torch.maximum(mask, truth)) + _IOU_EPSILON))
    return torch.stack(scores, dim=1)


def continuous_iou(pair: Segmented) -> Tensor:
    """Σ min / Σ max, 1 minus the Soergel distance: float64 [B] in [0, 1]."""
    shared = pair.total(torch.minimum(pair.masks, pair.truths))
    return shared / (pair.total(torch.maximum(pair.masks, pair.truths)) + _IOU_EPSILON)


def roc_auc(pair: Segmented) -> Tensor:
    """Area under the ROC curve of the mask's values, the object being where the truth exceeds 0.

    Returns:
        float64 [B] in [0, 1], ties counted half; NaN where all pixels are object, or none is.

    Source: Mann and Whitney 1947; scikit-learn's ``roc_auc_score`` computes the same.
    """
    counted = pair.valid > 0
    object_, background = (pair.truths > 0) & counted, (pair.truths <= 0) & counted
    lower = pair.masks.masked_fill(~background, torch.inf).sort(dim=1).values
    values = pair.masks.contiguous()
    beaten = torch.searchsorted(lower, values) + torch.searchsorted(lower, values, right=True)
    pairs = object_.sum(dim=1).double() * background.sum(dim=1)
    return (beaten * object_).sum(dim=1) / 2 / pairs.where(pairs > 0, torch.nan)


def background_coverage(pair: Segmented) -> Tensor:
    """Share of the background that the mask covers: float64 [B] in [0, 1]; 0 where there is no background."""
    area = pair.mean(pair.truths)
    covered = pair.mean((pair.masks - pair.truths).clamp_min(0)) / (1 - area).where(area < 1, 1.0)
    return torch.where(area < 1, covered, 0.0)


def object_coverage(pair: Segmented) -> Tensor:
    """Share of the object that the mask covers: float64 [B] in [0, 1]; 0 where there is no object."""
    area = pair.mean(pair.truths)
    missed = pair.mean((pair.truths - pair.masks).clamp_min(0)) / area.where(area > 0, 1.0)
    return torch.where(area > 0, 1 - missed, 0.0)


def similarity_ratio(pair: Segmented) -> Tensor:
    """q / (q + Σ (m - s)²) with q = Σ m s: float64 [B] in [0, 1]."""
    shared = pair.total(pair.masks * pair.truths)
    return shared / (shared + pair.total((pair.masks - pair.truths).square()) + _F1_EPSILON)


def saliency(masks_BHW: Tensor, probabilities_B: Tensor) -> Tensor:
    """log of the mask's area, at least 5 %, minus log of what the classifier gives the targets of the masked image.

    Args:
        masks_BHW: In [0, 1].
        probabilities_B: Probability of the target, or the sum of those of several, given mask · image.

    Returns:
        float64 [B], lower is better.

    Source: Stalder et al. 2022, after Dabkowski and Gal 2017, arXiv 1705.07857.
    """
    area = masks_BHW.double().mean(dim=(1, 2)).clamp_min(_LEAST_AREA)
    return area.log() - probabilities_B.double().log()


def probability_sparsity(probabilities_BK: Tensor) -> Tensor:
    """Σ p²: float64 [B] in [1 / K, 1]."""
    return probabilities_BK.double().square().sum(dim=1)


def probability_entropy(probabilities_BK: Tensor) -> Tensor:
    """-Σ p log p in nats: float64 [B] in [0, log K]."""
    probabilities = probabilities_BK.double()
    return -(probabilities * probabilities.clamp_min(_LEAST_PROBABILITY).log()).sum(dim=1)


def _f1(hits: Tensor, false_alarms: Tensor, misses: Tensor) -> Tensor:
    precision = hits / (hits + false_alarms + _F1_EPSILON)
    recall = hits / (hits + misses + _F1_EPSILON)
    return 2 * precision * recall / (precision + recall + _F1_EPSILON)
