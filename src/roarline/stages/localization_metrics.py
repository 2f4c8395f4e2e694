"""The metrics of evaluate-localization: what each is given of a batch, and what of it goes into which column.

Shapes: B rows, H × W px, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from roarline.config.localization import DIFFICULT_SUBSET, POINTING
from roarline.config.metrics import METRICS
from roarline.evaluation import complexity, mask_boxes, max_box_accuracy, pixel_precision, pointing, relevance
from roarline.evaluation import segmentation_scores as segmentation
from roarline.evaluation.mask_boxes import BoxScores
from roarline.evaluation.segmentation_scores import CURVE_THRESHOLDS, Segmented
from roarline.stages.localization_batch import Batch, Batches

OK = "ok"
NO_OBJECT = "the image has no object of the target's class"
NO_SEGMENTATION = "the image has no segmentation"
NO_BOX = "the image has no box of the target's class"
DIFFICULT = "all objects of the target's class are difficult"
NOT_IN_SUBSET = "not in the difficult subset"
NO_MASK = "the map has values outside [0, 1] and was to be taken as a mask as it is"
NOT_FINITE = "the classifier's output is NaN or infinite"
UNDEFINED = "the metric is undefined for this row"
STATUSES = (
    OK, NO_OBJECT, NO_SEGMENTATION, NO_BOX, DIFFICULT, NOT_IN_SUBSET, NO_MASK, NOT_FINITE, UNDEFINED
)  # fmt: skip
"""By number; parts of evaluations hold the numbers, so new ones go to the end."""

MEAN_SETTING = "mean over thresholds"
_CURVES = {"f1_curve": segmentation.f1_curve, "discrete_iou_curve": segmentation.iou_curve}
_V2_OVERLAPS = (0.3, 0.5, 0.7)

Column = tuple[str, str]  # metric, setting


Compute = Callable[[Batch], Tensor]


def _of_boxes(score: Callable[[BoxScores], float]) -> Compute:
    def compute(batch: Batch) -> Tensor:
        values = [float("nan") if scores is None else score(scores) for scores in batch.box_scores]
        return torch.tensor(values, dtype=torch.float64)

    return compute


def _om(batch: Batch) -> Tensor:
    """A wrong class is an error wherever the image has boxes at all."""
    located = _of_boxes(lambda scores: scores.localization_error)(batch)
    wrong = torch.from_numpy(~batch.right & batch.truth.any_boxes)
    return torch.where(wrong, 1.0, located)


def _pointing(batch: Batch) -> Tensor:
    ties: Literal["first", "shared"] = "first" if batch.settings["compat"] == "original" else "shared"
    return pointing.pointing_hits(batch.maps, batch.truth.masks, tolerance_px=batch.settings["tolerance_px"], ties=ties)


SCALARS: dict[str, Compute] = {
    "pointing_game": _pointing,
    DIFFICULT_SUBSET: _pointing,
    "stochastic_pointing_game": lambda b: pointing.stochastic_pointing_hits(
        b.maps, b.truth.masks, seeds=b.seeds, draws=b.settings["draws"], tolerance_px=b.settings["tolerance_px"]
    ),
    "content_heatmap": lambda b: 100 * relevance.relevance_mass(b.maps, b.truth.masks, b.truth.valid),
    "relevance_mass_accuracy": lambda b: relevance.relevance_mass(b.maps, b.truth.masks, b.truth.valid),
    "relevance_rank_accuracy": lambda b: relevance.relevance_rank(b.maps, b.truth.masks, b.truth.valid),
    "topk_intersection": lambda b: relevance.topk_intersection(
        b.maps, b.truth.masks, b.truth.valid, fraction=b.settings["topk_fraction"]
    ),
    "om": _om,
    "le": _of_boxes(lambda scores: scores.localization_error),
    "f1": _of_boxes(lambda scores: float(scores.f1.max())),
    "f1a": _of_boxes(lambda scores: float(scores.f1.mean())),
    "sm": lambda b: b.box_saliency[0] - b.box_saliency[1],
    "sm_area": lambda b: b.box_saliency[0],
    "sm_confidence": lambda b: b.box_saliency[1],
    "mask_average": lambda b: mask_boxes.mask_average(b.masks),
    "mask_binarised": lambda b: b.inside.double().mean(dim=(1, 2)),
    "mask_tv": lambda b: mask_boxes.mask_total_variation(b.masks),
    "mask_entropy": lambda b: mask_boxes.mask_entropy(b.masks),
    "discrete_f1_25": lambda b: segmentation.f1_curve(b.pair, [0.25])[:, 0],
    "discrete_f1_50": lambda b: segmentation.f1_curve(b.pair, [0.5])[:, 0],
    "discrete_f1_75": lambda b: segmentation.f1_curve(b.pair, [0.75])[:, 0],
    "mean_f1": lambda b: segmentation.mean_f1(b.pair),
    "soft_f1": lambda b: segmentation.soft_f1(b.pair),
    "soft_accuracy": lambda b: segmentation.soft_accuracy(b.pair),
    "overlap": lambda b: segmentation.overlap(b.pair),
    "continuous_iou": lambda b: segmentation.continuous_iou(b.pair),
    "roc_auc": lambda b: segmentation.roc_auc(Segmented(b.maps, b.truth.masks, b.truth.valid)),
    "saliency": lambda b: segmentation.saliency(b.masks, b.of_target(b.masked_probabilities)),
    "background_coverage": lambda b: segmentation.background_coverage(b.pair),
    "object_coverage": lambda b: segmentation.object_coverage(b.pair),
    "similarity_ratio": lambda b: segmentation.similarity_ratio(b.pair),
    "probability_sparsity": lambda b: segmentation.probability_sparsity(b.masked_probabilities),
    "probability_entropy": lambda b: segmentation.probability_entropy(b.masked_probabilities),
    "entropy_complexity": lambda b: complexity.entropy_complexity(b.maps),
    "gini_sparseness": lambda b: complexity.gini_sparseness(b.maps),
    "effective_complexity": lambda b: complexity.effective_complexity(b.maps, epsilon=b.settings["epsilon"]),
}
"""Metrics with one value a row."""

_OF_MASKS = {
    "om", "le", "f1", "f1a", "sm", "sm_area", "sm_confidence", "mask_average", "mask_std", "mask_binarised", "mask_tv",
    "mask_entropy", "discrete_f1_25", "discrete_f1_50", "discrete_f1_75", "mean_f1", "f1_curve", "soft_f1",
    "soft_accuracy", "overlap", "discrete_iou_curve", "continuous_iou", "saliency", "background_coverage",
    "object_coverage", "similarity_ratio", "probability_sparsity", "probability_entropy", "max_box_acc",
    "max_box_acc_v2", "pxap",
}  # fmt: skip


def _max_box_acc(overlaps: Sequence[float], which: Literal["largest", "all"]) -> Compute:
    def compute(batch: Batch) -> Tensor:
        found = []
        step, compat = batch.settings["threshold_step"], batch.settings["compat"]
        width = len(max_box_accuracy.thresholds(step)) * len(overlaps)
        for mask, boxes in zip(batch.masks.double().cpu().numpy(), batch.truth.boxes, strict=True):
            if len(boxes) == 0 or np.isnan(mask).any():
                found.append(np.full(width, np.nan))
                continue
            right = max_box_accuracy.boxes_right(
                mask,
                boxes,
                step=step,
                overlaps=overlaps,
                which=which,
                compat=compat,
            )
            found.append(right.astype(np.float64).ravel())
        return torch.from_numpy(np.stack(found))

    return compute


def _pxap(batch: Batch) -> Tensor:
    histograms = pixel_precision.pixel_histograms(
        batch.masks.nan_to_num(0), batch.truth.masks, batch.truth.valid, step=batch.settings["threshold_step"]
    ).flatten(1)
    return histograms.masked_fill(torch.isnan(batch.masks).any(dim=2).any(dim=1)[:, None], torch.nan)


def _mean_and_square(batch: Batch) -> Tensor:
    mean = mask_boxes.mask_average(batch.masks)
    return torch.stack([mean, mean.square()], dim=1)


FEATURES: dict[str, tuple[Compute, str]] = {
    "max_box_acc": (_max_box_acc((0.5,), "largest"), "best_threshold"),
    "max_box_acc_v2": (_max_box_acc(_V2_OVERLAPS, "all"), "mean_of_three_best"),
    "pxap": (_pxap, "average_precision"),
    "mask_std": (_mean_and_square, "standard_deviation"),
}
"""Metrics that are a function of means: what a row gives, and the name of the function."""


def columns_of(metrics: Sequence[str]) -> list[Column]:
    """(metric, setting) of every number that a row has."""
    columns: list[Column] = []
    for metric in metrics:
        if metric in _CURVES:
            columns += [(metric, f"threshold={threshold:.12g}") for threshold in CURVE_THRESHOLDS]
            columns.append((metric, MEAN_SETTING))
        elif metric in SCALARS:
            columns.append((metric, ""))
    return columns


def widths_of(metrics: Sequence[str], settings: Mapping[str, Any]) -> dict[str, int]:
    """Features of a row: metric to F."""
    count = len(max_box_accuracy.thresholds(settings["threshold_step"]))
    widths = {"max_box_acc": count, "max_box_acc_v2": 3 * count, "pxap": 2 * (count + 2), "mask_std": 2}
    return {metric: widths[metric] for metric in metrics if metric in FEATURES}


def values_of(metrics: Sequence[str], batches: Batches) -> np.ndarray:
    """float64 [B, V], a column for each of ``columns_of``; NaN where a row has no value."""
    found: list[Tensor] = []
    for metric in metrics:
        batch = batches.of(metric)
        if metric in _CURVES:
            curve = _CURVES[metric](batch.pair)
            found += [*curve.unbind(dim=1), curve.mean(dim=1)]
        elif metric in SCALARS:
            found.append(SCALARS[metric](batch))
    if not found:
        return np.empty((len(batches.base.maps), 0))
    return np.stack([values.double().cpu().numpy() for values in found], axis=1)


def features_of(metric: str, batch: Batch) -> np.ndarray:
    """float32 [B, F]."""
    found: np.ndarray = FEATURES[metric][0](batch).cpu().numpy().astype(np.float32)
    return found


def statuses_of(metric: str, batch: Batch, values_B: np.ndarray) -> np.ndarray:
    """uint8 [B], places in ``STATUSES``: ``ok`` or why a row has no value of a metric, which then is to be left out."""
    needs = METRICS[metric].needs
    without_box = np.array([len(boxes) == 0 for boxes in batch.truth.boxes])
    statuses = []
    for row, value in enumerate(values_B.tolist()):
        if metric in _OF_MASKS and batch.without_mask[row]:
            statuses.append(NO_MASK)
        elif "ground_truth" in needs and batch.without_object[row]:
            statuses.append(NO_SEGMENTATION if batch.without_segmentation[row] else NO_OBJECT)
        elif "boxes" in needs and without_box[row] and not np.isfinite(value):
            statuses.append(NO_BOX)
        elif metric in POINTING and batch.truth.difficult[row]:
            statuses.append(DIFFICULT)
        elif metric == DIFFICULT_SUBSET and batch.in_subset is not None and not batch.in_subset[row]:
            statuses.append(NOT_IN_SUBSET)
        elif not np.isfinite(value):
            statuses.append(NOT_FINITE if "network" in needs else UNDEFINED)
        else:
            statuses.append(OK)
    return np.array([STATUSES.index(status) for status in statuses], dtype=np.uint8)
