"""How stable a ranking of methods is when something about the test is changed: a fill, a step, a seed, a repeat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from roarline.evaluation.agreement import kendall_w, tau_b

BASE = "base"
EVERY = "all"


@dataclass(frozen=True)
class Point:
    """One way to run the test: what was changed, to what, and the score that each method then has."""

    factor: str
    label: str
    values: Mapping[str, float]


@dataclass(frozen=True)
class PlacedPoint:
    """A method's place at one point; equal values share the mean of their places."""

    factor: str
    label: str
    method: str
    value: float
    place: float


@dataclass(frozen=True)
class Stability:
    """How far the rankings of some points agree with that of the base, and with one another.

    Attributes:
        factor: What the points change, or ``all``.
        points: How many there are, without the base.
        methods: How many methods have a score at the base and at every point; only these are ranked.
        kendall_w: Concordance of the base and the points; None where it is undefined.
        tau_mean, tau_min: Kendall's tau-b of the points against the base.
    """

    factor: str
    points: int
    methods: int
    kendall_w: float | None
    tau_mean: float | None
    tau_min: float | None


def stability(
    base: Mapping[str, float], points: Sequence[Point], *, higher_is_better: bool
) -> tuple[list[PlacedPoint], list[Stability]]:
    """Places of the methods at the base and at every point, and how far the rankings agree.

    Args:
        base: Method to its score as the leaderboard has it.
        points: Ways to run the test otherwise. One at which all methods are equal, as where nothing is removed, ranks
            nothing and is left out.

    Returns:
        (a row for each point, the base first, and method; a row for each factor, and for all where there are several).
        Both empty where fewer than two methods have a score everywhere.
    """
    methods = [method for method in base if all(method in point.values for point in points)]
    points = [point for point in points if len({point.values[method] for method in methods}) > 1]
    if len(methods) < 2 or not points:
        return [], []
    every = [Point(BASE, "", base), *points]
    values_TK = np.array([[point.values[method] for method in methods] for point in every])
    goodness_TK = values_TK if higher_is_better else -values_TK
    places_TK = np.asarray(stats.rankdata(-goodness_TK, axis=1), dtype=np.float64)
    placed = [
        PlacedPoint(point.factor, point.label, method, float(values_TK[row, column]), float(places_TK[row, column]))
        for row, point in enumerate(every)
        for column, method in enumerate(methods)
    ]
    tau_T = tau_b(goodness_TK)[0][0]
    factors = list(dict.fromkeys(point.factor for point in points))
    rows = {factor: [row for row, point in enumerate(every) if point.factor == factor] for factor in factors}
    if len(factors) > 1:
        rows[EVERY] = list(range(1, len(every)))
    return placed, [_agreed(factor, places_TK[[0, *chosen]], tau_T[chosen]) for factor, chosen in rows.items()]


def _agreed(factor: str, places_TK: np.ndarray, tau_T: np.ndarray) -> Stability:
    known = tau_T[~np.isnan(tau_T)]
    mean, least = (float(known.mean()), float(known.min())) if len(known) else (None, None)
    return Stability(factor, len(tau_T), places_TK.shape[1], kendall_w(places_TK), mean, least)
