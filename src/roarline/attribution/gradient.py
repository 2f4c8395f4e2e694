"""Methods of one backward pass: the gradient of the target's logit, and its product with the input.

Both take -1 as a target for "the predicted class", so that prediction and map come from one forward pass; captum's
Saliency and InputXGradient need the target before it, a second forward pass. Tests hold both against captum.
"""

from __future__ import annotations

from torch import Tensor, nn

from roarline.attribution.passes import target_logit_gradient


def gradient(model: nn.Module, images_BCHW: Tensor, targets_B: Tensor) -> Tensor:
    """Gradient of the target's logit, signed.

    Returns:
        [B, C, H, W].

    Source: Simonyan et al. 2014, arXiv 1312.6034, section 3.
    Differs: keeps sign and channels; the paper's max over channels of the absolute value is the default reduction.
    """
    return target_logit_gradient(model, images_BCHW, targets_B)


def input_x_gradient(model: nn.Module, images_BCHW: Tensor, targets_B: Tensor) -> Tensor:
    """The normalised image times the gradient of the target's logit.

    Returns:
        [B, C, H, W].

    Source: Shrikumar et al. 2016, arXiv 1605.01713.
    """
    return images_BCHW * target_logit_gradient(model, images_BCHW, targets_B)
