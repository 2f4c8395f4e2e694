"""The metrics of evaluate-perturbation: which curves each needs, and a number a row from them.

Shapes: M rows, each an (image, target) pair; S points of a curve.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from roarline.evaluation.curves import area_under_curve, relative_deviation, symmetric_relevance_gain
from roarline.evaluation.perturb import Curve
from roarline.imaging.removal import Compat

CURVES_OF: dict[str, tuple[str, ...]] = {
    "morf": ("morf",),
    "lerf": ("lerf",),
    "srg": ("lerf", "morf"),
    "insertion": ("insertion",),
    "deletion": ("deletion",),
    "morf_deviation": ("morf",),
    "lerf_deviation": ("lerf",),
}

_NOT_FINITE = "the classifier's output is NaN or infinite"
_NO_PROBABILITY = "the target's probability is 0 before anything is removed"


@dataclass(frozen=True)
class CurveScores:
    """One curve of every row.

    Attributes:
        fractions: float64 [S].
        scores: [M, S], the probability or the logit, as the experiment asks.
        probabilities: [M, S].
    """

    fractions: Tensor
    scores: Tensor
    probabilities: Tensor


@dataclass(frozen=True)
class MetricScores:
    """One metric in one setting: [M] values, NaN where a row failed, and [M] statuses, ``ok`` or why it failed."""

    setting: str
    values: Tensor
    statuses: list[str]


def curves_for(
    metrics: Sequence[str],
    *,
    fractions: Sequence[float],
    steps: int,
    fill: str,
    insertion_fill: str,
    deletion_fill: str,
    compat: Compat = "corrected",
) -> dict[str, Curve]:
    """The curves that some metrics are computed from.

    Args:
        metrics: Keys of ``CURVES_OF``.
        fractions: Of morf and lerf, rising.
        steps: Of insertion and deletion, from nothing to everything; each has steps + 1 points.
        fill, insertion_fill, deletion_fill: Names of fills.
        compat: ``original`` changes morf where a fraction is less than one pixel, see ``Curve``.

    Returns:
        A subset of morf, lerf, insertion, deletion, in this order.
    """
    fine = tuple(step / steps for step in range(steps + 1))
    every = {
        "morf": Curve(tuple(fractions), "most_relevant_first", fill, compat=compat),
        "lerf": Curve(tuple(fractions), "least_relevant_first", fill, compat=compat),
        "insertion": Curve(fine, "most_relevant_first", insertion_fill, inserts=True),
        "deletion": Curve(fine, "most_relevant_first", deletion_fill),
    }
    needed = {name for metric in metrics for name in CURVES_OF[metric]}
    return {name: curve for name, curve in every.items() if name in needed}


def metric_scores(metric: str, curves: Mapping[str, CurveScores], before: Tensor) -> list[MetricScores]:
    """One metric's numbers, a list entry a setting.

    Args:
        metric: A key of ``CURVES_OF``.
        curves: At least the curves that the metric needs.
        before: [M], the target's probability for the untouched image; read by the deviations only.
    """
    used = [curves[name] for name in CURVES_OF[metric]]
    if metric.endswith("_deviation"):
        deviations = relative_deviation(before[:, None], used[0].probabilities)
        return [
            _scored(f"removed_fraction={fraction:.12g}", values, before)
            for fraction, values in zip(used[0].fractions.tolist(), deviations.T, strict=True)
        ]
    if metric == "srg":
        lerf, morf = used
        return [_scored("", symmetric_relevance_gain(morf.fractions, lerf.scores, morf.scores))]
    return [_scored("", area_under_curve(used[0].fractions, used[0].scores))]


def _scored(setting: str, values: Tensor, before: Tensor | None = None) -> MetricScores:
    failed = ~torch.isfinite(values)
    statuses = [_NOT_FINITE if bad else "ok" for bad in failed.tolist()]
    for row in torch.nonzero(before == 0).flatten().tolist() if before is not None else []:
        statuses[row] = _NO_PROBABILITY
        failed[row] = True
    return MetricScores(setting, values.masked_fill(failed, torch.nan), statuses)
