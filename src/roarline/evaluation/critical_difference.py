"""Which methods can't be told apart on a metric: ranks over images, Friedman's test, groups joined by a bar.

Shapes: N images, K methods.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from scipy import stats


def places_by_image(values_NK: np.ndarray, *, higher_is_better: bool) -> np.ndarray:
    """The place of each method on each image, 1 the best; equal values share the mean of their places.

    Args:
        values_NK: Without NaN.

    Returns:
        float64 [N, K]; every row sums to K (K + 1) / 2.
    """
    return np.asarray(stats.rankdata(-values_NK if higher_is_better else values_NK, axis=1), dtype=np.float64)


def friedman(places_NK: np.ndarray) -> tuple[float, float] | None:
    """Friedman's χ² with its correction for ties, and its p-value.

    Returns:
        (χ², p), or None for fewer than three methods or two images. Where every image finds all methods equal, (0, 1).

    Source: Friedman 1937; scipy.stats.friedmanchisquare.
    """
    images, methods = places_NK.shape
    if methods < 3 or images < 2:
        return None
    if (places_NK == places_NK[:, :1]).all():
        return 0.0, 1.0
    test = stats.friedmanchisquare(*places_NK.T)
    return float(test.statistic), float(test.pvalue)


@cache
def nemenyi_quantile(methods: int, confidence: float) -> float:
    """The studentized range's quantile for infinitely many degrees of freedom, divided by √2: Demšar's q."""
    return float(stats.studentized_range.ppf(confidence, methods, np.inf)) / math.sqrt(2)


def nemenyi_distance(methods: int, images: int, confidence: float) -> float | None:
    """The critical difference of mean places: methods closer than this aren't told apart by Nemenyi's test.

    Returns:
        None for fewer than two methods or images.

    Source: Nemenyi 1963; Demšar 2006, JMLR 7, section 3.2.2.
    """
    if methods < 2 or images < 2:
        return None
    return nemenyi_quantile(methods, confidence) * math.sqrt(methods * (methods + 1) / (6 * images))


def bars(order: Sequence[int], told_apart_KK: np.ndarray) -> list[tuple[int, ...]]:
    """The bars of a critical-difference diagram: longest runs of neighbours of which no two are told apart.

    Args:
        order: Methods from best to worst.
        told_apart_KK: bool, symmetric: True where a test tells two methods apart.

    Returns:
        Runs of two methods and more, in order; none lies within another.
    """
    found: list[tuple[int, ...]] = []
    reached = 0
    for start in range(len(order)):
        end = start + 1
        while end < len(order) and not told_apart_KK[order[end], list(order[start:end])].any():
            end += 1
        if end - start > 1 and end > reached:
            found.append(tuple(order[start:end]))
            reached = end
    return found
