"""What the metrics of evaluate-localization are given of some rows: maps, masks, ground truth, the network.

Each metric sees the kind of ground truth that it judges by. The perfect mask is no map of a method but the ground truth
itself, so that it takes the shape that each metric judges: pixels of objects, a box, the boxes' best F1.

Shapes: B rows, H × W px, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from roarline.config.metrics import METRICS
from roarline.evaluation import mask_boxes
from roarline.evaluation.mask_boxes import BoxScores
from roarline.evaluation.perfect_masks import best_mean_f1_mask, largest_box_mask
from roarline.evaluation.segmentation_scores import Segmented
from roarline.imaging.crops import enlarged_crops
from roarline.stages.ground_truth import Kind, Truth

_MEAN_OVER_BOXES = "f1a"
_INCLUSIVE = np.array([0, 0, 1, 1])


@dataclass(frozen=True)
class Batch:
    """Some rows, on one device.

    Attributes:
        maps: [B, H, W], larger is more relevant.
        masks: [B, H, W] in [0, 1], NaN in a row whose map is no mask.
        seeds: [B], for draws of a row's own.
        right: [B], whether the classifier decides for the target's class.
        images: [B, C, H, W] normalised; None where no metric asks the network.
        in_subset: [B], whether the pair is difficult; None where no metric asks.
        logits_of: Images to logits [B, K]; None where no metric asks the network.
    """

    maps: Tensor
    masks: Tensor
    truth: Truth
    targets: Tensor
    seeds: Sequence[int]
    right: np.ndarray
    settings: Mapping[str, Any]
    multi_label: bool
    images: Tensor | None = None
    logits_of: Callable[[Tensor], Tensor] | None = None
    in_subset: np.ndarray | None = None

    @cached_property
    def without_object(self) -> np.ndarray:
        """bool [B], no pixel is the target's."""
        return ~_any_pixel(self.truth.masks)

    @cached_property
    def without_segmentation(self) -> np.ndarray:
        """bool [B], no pixel counts."""
        return ~_any_pixel(self.truth.valid)

    @cached_property
    def without_mask(self) -> np.ndarray:
        """bool [B], the map is no mask."""
        return _any_pixel(torch.isnan(self.masks))

    @cached_property
    def pair(self) -> Segmented:
        """Masks and truths; the object's pixels are 1, or less where ground truth is soft."""
        soft = self.truth.shares
        return Segmented(self.masks, self.truth.masks if soft is None else soft, self.truth.valid)

    @cached_property
    def inside(self) -> Tensor:
        """bool [B, H, W], binarised masks."""
        return mask_boxes.binarised(self.masks.nan_to_num(0), self.settings["binarise"], self.settings["compat"])

    @cached_property
    def parts(self) -> np.ndarray:
        """int64 [B, 4], half-open boxes of the binarised masks' largest parts."""
        return np.stack([mask_boxes.largest_part(inside) for inside in self.inside.cpu().numpy()])

    @cached_property
    def box_scores(self) -> list[BoxScores | None]:
        """[B]; None where the target has no box."""
        masks = self.masks.double().cpu().numpy()
        return [
            mask_boxes.box_scores(mask, part, boxes + _INCLUSIVE, self.settings["compat"]) if len(boxes) else None
            for mask, part, boxes in zip(masks, self.parts, self.truth.boxes, strict=True)
        ]

    @cached_property
    def masked_probabilities(self) -> Tensor:
        """float64 [B, K], given mask · image."""
        return self.probabilities_of(self._images * self.masks.nan_to_num(0).to(self._images)[:, None])

    @cached_property
    def box_saliency(self) -> tuple[Tensor, Tensor]:
        """Both terms of the saliency metric."""
        parts = torch.from_numpy(self.parts)
        if self.settings["compat"] == "original":
            parts = torch.cat([parts[:, :2], torch.maximum(parts[:, 2:] - 1, parts[:, :2])], dim=1)
        probabilities = self.probabilities_of(enlarged_crops(self._images, parts))
        logs = self.of_target(probabilities).log()
        return mask_boxes.box_saliency(parts.to(logs.device), logs, (self.maps.shape[1], self.maps.shape[2]))

    @property
    def _images(self) -> Tensor:
        if self.images is None:
            raise ValueError("images were not read, though a metric asks the network")
        return self.images

    def probabilities_of(self, images: Tensor) -> Tensor:
        """float64 [B, K]: of classes that exclude one another, or, where labels don't, each by itself."""
        if self.logits_of is None:
            raise ValueError("there is no network, though a metric asks it")
        logits = self.logits_of(images).double()
        exclusive = not self.multi_label or self.settings["compat"] == "original"
        return logits.softmax(dim=1) if exclusive else logits.sigmoid()

    def of_target(self, values_BK: Tensor) -> Tensor:
        """[B]."""
        return values_BK.gather(1, self.targets[:, None])[:, 0]


@dataclass(frozen=True)
class Batches:
    """The same rows as each metric is to see them.

    Attributes:
        base: As maps and network have them; what needs no ground truth sees this one.
        truths: By kind; at least one.
        kinds: Of each metric that needs ground truth.
        perfect: The maps are the perfect mask: metrics of ground truth see their own in place of ``base``'s.
    """

    base: Batch
    truths: Mapping[Kind, Truth]
    kinds: Mapping[str, Kind]
    perfect: bool = False
    _made: dict[tuple[Kind, str], Batch] = field(default_factory=dict)

    def of(self, metric: str) -> Batch:
        """What one metric sees; batches are shared, and so is what they have computed."""
        kind = self.kinds.get(metric)
        if kind is None:
            return self.base
        shape = self._shape(metric) if self.perfect else ""
        truth = self.truths[kind]
        if not shape and truth is self.base.truth:
            return self.base
        if (kind, shape) not in self._made:
            made = replace(self.base, truth=truth)
            if shape:
                masks = _perfect(truth, shape).to(self.base.maps.device, torch.float32)
                made = replace(made, maps=masks, masks=masks)
            self._made[kind, shape] = made
        return self._made[kind, shape]

    @staticmethod
    def _shape(metric: str) -> str:
        if metric == _MEAN_OVER_BOXES:
            return metric
        return "box" if "boxes" in METRICS[metric].needs else "pixels"


def _perfect(truth: Truth, shape: str) -> Tensor:
    """[B, H, W]: pixels of the objects, the largest box, or the mask that F1a calls best."""
    if shape == "pixels":
        return truth.masks if truth.shares is None else truth.shares
    height, width = truth.masks.shape[1:]
    limits = np.array([width, height, width, height])
    best = best_mean_f1_mask if shape == _MEAN_OVER_BOXES else largest_box_mask
    masks = [best(np.clip(boxes + _INCLUSIVE, 0, limits), (height, width)) for boxes in truth.boxes]
    return torch.from_numpy(np.stack(masks))


def _any_pixel(values_BHW: Tensor) -> np.ndarray:
    """bool [B]."""
    return values_BHW.flatten(1).any(dim=1).cpu().numpy()
