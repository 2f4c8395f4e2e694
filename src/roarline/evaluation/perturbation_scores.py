"""The metrics of evaluate-perturbation: which curves each needs, and a number a row from them.

Shapes: M rows, each an (image, target) pair; S points of a curve.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from roarline.evaluation.curves import (
    area_over_curve,
    area_under_curve,
    mean_drop,
    mean_height,
    relative_deviation,
    road_combined,
    symmetric_relevance_gain,
)
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
    "road_morf": ("road_morf",),
    "road_lerf": ("road_lerf",),
    "road_combined": ("road_lerf", "road_morf"),
    "irof": ("irof",),
    "region_perturbation": ("region_perturbation",),
    "aopc": ("morf",),
}
NEED_UNTOUCHED = ("morf_deviation", "lerf_deviation", "irof", "region_perturbation", "aopc")
SUPERPIXELS, PATCHES = "superpixels", "patches_"
NOISY_LINEAR = "noisy_linear"
_OF_PATCHES = "region_perturbation_"

_NOT_FINITE = "the classifier's output is NaN or infinite"
_NO_PROBABILITY = "the target's probability is 0 before anything is removed"
_NOT_ABOVE_0 = "the target's score is not above 0 before anything is removed"


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


@dataclass(frozen=True)
class CurveSettings:
    """How curves are made; names of fills, see ``fills`` and ``imputation``.

    Attributes:
        fractions: Of morf and lerf, rising.
        steps: Of insertion and deletion, from nothing to everything; each has steps + 1 points.
        road_fractions: Of road_morf and road_lerf, rising.
        irof_steps: From no superpixel to all.
        patch_px: Sides of patches; a curve for each.
        patch_fractions: Of the patches, rising.
        compat: ``original`` changes morf where a fraction is less than one pixel, see ``Curve``.
    """

    fractions: Sequence[float]
    steps: int
    fill: str
    insertion_fill: str
    deletion_fill: str
    road_fractions: Sequence[float] = ()
    irof_steps: int = 1
    irof_fill: str = "mean"
    patch_px: Sequence[int] = ()
    patch_fractions: Sequence[float] = ()
    patch_fill: str = "mean"
    compat: Compat = "corrected"


def curves_for(metrics: Sequence[str], settings: CurveSettings) -> dict[str, Curve]:
    """The curves that some metrics are computed from.

    Args:
        metrics: Keys of ``CURVES_OF``.
        settings: How.

    Returns:
        Name to curve: morf, lerf, insertion, deletion, road_morf, road_lerf, irof, and region_perturbation_<side> for
        each side of a patch, as far as they are needed, in this order.
    """
    road, given = tuple(settings.road_fractions), tuple(settings.fractions)
    every = {
        "morf": Curve(given, "most_relevant_first", settings.fill, compat=settings.compat),
        "lerf": Curve(given, "least_relevant_first", settings.fill, compat=settings.compat),
        "insertion": Curve(_steps(settings.steps), "most_relevant_first", settings.insertion_fill, inserts=True),
        "deletion": Curve(_steps(settings.steps), "most_relevant_first", settings.deletion_fill),
        "road_morf": Curve(road, "most_relevant_first", NOISY_LINEAR),
        "road_lerf": Curve(road, "least_relevant_first", NOISY_LINEAR),
        "irof": Curve(_steps(settings.irof_steps), "most_relevant_first", settings.irof_fill, unit=SUPERPIXELS),
    }
    needed = {name for metric in metrics for name in CURVES_OF[metric]}
    curves = {name: curve for name, curve in every.items() if name in needed}
    if "region_perturbation" in needed:
        fractions = tuple(settings.patch_fractions)
        for side in settings.patch_px:
            unit = f"{PATCHES}{side}"
            curves[f"{_OF_PATCHES}{side}"] = Curve(fractions, "most_relevant_first", settings.patch_fill, unit=unit)
    return curves


@dataclass(frozen=True)
class Untouched:
    """What the classifier says of the target before anything is removed.

    Attributes:
        scores: [M], the probability or the logit, as the curves'.
        probabilities: [M].
    """

    scores: Tensor
    probabilities: Tensor


def metric_scores(
    metric: str, curves: Mapping[str, CurveScores], before: Untouched | None = None
) -> list[MetricScores]:
    """One metric's numbers, a list entry a setting.

    Args:
        metric: A key of ``CURVES_OF``.
        curves: At least the curves that the metric needs.
        before: Read by ``NEED_UNTOUCHED`` only.
    """
    if metric in NEED_UNTOUCHED:
        if before is None:
            raise ValueError(f"{metric} needs the scores of untouched images")
        return _relative_scores(metric, curves, before)
    used = [curves[name] for name in CURVES_OF[metric]]
    if metric == "srg":
        lerf, morf = used
        return [_scored("", symmetric_relevance_gain(morf.fractions, lerf.scores, morf.scores))]
    if metric == "road_combined":
        lerf, morf = used
        return [_scored("", road_combined(lerf.scores, morf.scores))]
    if metric in ("road_morf", "road_lerf"):
        return [_scored("", mean_height(used[0].scores))]
    return [_scored("", area_under_curve(used[0].fractions, used[0].scores))]


def _relative_scores(metric: str, curves: Mapping[str, CurveScores], before: Untouched) -> list[MetricScores]:
    if metric == "region_perturbation":
        return [
            _scored(
                f"patch_px={name.removeprefix(_OF_PATCHES)}", mean_drop(found.fractions, found.scores, before.scores)
            )
            for name, found in curves.items()
            if name.startswith(_OF_PATCHES)
        ]
    used = curves[CURVES_OF[metric][0]]
    if metric == "aopc":
        return [_scored("", mean_drop(used.fractions, used.scores, before.scores))]
    if metric == "irof":
        values = area_over_curve(used.fractions, used.scores, before.scores)
        return [_scored("", values, before.scores <= 0, _NOT_ABOVE_0)]
    deviations = relative_deviation(before.probabilities[:, None], used.probabilities)
    return [
        _scored(f"removed_fraction={fraction:.12g}", values, before.probabilities == 0, _NO_PROBABILITY)
        for fraction, values in zip(used.fractions.tolist(), deviations.T, strict=True)
    ]


def _steps(steps: int) -> tuple[float, ...]:
    return tuple(step / steps for step in range(steps + 1))


def _scored(setting: str, values: Tensor, undefined: Tensor | None = None, why: str = "") -> MetricScores:
    failed = ~torch.isfinite(values)
    statuses = [_NOT_FINITE if bad else "ok" for bad in failed.tolist()]
    for row in torch.nonzero(undefined).flatten().tolist() if undefined is not None else []:
        statuses[row] = why
        failed[row] = True
    return MetricScores(setting, values.masked_fill(failed, torch.nan), statuses)
