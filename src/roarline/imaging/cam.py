"""CAM arithmetic: from activations and their gradients to a map, and from the layer's size to the image's.

Shapes: B images, C channels, h × w cells of the layer, H × W px of the image.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional

Weights = Literal["pooled", "elementwise"]


def grad_cam(
    activations_BChw: Tensor, gradients_BChw: Tensor, weights: Weights = "pooled", *, relu: bool = True
) -> Tensor:
    """Sum over channels of activations weighted by gradients.

    Args:
        weights: ``pooled``: by the spatial mean of the gradient, as published; ``elementwise``: by each cell's own.
        relu: Clamp the map at 0.

    Returns:
        [B, h, w].

    Source: Selvaraju et al. 2017, arXiv 1610.02391, equations 1 and 2; elementwise is TorchRay's linear approximation.
    """
    if weights == "pooled":
        gradients_BChw = gradients_BChw.mean(dim=(2, 3), keepdim=True)
    maps = (activations_BChw * gradients_BChw).sum(dim=1)
    return maps.clamp(min=0) if relu else maps


def resize_map(maps_Bhw: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize maps, bilinear, pixel centres aligned as images are (align_corners False).

    Args:
        size: (H, W).

    Returns:
        [B, H, W].
    """
    return functional.interpolate(maps_Bhw[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
