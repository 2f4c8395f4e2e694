"""RISE: random masks weighted by the score that the network gives what they let through.

All images and classes share the masks: they are drawn once, a chunk of them is enlarged once for all images of a batch,
and kept scores give every class's map. TorchRay draws them anew for each image and takes one image at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from roarline.attribution.masked import Masks, masked_class_scores, masked_target_scores
from roarline.imaging.shifted_grids import Enlargement, ShiftedGrids, draw_shifted_grids

RiseScore = Literal["softmax", "sigmoid", "logit"]


def rise(
    model: nn.Module,
    images_BCHW: Tensor,
    targets_B: Tensor,
    *,
    masks: int = 8000,
    cells: int = 7,
    p: float = 0.5,
    score: RiseScore = "softmax",
    divide_by_p: bool = True,
    enlargement: Enlargement = "exact",
    shared_seed: int,
    image_index: Sequence[int] | None = None,
) -> Tensor:
    """Mean over random masks of the target's score for the masked image, times the mask.

    The defaults are the paper's and its code's. TorchRay's form, which NN-Explainer compares with too, is
    ``score: sigmoid, divide_by_p: false, enlargement: whole_px``.

    Args:
        targets_B: int64 in [0, K).
        masks: How many.
        cells: Of the random grid behind a mask, along each side.
        p: Probability that a cell is kept.
        score: Of the target.
        divide_by_p: Divide by p too, so that the map is an expected score given that the pixel is kept.
        enlargement: See ``imaging.shifted_grids.ShiftedGrids``.
        shared_seed: Of the masks.
        image_index: One a row; rows of the same image go through the network once.

    Returns:
        [B, H, W]; what a mask hides is 0 in normalised space, the mean colour.

    Source: Petsiuk et al. 2018, arXiv 1806.07421, equation 6.
    """
    size = (images_BCHW.shape[2], images_BCHW.shape[3])
    generator = torch.Generator().manual_seed(shared_seed)
    drawn = _on(draw_shifted_grids(masks, cells, p, size, generator, enlargement), images_BCHW)
    scores = masked_target_scores(
        model, images_BCHW, targets_B, masks, _masks_of(drawn), _mean_colour(images_BCHW), score,
        image_index=image_index, shared=True,
    )  # fmt: skip
    return drawn.weighted_sum(scores) / (masks * (p if divide_by_p else 1.0))


def rise_scores(
    model: nn.Module, images_BCHW: Tensor, drawn: ShiftedGrids | Tensor, score: RiseScore = "softmax"
) -> Tensor:
    """Every class's score for every masked image, to be kept for ``rise_maps``.

    Args:
        images_BCHW: Normalised network inputs.
        drawn: N masks of the images' size, drawn or as a tensor [N, H, W].
        score: Of each class.

    Returns:
        [B, N, K].
    """
    masks = _masks_of(_on(drawn, images_BCHW) if isinstance(drawn, ShiftedGrids) else drawn)
    fill = _mean_colour(images_BCHW)
    return masked_class_scores(model, images_BCHW, len(drawn), masks, fill, score, shared=True)


def rise_maps(scores_BNK: Tensor, drawn: ShiftedGrids | Tensor, *, p: float | None = None) -> Tensor:
    """Maps of all classes from kept scores, or of some where only their scores are given.

    Args:
        scores_BNK: Of ``rise_scores``, [B, N, K].
        drawn: The N masks, drawn or as a tensor [N, H, W].
        p: Divide by p too; None: by N alone.

    Returns:
        [B, K, H, W].

    Source: Petsiuk et al. 2018, arXiv 1806.07421, equation 6.
    """
    batch, count, classes = scores_BNK.shape
    weights = scores_BNK.transpose(1, 2).flatten(0, 1)
    if isinstance(drawn, Tensor):
        sums = torch.matmul(weights, drawn.to(weights).flatten(1))
    else:
        sums = _on(drawn, scores_BNK).weighted_sum(weights)
    height, width = drawn.shape[1:] if isinstance(drawn, Tensor) else drawn.size
    return sums.reshape(batch, classes, height, width) / (count * (1.0 if p is None else p))


def _masks_of(drawn: ShiftedGrids | Tensor) -> Masks:
    if isinstance(drawn, ShiftedGrids):
        return lambda _, chosen: drawn.masks(chosen)[None]
    return lambda _, chosen: drawn[None, chosen]


def _on(drawn: ShiftedGrids, like: Tensor) -> ShiftedGrids:
    return ShiftedGrids(drawn.grids_Nss.to(like), drawn.shifts_N2.to(like.device), drawn.size, drawn.enlargement)


def _mean_colour(images_BCHW: Tensor) -> Tensor:
    return images_BCHW.new_zeros((1, 1, 1, 1))
