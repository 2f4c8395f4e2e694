"""Losses of networks that learn to draw masks: NN-Explainer, the self-explainer and Real-Time Saliency.

Each is a pure function of tensors that gives a 0-dim tensor; none reads a value back from the device.

Shapes: B images, N masks, K classes, H × W px. Labels are multi-hot float [B, K]; where images have one class each,
int64 [B] is taken, too, if so told.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from roarline.imaging.ranking import removal_count

OverClasses = Literal["mean", "sum"]


def multi_hot(labels: Tensor, num_classes: int) -> Tensor:
    """Labels as multi-hot rows.

    Args:
        labels: int64 [B] in [0, K), or already [B, K].

    Returns:
        Floating point [B, K].
    """
    return F.one_hot(labels, num_classes).float() if labels.ndim == 1 else labels


def classification_loss(logits_BK: Tensor, labels: Tensor) -> Tensor:
    """How badly the classifier recognises the labels, here on the masked image.

    Args:
        logits_BK: Of the frozen classifier.
        labels: int64 [B]: cross-entropy; multi-hot [B, K]: binary cross-entropy, the mean over images and classes.

    Returns:
        0-dim, in nats, at least 0.

    Source: Stalder et al. 2022, arXiv 2205.11266, equation of L_c; spec S0.5.
    """
    if labels.ndim == 1:
        return F.cross_entropy(logits_BK, labels)
    return F.binary_cross_entropy_with_logits(logits_BK, labels.to(logits_BK.dtype))


def negative_entropy(logits_BK: Tensor) -> Tensor:
    """Minus the entropy of the softmax, divided by K: low where nothing in the image speaks for one class.

    The softmax is right for sigmoid classifiers as well: on an image without any object all their logits are low, which
    is a uniform softmax, while an entropy of the sigmoids would ask for probabilities of one half.

    Args:
        logits_BK: Of the frozen classifier on the complement of the target mask.

    Returns:
        0-dim, in nats: mean over images and classes of p · log p, in [-log(K) / K, 0].

    Source: Stalder et al. 2022, arXiv 2205.11266, equation of L_e; NN-Explainer ``entropy_loss``.
    Differs: p is not clamped at 1e-16, since log_softmax is finite; the difference is below 4e-15.
    """
    logs = F.log_softmax(logits_BK, dim=1)
    return (logs.exp() * logs).mean()


def area_bound(masks_NHW: Tensor, smallest: float, largest: float) -> Tensor:
    """What a mask lacks of ones on its highest ``smallest`` share of pixels, and has beyond its highest ``largest``.

    With the values s sorted downwards, (Σ_{r ≤ ⌊smallest · HW⌋} (1 - s_r) + Σ_{r > ⌊largest · HW⌋} s_r) / HW; nothing
    between the bounds costs anything.

    Args:
        masks_NHW: In [0, 1]; differentiable.
        smallest: Least share of the image, in [0, 1]; 0: no lower bound.
        largest: Largest share, in [smallest, 1]; 1: no upper bound.

    Returns:
        [N], in [0, 1]: shares of the image.

    Source: NN-Explainer ``MaskAreaLoss``; the idea is that of Fong et al. 2019, arXiv 1910.08485.
    """
    pixels = masks_NHW.shape[-2] * masks_NHW.shape[-1]
    low, high = removal_count(smallest, pixels), removal_count(largest, pixels)
    values = masks_NHW.flatten(1).sort(dim=1, descending=True).values
    missing = (1 - values[:, :low]).clamp_min(0).sum(dim=1)
    return (missing + values[:, high:].clamp_min(0).sum(dim=1)) / pixels


def class_area_bound(
    masks_BKHW: Tensor,
    labels_BK: Tensor,
    smallest: float,
    largest: float,
    *,
    over_classes: OverClasses = "mean",
    most_labels: int | None = None,
) -> Tensor:
    """``area_bound`` of the masks of the classes that an image has, averaged over the images.

    Args:
        masks_BKHW: In [0, 1], one a class; differentiable.
        labels_BK: Multi-hot. An image without a label costs nothing.
        smallest, largest: As ``area_bound`` takes them.
        over_classes: How an image's classes are put together.
        most_labels: No image has more labels than this: so many masks an image are sorted; None: all K.

    Returns:
        0-dim, a share of the image; above 1 only where an image's classes are summed.

    Source: NN-Explainer ``ClassMaskAreaLoss``.
    Differs: the original sums over an image's classes, since the mean that it takes is that of a single number; so an
        image with many classes counts more (``over_classes="sum"``).
    """
    classes = masks_BKHW.shape[1]
    present, chosen = labels_BK.topk(min(most_labels or classes, classes), dim=1)
    present = (present > 0.5).to(masks_BKHW.dtype)
    masks = masks_BKHW.gather(1, chosen[:, :, None, None].expand(-1, -1, *masks_BKHW.shape[2:]))
    costs = area_bound(masks.flatten(0, 1), smallest, largest).reshape(present.shape)
    of_images = (costs * present).sum(dim=1)
    if over_classes == "mean":
        of_images = of_images / present.sum(dim=1).clamp_min(1)
    return of_images.mean()


def preservation_loss(logits_BK: Tensor, labels: Tensor) -> Tensor:
    """-log of the probability of each class that an image has, averaged over all such pairs of the batch.

    Args:
        logits_BK: Of the frozen classifier on the preserved image.
        labels: int64 [B]: probabilities are softmaxes; multi-hot [B, K]: sigmoids.

    Returns:
        0-dim, in nats, at least 0; 0 where no image has a label.

    Source: NN-Explainer ``explainer_classifier_rtsal``; Dabkowski and Gal 2017, arXiv 1705.07857, equation 3.
    Differs: the logarithm of the sigmoid is taken at once, so that it never becomes infinite.
    """
    logs = F.logsigmoid(logits_BK) if labels.ndim == 2 else F.log_softmax(logits_BK, dim=1)
    return -_mean_of_labels(logs, labels)


def destruction_loss(logits_BK: Tensor, labels: Tensor, exponent: float = 0.3) -> Tensor:
    """The mean probability of the classes that an image has, to a power below 1.

    Args:
        logits_BK: Of the frozen classifier on the destroyed image.
        labels: As ``preservation_loss`` takes them.
        exponent: In (0, 1].

    Returns:
        0-dim, in [0, 1]: a probability to a power.

    Source: NN-Explainer ``explainer_classifier_rtsal``; Dabkowski and Gal 2017, arXiv 1705.07857, equation 3.
    Differs: the mean is kept above the smallest normal number, where the power's slope is still finite.
    """
    probabilities = logits_BK.sigmoid() if labels.ndim == 2 else logits_BK.softmax(dim=1)
    mean = _mean_of_labels(probabilities, labels)
    return mean.clamp_min(torch.finfo(mean.dtype).tiny).pow(exponent)


def disagreement(first: Tensor, second: Tensor) -> Tensor:
    """Mean absolute difference, of a teacher's and a student's logits or masks.

    Args:
        first, second: Of one shape.

    Returns:
        0-dim, at least 0, in the unit of what is compared.

    Source: NN-Explainer ``interpretable_fcnn``; spec S0.7.
    """
    return (first - second).abs().mean()


def _mean_of_labels(values_BK: Tensor, labels: Tensor) -> Tensor:
    """Mean over all (image, class) pairs that are labels."""
    present = multi_hot(labels, values_BK.shape[1]).to(values_BK.dtype)
    return (values_BK * present).sum() / present.sum().clamp_min(1)
