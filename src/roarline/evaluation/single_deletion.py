"""In-domain single deletion: does a map's sum over a patch rank patches as their deletion ranks them?

Shapes: B rows, each an (image, target) pair; C channels, H × W px, P = grid² patches.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from roarline.imaging.patches import patch_index

OK = "ok"
SAME_SUMS = "the map has the same sum in every patch"
SAME_DROPS = "deleting any patch changes the score by the same"
NOT_FINITE = "the classifier's output is NaN or infinite"


def deletion_drops(outputs_of: Callable[[Tensor], Tensor], images_BCHW: Tensor, fill: Tensor, grid: int) -> Tensor:
    """How far a score falls when one patch is deleted.

    Args:
        outputs_of: Images [B, C, H, W] to the score of each row's target [B].
        fill: What a deleted patch becomes, broadcastable to the images.
        grid: See ``patch_index``.

    Returns:
        float64 [B, P]: score of the whole image minus that without the patch; negative where the score rises.

    Source: Hesse et al. 2024, arXiv 2407.11910, section 3.
    """
    index_HW = patch_index(images_BCHW.shape[2], images_BCHW.shape[3], grid, images_BCHW.device)
    whole_B = outputs_of(images_BCHW).double()
    without = [outputs_of(torch.where(index_HW == patch, fill, images_BCHW)).double() for patch in range(grid**2)]
    return whole_B[:, None] - torch.stack(without, dim=1)


def single_deletion_score(drops_BP: np.ndarray, sums_BP: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Spearman's rank correlation of each row, ties at their mean rank.

    Args:
        drops_BP: float64 [B, P], of ``deletion_drops``.
        sums_BP: float64 [B, P], the map's sum in each patch.

    Returns:
        float64 [B] in [-1, 1], NaN where a rank correlation is undefined, and [B] statuses that say why.

    Source: Hesse et al. 2024, arXiv 2407.11910, section 3, IDSDS.
    Differs: the published code drops images whose correlation is undefined, and averages over the others.
    """
    finite = np.isfinite(drops_BP).all(axis=1)
    ranks = [stats.rankdata(values, axis=1) for values in (np.where(finite[:, None], drops_BP, 0.0), sums_BP)]
    centred = [rank - rank.mean(axis=1, keepdims=True) for rank in ranks]
    lengths = np.sqrt([np.square(rank).sum(axis=1) for rank in centred])
    defined = (lengths > 0).all(axis=0) & finite
    product = np.where(defined, lengths.prod(axis=0), 1.0)
    values = np.where(defined, (centred[0] * centred[1]).sum(axis=1) / product, np.nan)
    statuses = [
        OK if good else NOT_FINITE if not known else SAME_SUMS if own == 0 else SAME_DROPS
        for good, known, own in zip(defined.tolist(), finite.tolist(), lengths[1].tolist(), strict=True)
    ]
    return np.clip(values, -1.0, 1.0), statuses
