"""Does the mask of one class leave that class, and no other, to be seen?

Shapes: B images, T classes that masks are of, K classes of the network, H × W px.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from roarline.evaluation.segmentation_scores import CURVE_THRESHOLDS


def masked_class_probabilities(
    probabilities_of: Callable[[Tensor], Tensor],
    images_BCHW: Tensor,
    masks_BTHW: Tensor,
    thresholds: Sequence[float] = CURVE_THRESHOLDS,
) -> Tensor:
    """What the network says of each image when only the pixels of one class's mask are left, averaged over thresholds.

    Args:
        probabilities_of: Images [N, C, H, W] to probabilities [N, K].
        images_BCHW: Normalised; removed pixels become 0, the mean colour.
        masks_BTHW: In [0, 1]; a pixel stays where its mask exceeds the threshold.

    Returns:
        float64 [B, T, K].

    Source: Stalder et al. 2022, arXiv 2205.11266; NN-Explainer ``evaluate_class_scores.ipynb``.
    """
    count, classes = masks_BTHW.shape[:2]
    total: Tensor | float = 0.0
    for threshold in thresholds:
        left = images_BCHW[:, None] * (masks_BTHW > threshold).to(images_BCHW)[:, :, None]
        total = total + probabilities_of(left.flatten(0, 1)).double()
    return (torch.as_tensor(total) / len(thresholds)).reshape(count, classes, -1)


def own_and_others(probabilities_BTT: Tensor) -> tuple[Tensor, Tensor]:
    """The diagonal, and the mean of the rest of each row.

    Args:
        probabilities_BTT: [..., T, T], of a class (first) under the mask of a class (second).

    Returns:
        [..., T] each; with a single class there is no rest: NaN.
    """
    classes = probabilities_BTT.shape[-1]
    own = probabilities_BTT.diagonal(dim1=-2, dim2=-1)
    rest = probabilities_BTT.sum(dim=-1) - own
    return own, rest / (classes - 1) if classes > 1 else torch.full_like(own, torch.nan)
