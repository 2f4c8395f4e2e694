"""Sobol and HSIC attribution: how much the score depends on each cell of a grid when all cells vary at random.

The designs are drawn once and shared by all images and classes.

Shapes: B rows, C channels, H × W px, F cells, n points of a design, N altered copies an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from scipy.stats import qmc
from torch import Tensor, nn

from roarline.attribution.masked import baseline_image, masked_target_scores
from roarline.imaging.superpixels import grid_cells, spread

SensitivityScore = Literal["logit", "softmax", "sigmoid"]


def sobol(
    model: nn.Module,
    images_BCHW: Tensor,
    targets_B: Tensor,
    *,
    designs: int = 32,
    cells: int = 8,
    baseline: float | str = 0.0,
    score: SensitivityScore = "logit",
    shared_seed: int,
    image_index: Sequence[int] | None = None,
) -> Tensor:
    """Total-order Sobol indices: the share of the score's variance in which a cell's visibility takes part.

    Args:
        targets_B: int64 in [0, K).
        designs: n, a power of 2; an image takes n · (cells² + 2) passes.
        cells: Along each side.
        baseline: What a cell fades to, see ``masked.baseline_image``.
        score: Of the target.
        shared_seed: Of the scrambled Sobol sequence.
        image_index: One a row; rows of the same image go through the network once.

    Returns:
        [B, H, W], 0 or more; 0 everywhere where the score doesn't vary.

    Source: Fel et al. 2021, arXiv 2111.04138, section 3; Jansen's estimator.
    """
    labels_1HW = grid_cells(images_BCHW.shape[2], images_BCHW.shape[3], cells, images_BCHW.device)
    count = int(labels_1HW.max()) + 1
    shown_NF = torch.from_numpy(sobol_design(designs, count, shared_seed)).to(images_BCHW)
    scores_BN = _scores(model, images_BCHW, targets_B, shown_NF, labels_1HW, baseline, score, image_index)
    indices_BF = total_order_indices(scores_BN.double(), designs)
    return spread(indices_BF[:, None].to(images_BCHW.dtype), labels_1HW)[:, 0]


def hsic(
    model: nn.Module,
    images_BCHW: Tensor,
    targets_B: Tensor,
    *,
    samples: int = 1500,
    cells: int = 7,
    baseline: float | str = 0.0,
    score: SensitivityScore = "logit",
    shared_seed: int,
    image_index: Sequence[int] | None = None,
) -> Tensor:
    """Hilbert-Schmidt independence criterion between whether a cell is shown and the target's score.

    Args:
        targets_B: int64 in [0, K).
        samples: N, passes an image.
        cells: Along each side.
        baseline: What hides a cell, see ``masked.baseline_image``.
        score: Of the target.
        shared_seed: Of the Latin hypercube.
        image_index: One a row; rows of the same image go through the network once.

    Returns:
        [B, H, W], 0 or more; 0 everywhere where the score doesn't vary.

    Source: Novello et al. 2022, arXiv 2206.06219, section 3.
    Differs: the score kernel's width is the median distance of two different samples, not the median score, which
        would depend on the score's origin.
    """
    labels_1HW = grid_cells(images_BCHW.shape[2], images_BCHW.shape[3], cells, images_BCHW.device)
    count = int(labels_1HW.max()) + 1
    uniform = qmc.LatinHypercube(count, rng=np.random.default_rng(shared_seed)).random(samples)
    shown_NF = torch.from_numpy((uniform < 0.5).astype(np.float64)).to(images_BCHW)
    scores_BN = _scores(model, images_BCHW, targets_B, shown_NF, labels_1HW, baseline, score, image_index)
    criteria_BF = torch.stack([independence_criteria(shown_NF.double(), scores) for scores in scores_BN.double()])
    return spread(criteria_BF[:, None].to(images_BCHW.dtype), labels_1HW)[:, 0]


def sobol_design(designs: int, count: int, seed: int) -> np.ndarray:
    """Points at which total-order indices are estimated: A, B, and for each cell A with that cell taken from B.

    Args:
        designs: n, a power of 2, in A and in B.
        count: F.

    Returns:
        [n · (F + 2), F] in [0, 1).
    """
    points = qmc.Sobol(2 * count, rng=np.random.default_rng(seed)).random(designs)
    first, second = points[:, :count], points[:, count:]
    mixed = np.repeat(first[None], count, axis=0)
    cells = np.arange(count)
    mixed[cells, :, cells] = second.T
    return np.concatenate([first, second, mixed.reshape(-1, count)])


def total_order_indices(scores_BN: Tensor, designs: int) -> Tensor:
    """Total-order indices from scores at the points of ``sobol_design``: mean (f(A) - f(A with i of B))² / 2 variance.

    Returns:
        [B, F]; 0 where the scores of a row don't vary.

    Source: Jansen 1999, Computer Physics Communications 117, equation 20.
    """
    first, mixed = scores_BN[:, None, :designs], scores_BN[:, 2 * designs :].reshape(len(scores_BN), -1, designs)
    variance = scores_BN[:, : 2 * designs].var(dim=1, correction=0)[:, None]
    indices = (first - mixed).square().mean(dim=2) / (2 * variance)
    return torch.where(variance > 0, indices, 0.0)


def independence_criteria(shown_NF: Tensor, scores_N: Tensor) -> Tensor:
    """HSIC of each cell with the score: trace(K H L H) / (N - 1)².

    K is the cells' kernel 1/2 - (a - b)², which for a, b in {0, 1} is 2 (a - 1/2)(b - 1/2): the trace becomes one
    quadratic form a cell, and K is never made. L is Gaussian; H centres.

    Returns:
        [F], 0 or more; 0 where the scores don't vary.
    """
    count = len(scores_N)
    distances = (scores_N[:, None] - scores_N[None, :]).abs()
    above = torch.triu_indices(count, count, offset=1, device=scores_N.device)
    width = distances[above[0], above[1]].median()
    # Where more than half of all pairs are equal, any width tells the rest apart as well as another.
    width = torch.where(width > 0, width, distances.max())
    kernel = torch.where(width > 0, torch.exp(-(distances / (2 * width**2).sqrt()).square()), 1.0)
    signs = shown_NF - 0.5
    centred = signs - signs.mean(dim=0)
    return ((kernel @ centred) * centred).sum(dim=0).clamp(min=0) * 2 / (count - 1) ** 2


def _scores(
    model: nn.Module,
    images_BCHW: Tensor,
    targets_B: Tensor,
    shown_NF: Tensor,
    labels_1HW: Tensor,
    baseline: float | str,
    score: SensitivityScore,
    image_index: Sequence[int] | None,
) -> Tensor:
    """[B, N]: the target's score at each point of a design."""

    def masks(_: slice, copies: slice) -> Tensor:
        return spread(shown_NF[None, copies], labels_1HW)

    fill = baseline_image(baseline, images_BCHW)
    return masked_target_scores(
        model, images_BCHW, targets_B, len(shown_NF), masks, fill, score, image_index=image_index, shared=True
    )
