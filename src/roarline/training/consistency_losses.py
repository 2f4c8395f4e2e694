"""The consistency loss: a class's Grad-CAM of an image, and that of a composite in which the image is one of four.

Maps stay in the graph, so that the loss's gradient reaches the weights through the gradient that the maps are made of.

Shapes: B images, K channels of a layer, h × w cells of its map, H × W px.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from roarline.errors import ModelError
from roarline.imaging.cam import grad_cam, resize_map
from roarline.training.composites import placed

Compat = Literal["corrected", "original"]
_TINY = 1e-8


def class_maps(features: Tensor, scores_B: Tensor, grid: Callable[[Tensor], Tensor] = lambda values: values) -> Tensor:
    """Raw Grad-CAM of each image's own score, cell by cell, without its negative part; differentiable.

    Args:
        features: What the layer gave, in the graph of ``scores_B``.
        scores_B: The target class's logit of each image; no score depends on another image's features.
        grid: Makes [B, K, h, w] of features of another layout: tokens, or channels in the last dimension.

    Returns:
        [B, h, w], ≥ 0, in the graph, of the features' dtype, at least float32.

    Raises:
        ModelError: The scores don't depend on the features.

    Source: spec S2.2: relu(Σ_k g ⊙ F) with g = ∂ Σ scores / ∂ F, not pooled over cells.
    """
    (gradients,) = torch.autograd.grad(scores_B.sum(), features, create_graph=True, allow_unused=True)
    if gradients is None:
        raise ModelError("consistency.layer: the logits don't depend on what this layer gives; choose another")
    wide = torch.promote_types(features.dtype, torch.float32)
    return grad_cam(grid(features).to(wide), grid(gradients).to(wide), "elementwise").relu()


def normalised(maps_Bhw: Tensor, compat: Compat = "corrected") -> Tensor:
    """Each map divided by its sum, so that it sums to 1; a map that is 0 everywhere stays so.

    Args:
        maps_Bhw: ≥ 0.
        compat: ``original`` adds 1e-8 to every cell afterwards.

    Returns:
        [B, h, w], in the graph.

    Source: spec S2.2.
    Differs: with ``corrected`` a dead map is no uniform one (spec B2.4).
    """
    shares = maps_Bhw / (maps_Bhw.sum((1, 2), keepdim=True) + _TINY)
    return shares + _TINY if compat == "original" else shares


def consistency_loss(
    raw_Bhw: Tensor,
    raw_composites_Bhw: Tensor,
    quadrants_B: Tensor,
    image_size: tuple[int, int],
    compat: Compat = "corrected",
) -> Tensor:
    """How far the map of the composite is from the image's map, put where the image stands, and 0 elsewhere.

    Where the cells of four images tile those of a composite (ResNets at 224 px: 7 × 7 and 14 × 14), maps are compared
    cell by cell; else (AlexNet: 6 × 6 and 13 × 13) both are enlarged to their images' sizes first.

    Args:
        raw_Bhw: ``class_maps`` of the images.
        raw_composites_Bhw: ``class_maps`` of the composites.
        quadrants_B: Where the images stand, int64 in [0, 3].
        image_size: (H, W) of the images; composites have twice the sides.

    Returns:
        float [B], ≥ 0: the mean of |difference| over the composite's cells, at most 2 / cells: 0.0102 for 14 × 14.

    Source: spec S2.2 (Pillai and Pirsiavash 2021, arXiv 2106.09692, equation 2); enlarged: its AlexNet.
    Differs: enlarging 6 × 6 to 224 px and 13 × 13 to 448 px leaves maps that sum to 1394 and 1188, which the published
    code compares as they are, so that no two maps are consistent; ``corrected`` makes both sum to 1 again, and divides
    the sum of |difference| by the composite's cells, so that the bound is the same in both forms.
    """
    maps, of_composites = normalised(raw_Bhw, compat), normalised(raw_composites_Bhw, compat)
    cells = raw_composites_Bhw.shape[-2] * raw_composites_Bhw.shape[-1]
    if (2 * maps.shape[-2], 2 * maps.shape[-1]) == tuple(of_composites.shape[-2:]):
        return (of_composites - placed(maps, quadrants_B)).abs().mean((1, 2))
    maps = resize_map(maps, image_size)
    of_composites = resize_map(of_composites, (2 * image_size[0], 2 * image_size[1]))
    if compat == "original":
        return (of_composites - placed(maps, quadrants_B)).abs().mean((1, 2))
    difference = normalised(of_composites) - placed(normalised(maps), quadrants_B)
    return difference.abs().sum((1, 2)) / cells
