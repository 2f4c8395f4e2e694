"""What the trainings of explainers with one map a class minimise: NN-Explainer, self-explainer, Real-Time Saliency.

``EXPLAINERS`` names the functions at the end of the file; each is called as ``make(network, classifier, task,
**losses)`` and gives an ``Objective``. The classifier stays outside what is trained: it is frozen and in eval mode, so
that its dropout is off and its batch norm keeps its statistics.

Shapes: B images, K classes, H × W px.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from roarline.imaging.mask_aggregation import aggregate_masks
from roarline.imaging.total_variation import reflected_total_variation
from roarline.seeds import derive_seed
from roarline.training.alternative_images import Compat, alternative_images
from roarline.training.batches import Split
from roarline.training.explainer_losses import (
    OverClasses,
    class_area_bound,
    classification_loss,
    destruction_loss,
    disagreement,
    multi_hot,
    negative_entropy,
    preservation_loss,
)
from roarline.training.explainer_task import ExplainerTask, means_over
from roarline.training.losses import correct_share
from roarline.training.meter import TOTAL
from roarline.training.objectives import Batch, Goal

MASKED_ACCURACY = "masked_accuracy"
"""Share of right decisions where only the masked image is seen, as ``correct_share`` counts it."""


@dataclass(frozen=True)
class AreaWeights:
    """Weights and bounds of the terms that speak of the masks alone; see ``config.explainer_params.AreaTerms``."""

    variation: float
    area_bound: float
    target_area: float
    other_area: float
    smallest_area: float
    largest_area: float
    over_classes: OverClasses


@dataclass(frozen=True)
class Drawn:
    """Maps of a batch: logits [B, K, H, W], and the masks [B, H, W] of the image's classes and of the others."""

    logits: Tensor
    target: Tensor
    others: Tensor

    @staticmethod
    def of(logits_BKHW: Tensor, labels_BK: Tensor) -> Drawn:
        """From maps before the sigmoid."""
        return Drawn(logits_BKHW, *aggregate_masks(logits_BKHW, labels_BK))


class _OfClassMaps(ABC):
    """The part of an ``Objective`` that follows from its terms."""

    goal: Goal = (TOTAL, "min")
    trained: nn.Module
    task: ExplainerTask

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """See ``Objective``."""
        return self.terms(batch.images, batch.labels)[0]

    def validate(self, split: Split) -> Mapping[str, float]:
        """See ``Objective``."""
        return means_over(split, self.trained, self.terms, self.task.settings.precision)

    @abstractmethod
    def terms(self, images_BCHW: Tensor, labels: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Loss terms, weighted, and scores."""


class NnExplainer(_OfClassMaps):
    """The objective of the NN-Explainer.

    Args:
        network: A ``ClassMapExplainer``.
        classifier: Frozen, in eval mode.
        entropy: Weight of the negative entropy on the complement.
        weights: Of the terms that speak of the masks alone.

    Source: Stalder et al. 2022, arXiv 2205.11266, section 3; spec S0.5.
    """

    def __init__(
        self, network: nn.Module, classifier: nn.Module, task: ExplainerTask, entropy: float, weights: AreaWeights
    ) -> None:
        self.trained, self.classifier, self.task = network, classifier, task
        self.entropy, self.weights = entropy, weights

    def terms(self, images_BCHW: Tensor, labels: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Loss terms, weighted, and scores."""
        labels_BK = multi_hot(labels, self.task.num_classes)
        drawn = Drawn.of(self.trained(images_BCHW).float(), labels_BK)
        mask = drawn.target[:, None]
        masked, rest = mask * images_BCHW, (1 - mask) * images_BCHW
        on_masked, on_rest = self.classifier(torch.cat([masked, rest])).float().chunk(2)
        terms = {"classification": classification_loss(on_masked, labels)}
        if self.entropy:
            terms["entropy"] = self.entropy * negative_entropy(on_rest)
        terms |= _mask_terms([drawn], [drawn.target, drawn.others], labels_BK, self.weights, self.task)
        return terms, {MASKED_ACCURACY: correct_share(on_masked, labels).mean()}


class SelfExplainer(_OfClassMaps):
    """The objective of the self-explainer: a teacher's pass over the image, a student's over what the mask leaves.

    Args:
        network: A ``ClassMapExplainer``; its class logits are the means of its maps.
        coherency: Weight of the distance between the two passes' target masks.
        weights: Of the terms that speak of the masks alone, summed over the two passes.

    Source: NN-Explainer ``interpretable_fcnn``; spec S0.7.
    """

    def __init__(self, network: nn.Module, task: ExplainerTask, coherency: float, weights: AreaWeights) -> None:
        self.trained, self.task, self.coherency, self.weights = network, task, coherency, weights

    def terms(self, images_BCHW: Tensor, labels: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Loss terms, weighted, and scores."""
        labels_BK = multi_hot(labels, self.task.num_classes)
        teacher = Drawn.of(self.trained(images_BCHW).float(), labels_BK)
        student = Drawn.of(self.trained(teacher.target[:, None] * images_BCHW).float(), labels_BK)
        known, again = (drawn.logits.mean(dim=(2, 3)) for drawn in (teacher, student))
        terms = {
            "classification": classification_loss(known, labels),
            "student_classification": classification_loss(again, labels),
            "logit_distance": disagreement(known, again),
        }
        if self.coherency:
            terms["coherency"] = self.coherency * disagreement(teacher.target, student.target)
        both = [teacher, student]
        terms |= _mask_terms(both, [drawn.target for drawn in both], labels_BK, self.weights, self.task)
        scores = {"accuracy": correct_share(known, labels).mean(), MASKED_ACCURACY: correct_share(again, labels).mean()}
        return terms, scores


class RealTimeSaliency:
    """The losses of Real-Time Saliency on the NN-Explainer's network.

    Args:
        network: A ``ClassMapExplainer``.
        classifier: Frozen, in eval mode.
        variation, area, destruction: Weights.
        exponent: Of the probability that is left without the masked part.
        compat: Of the alternative images.

    Source: NN-Explainer ``explainer_classifier_rtsal``; Dabkowski and Gal 2017, arXiv 1705.07857; spec S0.8.
    Differs: validation draws the same alternative images after every epoch, so that epochs can be compared.
    """

    goal: Goal = (TOTAL, "min")

    def __init__(
        self, network: nn.Module, classifier: nn.Module, task: ExplainerTask, *, variation: float, area: float,
        destruction: float, exponent: float, compat: Compat,
    ) -> None:  # fmt: skip
        self.trained, self.classifier, self.task = network, classifier, task
        self.variation, self.area, self.destruction = variation, area, destruction
        self.exponent, self.compat = exponent, compat

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """See ``Objective``."""
        return self.terms(batch.images, batch.labels, alternative_images(batch.images, batch.generator, self.compat))[0]

    def validate(self, split: Split) -> Mapping[str, float]:
        """See ``Objective``."""
        generator = torch.Generator().manual_seed(derive_seed(self.task.seed, "alternative images of validation"))

        def terms(images_BCHW: Tensor, labels: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
            return self.terms(images_BCHW, labels, alternative_images(images_BCHW, generator, self.compat))

        return means_over(split, self.trained, terms, self.task.settings.precision)

    def terms(
        self, images_BCHW: Tensor, labels: Tensor, others_BCHW: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Loss terms, weighted, and scores.

        Args:
            others_BCHW: What stands in for masked pixels.
        """
        labels_BK = multi_hot(labels, self.task.num_classes)
        mask = Drawn.of(self.trained(images_BCHW).float(), labels_BK).target
        m = mask[:, None]
        preserved, destroyed = m * images_BCHW + (1 - m) * others_BCHW, (1 - m) * images_BCHW + m * others_BCHW
        on_preserved, on_destroyed = self.classifier(torch.cat([preserved, destroyed])).float().chunk(2)
        terms = {
            "variation": self.variation * reflected_total_variation(mask, 2.0),
            "area": self.area * mask.mean(),
            "preservation": preservation_loss(on_preserved, labels),
            "destruction": self.destruction * destruction_loss(on_destroyed, labels, self.exponent),
        }
        return terms, {MASKED_ACCURACY: correct_share(on_preserved, labels).mean()}


def nn_explainer(
    network: nn.Module, classifier: nn.Module, task: ExplainerTask, *, entropy: float, **weights: Any
) -> NnExplainer:
    """The objective of the NN-Explainer; keywords as ``config.explainer_params.NnExplainerLosses`` has them."""
    return NnExplainer(network, classifier, task, entropy, AreaWeights(**weights))


def self_explainer(
    network: nn.Module, classifier: nn.Module, task: ExplainerTask, *, coherency: float, **weights: Any
) -> SelfExplainer:
    """The objective of the self-explainer, which asks no classifier; keywords as ``SelfExplainerLosses``."""
    return SelfExplainer(network, task, coherency, AreaWeights(**weights))


def real_time_saliency(
    network: nn.Module, classifier: nn.Module, task: ExplainerTask, **losses: Any
) -> RealTimeSaliency:
    """The objective of Real-Time Saliency; keywords as ``RealTimeSaliencyLosses``."""
    return RealTimeSaliency(network, classifier, task, **losses)


def _mask_terms(
    drawn: list[Drawn], smooth: list[Tensor], labels_BK: Tensor, weights: AreaWeights, task: ExplainerTask
) -> dict[str, Tensor]:
    """Terms that ask no classifier, summed over passes; those of weight 0 are left out.

    Args:
        drawn: The maps of each pass.
        smooth: The masks whose variation counts.
    """
    terms: dict[str, Tensor] = {}
    if weights.variation:
        terms["variation"] = weights.variation * _sum(reflected_total_variation(mask) for mask in smooth)
    if weights.area_bound:
        bounds = (weights.smallest_area, weights.largest_area)
        terms["area_bound"] = weights.area_bound * _sum(
            class_area_bound(
                of.logits.sigmoid(), labels_BK, *bounds, over_classes=weights.over_classes, most_labels=task.most_labels
            )
            for of in drawn
        )
    if weights.target_area:
        terms["target_area"] = weights.target_area * _sum(of.target.mean() for of in drawn)
    if weights.other_area:
        terms["other_area"] = weights.other_area * _sum(of.others.mean() for of in drawn)
    return terms


def _sum(values: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(values)).sum()
