"""Greedy removal: a near-optimal order of cells, as a ceiling for what deletion and insertion curves can reach.

Shapes: B rows, C channels, H × W px, F cells, m cells that are still to be chosen.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from roarline.attribution.masked import Score, baseline_image, masked_target_scores
from roarline.imaging.superpixels import grid_cells, spread


def greedy_deletion(
    model: nn.Module,
    images_BCHW: Tensor,
    targets_B: Tensor,
    *,
    cells: int = 7,
    order: Literal["deletion", "insertion"] = "deletion",
    candidates: int | None = None,
    baseline: float | str = 0.0,
    score: Literal["probability", "logit"] = "probability",
) -> Tensor:
    """At each step take the cell whose removal lowers the target's score most, or whose appearance raises it most.

    Args:
        targets_B: int64 in [0, K).
        cells: Along each side; F = cells², and an image takes F · (F + 1) / 2 passes.
        order: ``deletion`` starts from the image, ``insertion`` from the baseline.
        candidates: After the first step, try only so many cells, those that gained most when they were last tried: at
            most F + 1 + (F - 2) · candidates passes. None: all that are left.
        baseline: What stands where a cell is gone, see ``masked.baseline_image``.
        score: ``probability``: softmax, compared by its log odds, which don't round to 0 or 1; or ``logit``.

    Returns:
        [B, H, W]: 1 for the cell that is taken first, down to 1 / F for the last.

    Source: the greedy form of TRACE, 2024; a cell's rank is optimal where the score is additive in the cells.
    """
    labels_1HW = grid_cells(images_BCHW.shape[2], images_BCHW.shape[3], cells, images_BCHW.device)
    count, batch = int(labels_1HW.max()) + 1, len(images_BCHW)
    fill = baseline_image(baseline, images_BCHW)
    compared: Score = "log_odds" if score == "probability" else "logit"
    start, taken = (1.0, 0.0) if order == "deletion" else (0.0, 1.0)
    sign = -1.0 if order == "deletion" else 1.0

    def scores_of(states_BnF: Tensor) -> Tensor:
        def masks(rows: slice, copies: slice) -> Tensor:
            return spread(states_BnF[rows, copies], labels_1HW)

        return masked_target_scores(model, images_BCHW, targets_B, states_BnF.shape[1], masks, fill, compared)

    state_BF = images_BCHW.new_full((batch, count), start)
    current_B1 = scores_of(state_BF[:, None])
    left_Bm = torch.arange(count, device=images_BCHW.device).expand(batch, -1)
    gains_Bm = images_BCHW.new_zeros((batch, count))  # over the score of the time when a cell was last tried
    ranks_BF = images_BCHW.new_zeros((batch, count))
    for step in range(count):
        tried_Bc = _to_try(gains_Bm, candidates if step > 0 else None)
        if step < count - 1:  # the last cell needs no trial
            trials = state_BF[:, None].expand(-1, tried_Bc.shape[1], -1)
            scores_Bc = scores_of(trials.scatter(2, left_Bm.gather(1, tried_Bc)[:, :, None], taken))
        else:
            scores_Bc = current_B1
        gains_Bc = sign * (scores_Bc - current_B1)
        gains_Bm = gains_Bm.scatter(1, tried_Bc, gains_Bc)
        best_B1 = gains_Bc.argmax(dim=1, keepdim=True)
        current_B1 = scores_Bc.gather(1, best_B1)
        place_B1 = tried_Bc.gather(1, best_B1)
        cell_B1 = left_Bm.gather(1, place_B1)
        state_BF = state_BF.scatter(1, cell_B1, taken)
        ranks_BF = ranks_BF.scatter(1, cell_B1, (count - step) / count)
        others = torch.arange(count - step - 1, device=images_BCHW.device).expand(batch, -1)
        others = others + (others >= place_B1).long()
        left_Bm, gains_Bm = left_Bm.gather(1, others), gains_Bm.gather(1, others)
    return spread(ranks_BF[:, None], labels_1HW)[:, 0]


def _to_try(gains_Bm: Tensor, candidates: int | None) -> Tensor:
    """Places in m of the cells to try: all, or those of the largest gains, in the order of m."""
    batch, left = gains_Bm.shape
    if candidates is None or candidates >= left:
        return torch.arange(left, device=gains_Bm.device).expand(batch, -1)
    return gains_Bm.topk(candidates, dim=1).indices.sort(dim=1).values
