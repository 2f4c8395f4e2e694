"""CAM arithmetic: from activations and their gradients to a map, and from the layer's size to the image's.

Shapes: B images, C channels, h × w cells of a layer, H × W px of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Weights = Literal["pooled", "elementwise", "summed"]
Fuse = Literal["mean", "max"]
Resize = Literal["bilinear", "align_corners", "bicubic"]


def grad_cam(activations_BChw: Tensor, gradients_BChw: Tensor, weights: Weights = "pooled") -> Tensor:
    """Sum over channels of activations weighted by gradients.

    Args:
        weights: ``pooled``: by the spatial mean of the gradient, as published; ``summed``: by its spatial sum, h · w
            times as much; ``elementwise``: by each cell's own, which is HiResCAM.

    Returns:
        [B, h, w], signed.

    Source: Selvaraju et al. 2017, arXiv 1610.02391, equations 1 and 2; elementwise: Draelos and Carin 2020, arXiv
    2011.08891, equation 4 (TorchRay's linear approximation).
    """
    if weights == "pooled":
        gradients_BChw = gradients_BChw.mean(dim=(2, 3), keepdim=True)
    elif weights == "summed":
        gradients_BChw = gradients_BChw.sum(dim=(2, 3), keepdim=True)
    return (activations_BChw * gradients_BChw).sum(dim=1)


def grad_cam_plus_plus(activations_BChw: Tensor, gradients_BChw: Tensor) -> Tensor:
    """Activations weighted by the sum of their positive gradients g, each times α = g² / (2 g² + g³ Σ A).

    Returns:
        [B, h, w], signed.

    Source: Chattopadhyay et al. 2018, arXiv 1710.11063, equations 7 and 19, for a score that goes through exp.
    Differs: without the factor exp(logit), the same for all cells of a map. pytorch-grad-cam adds 1e-6 to the
    denominator, which decides where gradients are below 1e-3; here g² is cancelled, and α is 0 where it is undefined.
    """
    denominator = 2 + gradients_BChw * activations_BChw.sum(dim=(2, 3), keepdim=True)
    alphas = torch.where(denominator == 0, 0, 1 / denominator)
    return channel_cam(activations_BChw, (alphas * gradients_BChw.clamp(min=0)).sum(dim=(2, 3)))


def layer_cam(activations_BChw: Tensor, gradients_BChw: Tensor) -> Tensor:
    """Activations weighted cell by cell by their positive gradients.

    Returns:
        [B, h, w], signed where activations are.

    Source: Jiang et al. 2021, LayerCAM, IEEE TIP 30, equations 5 and 6.
    """
    return (activations_BChw * gradients_BChw.clamp(min=0)).sum(dim=1)


def x_grad_cam(activations_BChw: Tensor, gradients_BChw: Tensor) -> Tensor:
    """Activations weighted by the mean of their gradients, each gradient counting by its cell's share of Σ A.

    Returns:
        [B, h, w], signed; channels whose activations sum to 0 don't count.

    Source: Fu et al. 2020, arXiv 2008.02312, equation 8.
    """
    total = activations_BChw.sum(dim=(2, 3))
    weights = (activations_BChw * gradients_BChw).sum(dim=(2, 3)) / torch.where(total == 0, 1, total)
    return channel_cam(activations_BChw, torch.where(total == 0, 0, weights))


def channel_cam(activations_BChw: Tensor, weights_BC: Tensor) -> Tensor:
    """Sum over channels of activations times one weight a channel.

    Returns:
        [B, h, w].
    """
    return (activations_BChw * weights_BC[:, :, None, None]).sum(dim=1)


def most_varied_channels(activations_BChw: Tensor, at_most: int | None = None) -> Tensor:
    """The channels that are not the same everywhere, or those of them with the largest spatial standard deviation.

    Args:
        at_most: How many; None: all. Of equal ones the first.

    Returns:
        [B, C] bool.
    """
    varied_BC = activations_BChw.amax(dim=(2, 3)) > activations_BChw.amin(dim=(2, 3))
    if at_most is None or at_most >= varied_BC.shape[1]:
        return varied_BC
    differences = activations_BChw.double()
    differences = differences - differences.mean(dim=(2, 3), keepdim=True)
    variances = differences.square_().mean(dim=(2, 3))  # std() takes six times as long over two dimensions
    chosen = torch.argsort(variances, dim=1, descending=True, stable=True)[:, :at_most]
    return varied_BC & torch.zeros_like(varied_BC).scatter(1, chosen, True)


def activation_masks(activations_nhw: Tensor, size: tuple[int, int], resize: Resize = "bilinear") -> Tensor:
    """Channels of a layer resized to the image and stretched to [0, 1], each by its own smallest and largest value.

    Args:
        activations_nhw: None of them the same everywhere.

    Returns:
        [n, H, W].
    """
    masks = resize_map(activations_nhw, size, resize)
    lowest, highest = masks.amin(dim=(1, 2), keepdim=True), masks.amax(dim=(1, 2), keepdim=True)
    return (masks - lowest) / (highest - lowest)


def eigen_cam(activations_BChw: Tensor, *, centre: bool = False) -> Tensor:
    """Each cell's activations along the first principal direction of all the cells' activations.

    The direction's sign is free; it is chosen so that the map correlates positively with the mean over channels: the
    sum over cells of map × mean activation is not negative.

    Args:
        centre: Take the mean over cells of each channel away first, as pytorch-grad-cam does.

    Returns:
        [B, h, w], signed.

    Source: Muhammad and Yeasin 2020, arXiv 2008.00299, section III.
    """
    cells = activations_BChw.flatten(2).transpose(1, 2).double()  # [B, h · w, C]; squared below
    mean = cells.mean(dim=2)
    if centre:
        cells = cells - cells.mean(dim=1, keepdim=True)
    # The right singular vector v of cells, and cells · v, by the smaller of the two Gram matrices.
    if cells.shape[1] <= cells.shape[2]:
        values, vectors = torch.linalg.eigh(cells @ cells.transpose(1, 2))
        projected = vectors[:, :, -1] * values[:, -1:].clamp(min=0).sqrt()
    else:
        _, vectors = torch.linalg.eigh(cells.transpose(1, 2) @ cells)
        projected = (cells @ vectors[:, :, -1:])[:, :, 0]
    against = (projected * (mean - mean.mean(dim=1, keepdim=True) if centre else mean)).sum(dim=1, keepdim=True) < 0
    maps = torch.where(against, -projected, projected).reshape(-1, *activations_BChw.shape[2:])
    return maps.to(activations_BChw)


def to_image(
    maps: Sequence[Tensor], size: tuple[int, int], *, relu: bool, fuse: Fuse = "mean", resize: Resize = "bilinear"
) -> Tensor:
    """From the maps of one or several layers to one map of the image's size.

    A single layer's map is clamped and resized. Of several, each is clamped, divided by its largest absolute value (a
    map of zeros stays one) and resized; then their mean or maximum is taken, pixel by pixel.

    Args:
        maps: Of each layer [B, h, w].
        size: (H, W).
        relu: Clamp at 0.

    Returns:
        [B, H, W].
    """
    if relu:
        maps = [layer.clamp(min=0) for layer in maps]
    if len(maps) == 1:
        return resize_map(maps[0], size, resize)
    resized = []
    for layer in maps:
        largest = layer.abs().amax(dim=(1, 2), keepdim=True)
        resized.append(resize_map(layer / torch.where(largest == 0, 1, largest), size, resize))
    stacked = torch.stack(resized)
    return stacked.mean(dim=0) if fuse == "mean" else stacked.amax(dim=0)


def resize_map(maps_Bhw: Tensor, size: tuple[int, int], how: Resize = "bilinear") -> Tensor:
    """Resize maps.

    Args:
        size: (H, W).
        how: ``bilinear``: pixel centres aligned as images are, as torch does without align_corners and cv2 does (their
            arithmetic is the same); ``align_corners``: the corner cells' centres on the corner pixels' centres;
            ``bicubic``: as ``bilinear``, by cubic convolution, which may overshoot.

    Returns:
        [B, H, W].
    """
    mode = "bicubic" if how == "bicubic" else "bilinear"
    return functional.interpolate(maps_Bhw[:, None], size=size, mode=mode, align_corners=how == "align_corners")[:, 0]
