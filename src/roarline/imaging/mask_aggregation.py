"""From maps of all classes to two masks of an image: of the classes that it has, and of those that it has not.

Shapes: B images, K classes, H × W px.
"""

from __future__ import annotations

import torch
from torch import Tensor


def aggregate_masks(class_logits_BKHW: Tensor, labels_BK: Tensor) -> tuple[Tensor, Tensor]:
    """The pixelwise maximum over an image's classes, and over the other classes, each as a mask in (0, 1).

    Args:
        class_logits_BKHW: One map a class, before the sigmoid; differentiable.
        labels_BK: Multi-hot, above 0.5 where the image has the class.

    Returns:
        (target masks, masks of the other classes), each [B, H, W]; 0 everywhere, without a gradient, where an image
        has no class, or every class.

    Source: Stalder et al. 2022, arXiv 2205.11266, section 3; NN-Explainer ``extract_masks``.
    Differs: the original fails for an image without a label, or with all of them.
    """
    present = (labels_BK > 0.5)[:, :, None, None]
    return _masks(class_logits_BKHW, present), _masks(class_logits_BKHW, ~present)


def _masks(class_logits_BKHW: Tensor, chosen: Tensor) -> Tensor:
    # exp underflows to 0 at the lowest finite number; -inf would make the gradient of the sigmoid's input NaN
    lowest = torch.finfo(class_logits_BKHW.dtype).min
    return class_logits_BKHW.where(chosen, lowest).amax(dim=1).sigmoid()
