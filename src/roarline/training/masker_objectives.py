"""What the training of a FIX masker minimises: two games that a frozen classifier judges.

``fix_masker`` at the end is named by ``EXPLAINERS``; the training of CA is in ``masker_against_classifier.py``.

Shapes: B images, K classes, C channels, H × W px.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from roarline.config.masker_params import MaskerLosses, MaskSide
from roarline.errors import UserInputError
from roarline.models.masker_explainers import FixMasker
from roarline.training.batches import Split
from roarline.training.explainer_task import ExplainerTask, means_over
from roarline.training.infillers import keep, make_infiller
from roarline.training.masker_losses import (
    area_gap,
    border_variation,
    classification_objective,
    correct_beyond_prior,
    entropy_objective,
    is_correct,
    mask_in_area,
    mask_out_area,
    prior_divergence,
    prior_of,
)
from roarline.training.meter import TOTAL
from roarline.training.objectives import Batch, Goal

_LEAST_AREA, _MOST_AREA = 0.25, 0.75

Judge = Callable[[Tensor], Tensor]
"""Masked images [B, C, H, W] to logits [B, K]."""


@dataclass(frozen=True)
class Game:
    """One batch before it is masked.

    Attributes:
        labels_B: int64.
        clean_BK: Logits of the whole images.
        masks_B1HW: Differentiable.
        wished_B: Areas that the masker was told; None where it is told none.
    """

    labels_B: Tensor
    clean_BK: Tensor
    masks_B1HW: Tensor
    wished_B: Tensor | None


class MaskTerms:
    """The loss of a mask, from what a classifier says to the two masked images.

    Args:
        losses: Which games are played, and their weights.
        class_weights_K: Of the objective ``prior``; their inverses are the prior.

    Source: spec S3.2.
    Differs: the total variation counts for each side that has a weight for it, as in the original, where a weight that
        both share counts twice; the terms are logged one by one.
    """

    def __init__(self, losses: MaskerLosses, class_weights_K: Tensor) -> None:
        self.losses, self.class_weights_K = losses, class_weights_K
        infill = losses.infill
        self.infiller = make_infiller(infill.infiller, sigma_px=infill.sigma_px, params=infill.params)

    def masked(self, images_BCHW: Tensor, masks_B1HW: Tensor) -> tuple[Tensor, Tensor]:
        """The masked-in and the masked-out images."""
        sides = self.losses.infill.sides
        inside = keep(images_BCHW, masks_B1HW, self.infiller if "mask_in" in sides else None)
        outside = keep(images_BCHW, 1 - masks_B1HW, self.infiller if "mask_out" in sides else None)
        return inside, outside

    def __call__(self, game: Game, inside_BK: Tensor, outside_BK: Tensor) -> dict[str, Tensor]:
        """Named terms, weighted.

        Args:
            inside_BK: Logits of the masked-in images.
            outside_BK: Of the masked-out ones.
        """
        terms: dict[str, Tensor] = {}
        for name, side, logits_BK in (
            ("mask_in", self.losses.mask_in, inside_BK),
            ("mask_out", self.losses.mask_out, outside_BK),
        ):
            if side.objective != "none":
                terms |= {f"{name}_{of}": side.weight * term for of, term in self._of(name, side, game, logits_BK)}
        return terms

    def _of(self, name: str, side: MaskSide, game: Game, logits_BK: Tensor) -> list[tuple[str, Tensor]]:
        areas_B = game.masks_B1HW.mean(dim=(1, 2, 3))
        if game.wished_B is not None:
            areas_B = area_gap(areas_B, game.wished_B, side.area_gap)
        clean_B, masked_B = is_correct(game.clean_BK, game.labels_B), is_correct(logits_BK, game.labels_B)
        if side.objective == "prior":
            found = self._prior(side, game, logits_BK, areas_B)
        else:
            if side.objective == "classification":
                objective = classification_objective(logits_BK, game.labels_B, side.direction)
            else:
                objective = entropy_objective(logits_BK, clean_B, side.direction)
            reward = mask_in_area(areas_B, masked_B) if name == "mask_in" else mask_out_area(areas_B, clean_B, masked_B)
            found = [("objective", objective), ("area", side.area * reward)]
        if side.variation:
            found.append(("variation", side.variation * border_variation(game.masks_B1HW[:, 0])))
        return found

    def _prior(self, side: MaskSide, game: Game, logits_BK: Tensor, areas_B: Tensor) -> list[tuple[str, Tensor]]:
        terms, weights_K = self.losses.prior, self.class_weights_K.to(logits_BK)
        prior_K = prior_of(weights_K)
        clean_B, masked_B = (
            correct_beyond_prior(logits, game.labels_B, prior_K, terms.compared)
            for logits in (game.clean_BK, logits_BK)
        )
        weights_B = weights_K[game.labels_B] if terms.weigh_classes else torch.ones_like(areas_B)
        counted_B = weights_B * clean_B if terms.clean_correct_only else weights_B
        objective = prior_divergence(logits_BK, prior_K, terms.divergence, counted_B)
        always = terms.always_small or game.wished_B is not None
        area = (areas_B * weights_B).mean() if always else mask_out_area(areas_B, clean_B, masked_B, weights_B)
        return [("objective", objective), ("area", side.area * area)]


class FixObjective:
    """The objective of a FIX masker.

    Args:
        network: The masker.
        classifier: Frozen, in eval mode.
        task: Its images have one label each.
        losses: Of the two games.

    Raises:
        UserInputError: Images have several labels.

    Source: Phang et al. 2020, arXiv 2010.09750, section 3; spec S3.2, S3.3.
    Differs: the classifier's weights gather no gradients (spec B3.14), and a batch of one keeps its axis (B3.13).
    """

    goal: Goal = (TOTAL, "min")

    def __init__(self, network: FixMasker, classifier: nn.Module, task: ExplainerTask, losses: MaskerLosses) -> None:
        check_task(task)
        self.trained, self.classifier, self.task = network, classifier, task
        self.mask_terms = MaskTerms(losses, class_weights(task, losses))

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """See ``Objective``."""
        return self._terms(batch.images, batch.labels, batch.generator)[0]

    def validate(self, split: Split) -> Mapping[str, float]:
        """See ``Objective``: the terms; how often the masked images are classified right; the mask's mean."""
        return means_over(
            split, self.trained, lambda images, labels: self._terms(images, labels, None), self.task.settings.precision
        )

    def _terms(
        self, images_BCHW: Tensor, labels_B: Tensor, generator: torch.Generator | None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        clean_BK, activations = self.trained.read(self.classifier, images_BCHW)
        game = play(self.trained, activations, clean_BK, images_BCHW, labels_B, generator)
        inside, outside = self.mask_terms.masked(images_BCHW, game.masks_B1HW)
        inside_BK, outside_BK = self.classifier(torch.cat([inside, outside])).float().chunk(2)
        return self.mask_terms(game, inside_BK, outside_BK), scores(game, inside_BK, outside_BK)


def play(
    network: FixMasker, activations: list[Tensor], clean_BK: Tensor, images_BCHW: Tensor, labels_B: Tensor,
    generator: torch.Generator | None,
) -> Game:  # fmt: skip
    """Draw the masks of a batch.

    Args:
        generator: On the CPU, for areas that are wished and masks that are drawn; None outside of training.
    """
    wished_B = None
    if network.masker.area_channel and generator is not None:
        shares = torch.rand(len(images_BCHW), generator=generator).to(images_BCHW.device)
        wished_B = _LEAST_AREA + (_MOST_AREA - _LEAST_AREA) * shares
    elif network.masker.area_channel:
        wished_B = torch.full((len(images_BCHW),), network.area, device=images_BCHW.device)
    masks = network.draw(activations, labels_B, images_BCHW, areas_B=wished_B, generator=generator)
    return Game(labels_B, clean_BK.detach(), masks, wished_B)


def scores(game: Game, inside_BK: Tensor, outside_BK: Tensor) -> dict[str, Tensor]:
    """What an epoch is described by beside its loss."""
    return {
        "masked_in_accuracy": is_correct(inside_BK, game.labels_B).float().mean(),
        "masked_out_accuracy": is_correct(outside_BK, game.labels_B).float().mean(),
        "mean_mask": game.masks_B1HW.mean(),
    }


def check_task(task: ExplainerTask) -> None:
    """Refuse data that has no one label an image.

    Raises:
        UserInputError: Says what to do.
    """
    if task.multi_label:
        raise UserInputError(
            "fix_masker and ca_masker draw one mask for an image's one label, and this data set is multi-label; use "
            "nn_explainer, or data with one label an image"
        )


def class_weights(task: ExplainerTask, losses: MaskerLosses) -> Tensor:
    """[K]: those that are given, else 1 each.

    Raises:
        UserInputError: Their number is not that of the classes.
    """
    given = losses.prior.class_weights
    if given is None:
        return torch.ones(task.num_classes)
    if len(given) != task.num_classes:
        raise UserInputError(
            f"losses.prior.class_weights has {len(given)} numbers, expected {task.num_classes}, one a class"
        )
    return torch.tensor(given)


def fix_masker(network: FixMasker, classifier: nn.Module, task: ExplainerTask, **losses: Any) -> FixObjective:
    """The objective of FIX; keywords as ``config.masker_params.MaskerLosses`` has them."""
    return FixObjective(network, classifier, task, MaskerLosses.model_validate(losses))
