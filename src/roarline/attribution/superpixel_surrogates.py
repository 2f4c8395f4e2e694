"""LIME and KernelSHAP on superpixels: a linear model of the target's score over which regions of an image are shown.

captum's versions take one image and one regression at a time; here all images share full passes and one batched solve.
Tests hold both against captum.

Shapes: B rows, C channels, H × W px, F regions, N samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from roarline.attribution.masked import baseline_image, masked_target_scores, score_classes
from roarline.imaging.superpixels import Superpixels, find_superpixels, region_means, spread

SurrogateScore = Literal["logit", "softmax", "sigmoid"]


def lime(
    model: nn.Module,
    images_BCHW: Tensor,
    targets_B: Tensor,
    *,
    samples: int = 1000,
    superpixels: Superpixels = "slic",
    segments: int = 50,
    compactness: float = 20.0,
    baseline: float | str = "region_mean",
    kernel_width: float = 0.25,
    ridge: float = 1.0,
    score: SurrogateScore = "logit",
    seeds: Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
) -> Tensor:
    """Coefficients of a ridge regression of the target's score on which regions are shown.

    The first sample shows the whole image; in the others each region is shown with probability 1/2. A sample's weight
    is exp(-d² / 2 kernel_width²) with d its cosine distance to the first.

    Args:
        targets_B: int64 in [0, K).
        samples: Altered copies an image.
        superpixels: See ``imaging.superpixels``; also segments, compactness.
        baseline: What hides a region: ``region_mean``, its own mean colour, or see ``masked.baseline_image``.
        kernel_width: In cosine distance.
        ridge: Penalty on the squared coefficients, not on the intercept.
        score: Of the target.
        seeds: One a row.
        mean: Of the normalisation.
        std: Of the normalisation.

    Returns:
        [B, H, W], equal within a region.

    Source: Ribeiro et al. 2016, arXiv 1602.04938; sampling, kernel and penalty are those of its released image code.
    Differs: superpixels are SLIC's or a grid's, the released code's quickshift; all regions stay in the regression.
    """
    labels_BHW, counts = _regions(images_BCHW, superpixels, segments, compactness, mean, std)
    shown = np.zeros((len(counts), samples, max(counts)))
    for row, (seed, regions) in enumerate(zip(seeds, counts, strict=True)):
        shown[row, :, :regions] = np.random.default_rng(seed).integers(0, 2, (samples, regions))
        shown[row, 0, :regions] = 1
    shown_BNF = torch.from_numpy(shown).to(images_BCHW)
    scores = _scores(model, images_BCHW, targets_B, shown_BNF, labels_BHW, baseline, score).double()
    exact = shown_BNF.double()
    cosine = (exact.mean(dim=2) * exact.shape[2] / torch.tensor(counts, device=exact.device)[:, None]).sqrt()
    weights = torch.exp(-(1 - cosine).square() / (2 * kernel_width**2))
    return _paint(ridge_regression(exact, scores, weights, ridge), labels_BHW, images_BCHW)


def kernel_shap(
    model: nn.Module,
    images_BCHW: Tensor,
    targets_B: Tensor,
    *,
    samples: int = 1000,
    superpixels: Superpixels = "slic",
    segments: int = 50,
    compactness: float = 20.0,
    baseline: float | str = 0.0,
    score: SurrogateScore = "logit",
    logits_BK: Tensor,
    seeds: Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
) -> Tensor:
    """Shapley values of the regions by weighted least squares; their sum is f(image) - f(baseline).

    Where ``samples`` is enough for all sets of regions, all are taken and the values are exact. Otherwise sets are
    drawn in pairs with their complements, of a size and in a number proportional to the Shapley kernel.

    Args:
        targets_B: int64 in [0, K).
        samples: Altered copies an image, beside the baseline itself.
        superpixels: See ``imaging.superpixels``; also segments, compactness.
        baseline: What hides a region, as in ``lime``.
        score: Of the target.
        logits_BK: Logits of the unchanged images.
        seeds: One a row.
        mean: Of the normalisation.
        std: Of the normalisation.

    Returns:
        [B, H, W], a region's Shapley value at each of its pixels.

    Source: Lundberg and Lee 2017, arXiv 1705.07874, theorem 2; pairs: Covert and Lee 2021, arXiv 2012.01536.
    Differs: the constraint that values sum to the difference is met exactly, captum gives it a large weight.
    """
    labels_BHW, counts = _regions(images_BCHW, superpixels, segments, compactness, mean, std)
    drawn = [coalitions(regions, samples, seed) for seed, regions in zip(seeds, counts, strict=True)]
    most = max(len(sets) for sets, _ in drawn)
    shown, weights = np.zeros((len(counts), most + 1, max(counts))), np.zeros((len(counts), most))
    for row, (sets, own_weights) in enumerate(drawn):
        shown[row, 1 : len(sets) + 1, : counts[row]] = sets
        weights[row, : len(sets)] = own_weights
    shown_BNF = torch.from_numpy(shown).to(images_BCHW)
    scores = _scores(model, images_BCHW, targets_B, shown_BNF, labels_BHW, baseline, score).double()
    whole = score_classes(logits_BK.double(), score).gather(1, targets_B[:, None])[:, 0]
    used = torch.arange(max(counts), device=whole.device) < torch.tensor(counts, device=whole.device)[:, None]
    values = constrained_regression(
        shown_BNF[:, 1:].double(),
        scores[:, 1:] - scores[:, :1],
        torch.from_numpy(weights).to(whole),
        whole - scores[:, 0],
        used,
    )
    return _paint(values, labels_BHW, images_BCHW)


def ridge_regression(shown_BNF: Tensor, scores_BN: Tensor, weights_BN: Tensor, ridge: float) -> Tensor:
    """Coefficients [B, F] that minimise Σ w (score - intercept - shown · coefficients)² + ridge · |coefficients|²."""
    weights = weights_BN[:, :, None]
    total = weights.sum(dim=1, keepdim=True)
    centred = shown_BNF - (weights * shown_BNF).sum(dim=1, keepdim=True) / total
    scores = scores_BN[:, :, None]
    residual = scores - (weights * scores).sum(dim=1, keepdim=True) / total
    normal = centred.transpose(1, 2) @ (weights * centred)
    penalty = ridge * torch.eye(normal.shape[1], dtype=normal.dtype, device=normal.device)
    coefficients: Tensor = torch.linalg.solve(normal + penalty, centred.transpose(1, 2) @ (weights * residual))
    return coefficients[:, :, 0]


def constrained_regression(
    shown_BNF: Tensor, gains_BN: Tensor, weights_BN: Tensor, totals_B: Tensor, used_BF: Tensor
) -> Tensor:
    """Values [B, F] that minimise Σ w (gain - shown · values)² and sum to ``totals_B``; 0 where not ``used_BF``.

    Where samples leave values open, the smallest ones are taken.
    """
    weighted = weights_BN[:, :, None] * shown_BNF
    inverse: Tensor = torch.linalg.pinv(weighted.transpose(1, 2) @ shown_BNF, hermitian=True)
    free = (inverse @ (weighted.transpose(1, 2) @ gains_BN[:, :, None]))[:, :, 0]
    ones = used_BF.to(free)
    direction = (inverse @ ones[:, :, None])[:, :, 0]
    # A single region is in no proper set: nothing was regressed, and it takes the whole difference.
    direction = torch.where((ones.sum(dim=1) == 1)[:, None], ones, direction)
    missing = totals_B - free.sum(dim=1)
    values: Tensor = free + direction * (missing / (ones * direction).sum(dim=1))[:, None]
    return values


def coalitions(regions: int, samples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Sets of regions to show and their weights: all proper ones where they fit, else pairs of a set and its rest.

    Args:
        regions: F.
        samples: N, how many sets at most.
        seed: Of the draw.

    Returns:
        {0, 1} [n, F] and [n].
    """
    if regions == 1:
        return np.zeros((0, 1)), np.zeros(0)
    if regions <= 30 and 2**regions - 2 <= samples:
        numbers = np.arange(1, 2**regions - 1)
        sets = (numbers[:, None] >> np.arange(regions)) & 1
        sizes = sets.sum(axis=1)
        kernel = [(regions - 1) / (math.comb(regions, s) * s * (regions - s)) for s in range(1, regions)]
        return sets.astype(np.float64), np.array(kernel)[sizes - 1]
    generator = np.random.default_rng(seed)
    sizes = np.arange(1, regions)
    chances = 1 / (sizes * (regions - sizes))
    drawn = generator.choice(sizes, size=max(1, samples // 2), p=chances / chances.sum())
    places = generator.random((len(drawn), regions)).argsort(axis=1).argsort(axis=1)
    half = (places < drawn[:, None]).astype(np.float64)
    return np.stack([half, 1 - half], axis=1).reshape(-1, regions), np.ones(2 * len(half))


def _regions(
    images_BCHW: Tensor,
    kind: Superpixels,
    segments: int,
    compactness: float,
    mean: Sequence[float],
    std: Sequence[float],
) -> tuple[Tensor, list[int]]:
    labels = find_superpixels(images_BCHW, kind, segments, compactness=compactness, mean=mean, std=std)
    return labels, [count + 1 for count in labels.flatten(1).amax(dim=1).tolist()]


def _scores(
    model: nn.Module,
    images_BCHW: Tensor,
    targets_B: Tensor,
    shown_BNF: Tensor,
    labels_BHW: Tensor,
    baseline: float | str,
    score: SurrogateScore,
) -> Tensor:
    """[B, N]: the target's score where only some regions are shown."""
    own = baseline == "region_mean"
    fill = region_means(images_BCHW, labels_BHW) if own else baseline_image(baseline, images_BCHW)

    def masks(rows: slice, copies: slice) -> Tensor:
        return spread(shown_BNF[rows, copies], labels_BHW[rows])

    return masked_target_scores(model, images_BCHW, targets_B, shown_BNF.shape[1], masks, fill, score)


def _paint(values_BF: Tensor, labels_BHW: Tensor, images_BCHW: Tensor) -> Tensor:
    return spread(values_BF[:, None].to(images_BCHW.dtype), labels_BHW)[:, 0]
