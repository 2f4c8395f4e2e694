"""Occlusion: how much the target's score drops where a window covers the image.

captum's Occlusion evaluates one window a pass unless told otherwise; here windows and images fill every pass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from roarline.attribution.masked import baseline_image, masked_target_scores, score_classes


def occlusion(
    model: nn.Module,
    images_BCHW: Tensor,
    targets_B: Tensor,
    *,
    window_px: int | None = None,
    stride_px: int | None = None,
    baseline: float | str = 0.0,
    score: Literal["logit", "softmax", "sigmoid"] = "logit",
    logits_BK: Tensor,
    image_index: Sequence[int] | None = None,
) -> Tensor:
    """Score of the image minus its score under a window, averaged over the windows that cover a pixel.

    Args:
        targets_B: int64 in [0, K).
        window_px: Side of the square window; None: a seventh of the image's shorter side, rounded up (32 at 224 px).
        stride_px: Step between windows, both ways; None: half the window, rounded up. The last window of a row or
            column may stick out of the image; with a step wider than the window some pixels are never covered: 0.
        baseline: What the window shows, see ``masked.baseline_image``.
        score: Of the target.
        logits_BK: Logits of the unchanged images.
        image_index: One a row, equal for rows of the same image.

    Returns:
        [B, H, W].

    Source: Zeiler and Fergus 2014, arXiv 1311.2901, section 4.2.
    Differs: the paper's map has one value a window; pixels under several windows get their mean, as in captum.
    """
    height, width = images_BCHW.shape[2:]
    window = window_px or math.ceil(min(height, width) / 7)
    stride = stride_px or math.ceil(window / 2)
    rows, columns = (_coverage(side, window, stride).to(images_BCHW) for side in (height, width))
    count = len(rows) * len(columns)
    indices = torch.arange(count, device=images_BCHW.device)

    def masks(_: slice, copies: slice) -> Tensor:
        row, column = indices[copies] // len(columns), indices[copies] % len(columns)
        covered_nHW = rows[row][:, :, None] * columns[column][:, None, :]
        return 1 - covered_nHW[None]

    fill = baseline_image(baseline, images_BCHW)
    scores = masked_target_scores(
        model, images_BCHW, targets_B, count, masks, fill, score, image_index=image_index, shared=True
    )
    whole = score_classes(logits_BK.to(images_BCHW.dtype), score).gather(1, targets_B[:, None])
    drops = (whole - scores).reshape(-1, len(rows), len(columns))
    windows_HW = rows.sum(dim=0)[:, None] * columns.sum(dim=0)[None, :]
    return torch.matmul(torch.matmul(rows.T, drops), columns) / windows_HW.clamp(min=1)


def _coverage(side: int, window: int, stride: int) -> Tensor:
    """Which px of a side each window covers: {0, 1} [windows, side]; the windows together reach its end."""
    count = math.ceil(max(0, side - window) / stride) + 1
    first = torch.arange(count)[:, None] * stride
    place = torch.arange(side)[None, :]
    return ((place >= first) & (place < first + window)).to(torch.float32)
