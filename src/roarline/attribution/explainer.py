"""Learned explainers: a network that was trained to draw the mask.

Shapes: B rows, U distinct images, K classes, C channels, H × W px.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from roarline.attribution.distinct_images import DistinctImages

Masks = Callable[[nn.Module, Tensor], Tensor]
"""(classifier, images [U, C, H, W]) to masks [U, K, H, W], one a class, or [U, 1, H, W], the same for all."""


def learned_mask(
    model: nn.Module, images_BCHW: Tensor, targets_B: Tensor, *, explainer: Masks, image_index: Sequence[int]
) -> Tensor:
    """The mask that a trained explainer draws of the target; one pass an image, whatever its number of targets.

    Args:
        model: The classifier that is explained.
        images_BCHW: Normalised.
        targets_B: int64.
        explainer: Of ``train-explainer``.
        image_index: Equal for rows of one image.

    Returns:
        [B, H, W] in [0, 1]: a mask, not only a ranking.

    Source: Stalder et al. 2022, arXiv 2205.11266; Phang et al. 2020, arXiv 2010.09750.
    """
    images = DistinctImages(image_index, targets_B)
    with torch.no_grad():
        masks = explainer(model, images_BCHW[images.first_rows])
    classes = targets_B if masks.shape[1] > 1 else torch.zeros_like(targets_B)
    return masks[images.image_of_row, classes]
