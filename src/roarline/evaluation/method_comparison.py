"""From the scores of all methods on one metric: pairwise tests, places with intervals and bars, reliability.

Shapes: K methods, R repeats, M rows, N images (clusters), B resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats

from roarline.evaluation import agreement
from roarline.evaluation.critical_difference import bars, friedman, nemenyi_distance, places_by_image
from roarline.evaluation.paired_tests import MeanTests, all_pairs, compare_draws, compare_pairs, holm
from roarline.evaluation.statistics import percentile_interval, resample_counts

SIGNED_RANK = "signed-rank"
MEAN = "mean difference"
RESAMPLED = "resampled scores"
_LEAST_SHARE = 0.5


@dataclass(frozen=True)
class Scored:
    """What all methods scored on one metric in one setting.

    Attributes:
        higher_is_better: None: methods are tested, not ranked.
        values_K: float64, each method's score; NaN where it has none.
        rows_KRM: float64, of which scores are the means; NaN where a row failed. None where scores are other functions.
        cluster_M: int64, the image of each row.
        draws_KB: float64, the scores of B resamples, the same for all methods; only read where the rows don't tell all:
            with several repeats, and without rows.
    """

    metric: str
    setting: str
    higher_is_better: bool | None
    methods: tuple[str, ...]
    values_K: np.ndarray
    rows_KRM: np.ndarray | None = None
    cluster_M: np.ndarray | None = None
    draws_KB: np.ndarray | None = None

    @property
    def test(self) -> str:
        """The test that tells methods apart: of images, where each has one value a method; else of means."""
        if self.rows_KRM is None:
            return RESAMPLED
        return SIGNED_RANK if self.rows_KRM.shape[1] == 1 else MEAN


@dataclass(frozen=True)
class PairTest:
    """Two methods on one metric. ``difference`` is first minus second; ``better`` is None where not told apart."""

    first: str
    second: str
    images: int | None
    difference: float
    low: float | None
    high: float | None
    p_mean: float | None
    p_mean_holm: float | None
    p_wilcoxon: float | None
    p_wilcoxon_holm: float | None
    better: str | None


@dataclass(frozen=True)
class MethodPlace:
    """Where a method stands: mean place over images (or place of its score) with an interval; numbers of its bars."""

    method: str
    place: float
    low: float | None
    high: float | None
    bars: tuple[int, ...]


@dataclass(frozen=True)
class Reliability:
    """How consistently images rank the methods.

    Attributes:
        test: Which test the bars rest on.
        images: Those on which all compared methods have values; None where scores are no means over images.
        left_out: Methods without values on half of the images.
        friedman: χ² and p; None for retrained networks of several repeats.
        nemenyi: Critical difference of mean places; as friedman.
        alpha, alpha_low, alpha_high: Krippendorff's, ordinal, of the images' rankings.
        alpha_interval: Krippendorff's, interval, of the values as they are.
        inter_method: Mean Spearman correlation of two methods' values over images.
    """

    test: str
    methods: int
    images: int | None
    left_out: tuple[str, ...] = ()
    friedman: tuple[float, float] | None = None
    nemenyi: float | None = None
    alpha: float | None = None
    alpha_low: float | None = None
    alpha_high: float | None = None
    alpha_interval: float | None = None
    inter_method: float | None = None


@dataclass(frozen=True)
class Comparison:
    """All that is said of one metric in one setting; places and reliability only where it has a direction."""

    metric: str
    setting: str
    pairs: list[PairTest]
    places: list[MethodPlace]
    reliability: Reliability | None


def compare_methods(scored: Scored, *, confidence: float, resamples: int, seed: int) -> Comparison:
    """Compare all methods that have a score on one metric."""
    scored = _with_scores(scored)
    tests = _tests(scored, confidence)
    pairs, apart_KK = _pair_rows(scored, tests, 1 - confidence)
    if scored.higher_is_better is None or len(scored.methods) < 2:
        return Comparison(scored.metric, scored.setting, pairs, [], None)
    if scored.rows_KRM is None or scored.cluster_M is None:
        reliability = Reliability(scored.test, len(scored.methods), None)
        return Comparison(
            scored.metric, scored.setting, pairs, _places_of_scores(scored, apart_KK, confidence), reliability
        )
    images_NK = images_by_method(scored.rows_KRM, scored.cluster_M)
    counted = (~np.isnan(images_NK)).sum(axis=0)
    kept = np.flatnonzero(counted >= _LEAST_SHARE * counted.max())
    common_NK = images_NK[:, kept]
    common_NK = common_NK[~np.isnan(common_NK).any(axis=1)]
    left_out = tuple(method for index, method in enumerate(scored.methods) if index not in kept)
    resampled = _resampled(common_NK, scored, resamples, seed)
    reliability = _reliability(scored, common_NK, left_out, resampled, confidence)
    if scored.test == MEAN:
        places = _places_of_scores(scored, apart_KK, confidence)
    else:
        apart = apart_KK[np.ix_(kept, kept)]
        omnibus = reliability.friedman
        if omnibus is not None and omnibus[1] >= 1 - confidence:
            apart = np.zeros_like(apart)  # one bar for all
        methods = [scored.methods[index] for index in kept]
        places = _places_over_images(scored, methods, common_NK, apart, resampled, confidence)
    return Comparison(scored.metric, scored.setting, pairs, places, reliability)


def images_by_method(rows_KRM: np.ndarray, cluster_M: np.ndarray) -> np.ndarray:
    """float64 [N, K]: each image's mean over repeats and over its rows that have values; NaN where none has."""
    rows_MK = rows_KRM.mean(axis=1).T
    present = ~np.isnan(rows_MK)
    clusters = int(cluster_M.max()) + 1 if len(cluster_M) else 0
    sums, counts = np.zeros((2, clusters, rows_MK.shape[1]))
    np.add.at(sums, cluster_M, np.where(present, rows_MK, 0.0))
    np.add.at(counts, cluster_M, present.astype(np.float64))
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _with_scores(scored: Scored) -> Scored:
    """Without the methods that have no score at all."""
    kept = np.flatnonzero(~np.isnan(scored.values_K))
    return Scored(
        scored.metric,
        scored.setting,
        scored.higher_is_better,
        tuple(scored.methods[index] for index in kept),
        scored.values_K[kept],
        None if scored.rows_KRM is None else scored.rows_KRM[kept],
        scored.cluster_M,
        None if scored.draws_KB is None else scored.draws_KB[kept],
    )


def _tests(scored: Scored, confidence: float) -> MeanTests:
    if scored.rows_KRM is not None and scored.cluster_M is not None:
        by_image = scored.test == SIGNED_RANK
        return compare_pairs(scored.rows_KRM, scored.cluster_M, confidence=confidence, by_image=by_image)
    draws = np.empty((len(scored.methods), 0)) if scored.draws_KB is None else scored.draws_KB
    return compare_draws(scored.values_K, draws, confidence=confidence)


def _pair_rows(scored: Scored, tests: MeanTests, level: float) -> tuple[list[PairTest], np.ndarray]:
    """Rows of the table, and bool [K, K]: which methods the deciding test tells apart."""
    first, second = all_pairs(len(scored.methods))
    mean_holm, wilcoxon_holm = holm(tests.p), holm(tests.p_wilcoxon)
    deciding = wilcoxon_holm if scored.test == SIGNED_RANK else mean_holm
    apart = np.nan_to_num(deciding, nan=1.0) < level
    apart_KK = np.zeros((len(scored.methods),) * 2, dtype=bool)
    apart_KK[first, second] = apart_KK[second, first] = apart
    sign = {True: 1, False: -1, None: 0}[scored.higher_is_better]
    columns = zip(
        first.tolist(), second.tolist(), *(
            values.tolist() for values in (
                tests.images, tests.difference, tests.low, tests.high, tests.p, mean_holm, tests.p_wilcoxon,
                wilcoxon_holm, apart, sign * tests.direction,
            )
        ), strict=True,
    )  # fmt: skip
    rows = []
    for one, two, images, difference, low, high, p, p_holm, rank_p, rank_holm, differ, side in columns:
        better = scored.methods[one if side > 0 else two] if differ and side in (1, -1) else None
        count = None if images != images else int(images)
        if difference == difference:
            rows.append(
                PairTest(
                    scored.methods[one],
                    scored.methods[two],
                    count,
                    difference,
                    _known(low),
                    _known(high),
                    _known(p),
                    _known(p_holm),
                    _known(rank_p),
                    _known(rank_holm),
                    better,
                )
            )
    return rows, apart_KK


@dataclass(frozen=True)
class _Resampled:
    """Of B resamples of the images: float64 [B, K] mean places, and a tensor [B] of alphas."""

    places_BK: torch.Tensor
    alphas_B: torch.Tensor


def _resampled(common_NK: np.ndarray, scored: Scored, resamples: int, seed: int) -> _Resampled | None:
    """None for fewer than two images or methods."""
    if min(common_NK.shape) < 2:
        return None
    places = places_by_image(common_NK, higher_is_better=bool(scored.higher_is_better))
    means, alphas = [], []
    for counts in (batch.numpy() for batch in resample_counts(len(places), resamples, seed)):
        means.append(counts @ places)
        alphas.append(agreement.krippendorff_alpha(places, "ordinal", counts))
    return _Resampled(torch.from_numpy(np.concatenate(means) / len(places)), torch.from_numpy(np.concatenate(alphas)))


def _places_over_images(
    scored: Scored,
    methods: Sequence[str],
    common_NK: np.ndarray,
    apart_KK: np.ndarray,
    resampled: _Resampled | None,
    confidence: float,
) -> list[MethodPlace]:
    """Mean places over the images that all these methods share."""
    if len(methods) < 2 or not len(common_NK):
        return []
    places = places_by_image(common_NK, higher_is_better=bool(scored.higher_is_better))
    intervals: Sequence[tuple[float, float] | None] = [None] * len(methods)
    if resampled is not None:
        intervals = [percentile_interval(draws, confidence) for draws in resampled.places_BK.T]
    return _in_order(methods, places.mean(axis=0), intervals, apart_KK)


def _places_of_scores(scored: Scored, apart_KK: np.ndarray, confidence: float) -> list[MethodPlace]:
    """Places of the scores, with intervals of the places that resampled scores take."""
    goodness = scored.values_K if scored.higher_is_better else -scored.values_K
    places = stats.rankdata(-goodness)
    intervals: Sequence[tuple[float, float] | None] = [None] * len(places)
    if scored.draws_KB is not None and scored.draws_KB.shape[1]:
        draws = scored.draws_KB if scored.higher_is_better else -scored.draws_KB
        draws = draws[:, ~np.isnan(draws).any(axis=0)]
        drawn = torch.from_numpy(np.asarray(stats.rankdata(-draws, axis=0), dtype=np.float64))
        intervals = [percentile_interval(row, confidence) for row in drawn]
    return _in_order(list(scored.methods), places, intervals, apart_KK)


def _in_order(
    methods: Sequence[str],
    places: np.ndarray,
    intervals: Sequence[tuple[float, float] | None],
    apart_KK: np.ndarray,
) -> list[MethodPlace]:
    order = np.argsort(places, kind="stable").tolist()
    joined = bars(order, apart_KK)
    found = []
    for index in order:
        numbers = tuple(number for number, bar in enumerate(joined, start=1) if index in bar)
        low, high = intervals[index] or (None, None)
        found.append(MethodPlace(methods[index], float(places[index]), low, high, numbers))
    return found


def _reliability(
    scored: Scored,
    common_NK: np.ndarray,
    left_out: tuple[str, ...],
    resampled: _Resampled | None,
    confidence: float,
) -> Reliability:
    images, methods = common_NK.shape
    if resampled is None:
        return Reliability(scored.test, methods, images, left_out)
    places = places_by_image(common_NK, higher_is_better=bool(scored.higher_is_better))
    alpha = _known(float(agreement.krippendorff_alpha(places, "ordinal")[0]))
    low, high = (percentile_interval(resampled.alphas_B, confidence) if alpha is not None else None) or (None, None)
    correlations = agreement.spearman(common_NK)[np.triu_indices(methods, k=1)]
    known = correlations[~np.isnan(correlations)]
    by_image = scored.test == SIGNED_RANK  # tests over images alone would miss what other repeats change
    return Reliability(
        scored.test,
        methods,
        images,
        left_out,
        friedman(places) if by_image else None,
        nemenyi_distance(methods, images, confidence) if by_image else None,
        alpha,
        low,
        high,
        _known(float(agreement.krippendorff_alpha(common_NK, "interval")[0])),
        float(known.mean()) if len(known) else None,
    )


def _known(value: float) -> float | None:
    return None if value != value else value
