"""What a masker is trained by: what a classifier says to the masked-in and masked-out image, and the mask's form.

Shapes: B images, K classes, H × W px.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Objective = Literal["classification", "entropy"]
Direction = Literal["maximize", "minimize"]
AreaGap = Literal["l1", "l2"]
PriorForm = Literal["subtract", "divide"]
Divergence = Literal["forward", "backward"]

_BORDER_WEIGHT = 0.3


def is_correct(logits_BK: Tensor, labels_B: Tensor) -> Tensor:
    """bool [B]: the highest logit is the label's; of equal ones the first counts."""
    return logits_BK.argmax(dim=1) == labels_B


def classification_objective(logits_BK: Tensor, labels_B: Tensor, direction: Direction = "maximize") -> Tensor:
    """Cross entropy of the masked image where the classification shall be right, its negative where it shall fail.

    Args:
        logits_BK: Of the masked images.
        labels_B: int64.
        direction: ``maximize``: of the classification.

    Returns:
        0-dim, in nats; a mean over the images.

    Source: spec S3.2; saliency_investigation ``casme/criterion.py``.
    """
    loss = F.cross_entropy(logits_BK, labels_B)
    return loss if direction == "maximize" else -loss


def entropy_objective(logits_BK: Tensor, clean_correct_B: Tensor, direction: Direction = "maximize") -> Tensor:
    """Minus the entropy of what is said to the masked images, of those that were right when clean.

    Args:
        logits_BK: Of the masked images.
        clean_correct_B: bool; the others count as 0, and stay in the mean's denominator.
        direction: ``minimize``: plus the entropy.

    Returns:
        0-dim, in nats.

    Source: Phang et al. 2020, arXiv 2010.09750, equation 4; spec S3.2.
    """
    log_p = logits_BK.log_softmax(dim=1)
    entropy = -((log_p.exp() * log_p).sum(dim=1) * clean_correct_B).mean()
    return -entropy if direction == "maximize" else entropy


def mask_in_area(areas_B: Tensor, masked_correct_B: Tensor, weights_B: Tensor | None = None) -> Tensor:
    """Reward, negated, for small masks of images that the masked-in part still classifies: -mean relu([won] - area).

    Args:
        areas_B: Mean of each mask, in [0, 1]; or how far it is from the wished one (``area_gap``).
        masked_correct_B: bool: the masked-in image is classified as its label.
        weights_B: Of each image; None: 1.

    Returns:
        0-dim, in [-1, 0]; its gradient is 1 / B for images that are won and 0 for others.

    Source: spec S3.2, R_in without its weight.
    """
    reward_B = (masked_correct_B.to(areas_B) - areas_B).relu()
    return -(reward_B if weights_B is None else reward_B * weights_B).mean()


def mask_out_area(
    areas_B: Tensor, clean_correct_B: Tensor, masked_correct_B: Tensor, weights_B: Tensor | None = None
) -> Tensor:
    """Reward, negated, for small masks of images whose label is lost without the masked part.

    Args:
        areas_B: As ``mask_in_area``.
        clean_correct_B: bool: the whole image is classified as its label.
        masked_correct_B: bool: the masked-out image still is.
        weights_B: As ``mask_in_area``.

    Returns:
        0-dim, in [-1, 0].

    Source: spec S3.2, R_out without its weight.
    """
    return mask_in_area(areas_B, clean_correct_B & ~masked_correct_B, weights_B)


def area_gap(areas_B: Tensor, wished_B: Tensor, form: AreaGap) -> Tensor:
    """[B]: how far masks are from the area that they were asked for, as it is or squared.

    Source: spec S3.2 (``add_prob_layers``).
    """
    gap = areas_B - wished_B
    return gap.abs() if form == "l1" else gap.square()


def border_variation(masks_BHW: Tensor) -> Tensor:
    """Half the sum of squared differences of neighbours, and 0.3 of that of the border's pixels; a mean over images.

    Args:
        masks_BHW: In [0, 1].

    Returns:
        0-dim; a sum over pixels, so that it grows with the image.

    Source: spec S3.2, T without its weight; casme ``tv_loss``.
    """
    down, right = masks_BHW.diff(dim=1), masks_BHW.diff(dim=2)
    sides = [masks_BHW[:, 0], masks_BHW[:, -1], masks_BHW[:, :, 0], masks_BHW[:, :, -1]]
    border = torch.stack([side.square().sum() for side in sides]).sum()
    return (down.square().sum() + right.square().sum() + _BORDER_WEIGHT * border) / (2 * len(masks_BHW))


def prior_of(class_weights_K: Tensor) -> Tensor:
    """The prior that belongs to class weights: their inverses, normalised; equal weights give the uniform prior.

    Args:
        class_weights_K: Above 0.

    Returns:
        [K], its sum 1.

    Source: spec S3.2 (kldivergence).
    """
    inverse = 1 / class_weights_K
    return inverse / inverse.sum()


def correct_beyond_prior(logits_BK: Tensor, labels_B: Tensor, prior_K: Tensor, form: PriorForm) -> Tensor:
    """bool [B]: the label's probability exceeds its prior by more than any other class's, as difference or ratio.

    Source: spec S3.2 (kldivergence).
    """
    p_BK = logits_BK.softmax(dim=1)
    return is_correct(p_BK - prior_K if form == "subtract" else p_BK / prior_K, labels_B)


def prior_divergence(logits_BK: Tensor, prior_K: Tensor, form: Divergence, weights_B: Tensor) -> Tensor:
    """How far from the prior the classifier is, once the masked part is gone; least where it equals the prior.

    Args:
        logits_BK: Of the masked-out images, their softmax q.
        prior_K: p.
        form: ``forward``: cross entropy -Σ p log q; ``backward``: Kullback-Leibler divergence Σ q (log q - log p).
        weights_B: Of each image, 0 for those that don't count; the mean is over all B.

    Returns:
        0-dim, in nats.

    Source: spec S3.2 (kldivergence).
    """
    log_q = logits_BK.log_softmax(dim=1)
    if form == "forward":
        divergence_B = -(prior_K * log_q).sum(dim=1)
    else:
        divergence_B = (log_q.exp() * (log_q - prior_K.log())).sum(dim=1)
    return (divergence_B * weights_B).mean()
