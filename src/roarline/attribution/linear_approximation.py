"""Linear approximation: gradient times activation at a layer, summed over channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from roarline.attribution.passes import choose_targets
from roarline.imaging.cam import resize_map
from roarline.models.recording import recording


def linear_approximation(model: nn.Module, images_BCHW: Tensor, targets_B: Tensor, *, layer: str = "auto") -> Tensor:
    """Σ over channels of activation × gradient of the target's logit, resized to the image, bilinear; signed.

    Args:
        targets_B: int64; -1 means the predicted class.
        layer: Dotted module name, or ``auto``; a module that is called twice is read at its last call.

    Returns:
        [B, H, W].

    Raises:
        ModelError: There is no such layer, or its output is no map.

    Source: Kindermans et al. 2016, arXiv 1611.07270, section 3; at a layer as in TorchRay's linear_approx.
    """
    with torch.enable_grad(), recording(model, layer, images_BCHW) as recorded:
        logits = model(images_BCHW.detach())
        chosen = choose_targets(logits, targets_B)
        gradients = recorded.gradients(logits.gather(1, chosen[:, None]).sum())[0]
    maps = (recorded.activations[0] * gradients).sum(dim=1)
    return resize_map(maps, (images_BCHW.shape[2], images_BCHW.shape[3]))
