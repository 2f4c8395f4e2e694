"""What aggregate-scores says of methods against one another and of metrics against one another.

Compared are the settings that sum a metric up: single points of a curve only where a metric has no other setting.
Shapes: K methods, T metrics (each in a setting), N images, R repeats, M rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from roarline.artifacts.comparison_tables import Row
from roarline.evaluation.agreement import mean_known, spearman, tau_b
from roarline.evaluation.feature_summary import FeatureScore
from roarline.evaluation.method_comparison import Comparison, Scored, compare_methods, images_by_method
from roarline.evaluation.rank_stability import Point, stability
from roarline.evaluation.statistics import add_repeat_draws, bootstrap_means, mean_of
from roarline.evaluation.summary import Column
from roarline.seeds import derive_seed

_REPEAT = "repeat"
Name = tuple[str, str]
"""A metric and a setting."""


@dataclass(frozen=True)
class Family:
    """Columns over the same rows.

    Attributes:
        image_ids: [N], of which ``images`` (int64 [M]) says each row's.
        features: Scores that are functions of means, of the same rows.
    """

    columns: Sequence[Column]
    images: Tensor
    image_ids: Sequence[str]
    features: Sequence[FeatureScore] = ()

    def overall(self, points: tuple[str, ...]) -> list[Name]:
        """The metrics and settings that are compared; ``points`` are the prefixes of settings that are one point."""
        names = [(column.metric, column.setting) for column in self.columns if column.ranked]
        names += [(one.metric, one.setting) for one in self.features]
        names = list(dict.fromkeys(names))
        found = []
        for metric in dict.fromkeys(metric for metric, _ in names):
            settings = [setting for name, setting in names if name == metric]
            whole = [setting for setting in settings if not setting.startswith(points)]
            found += [(metric, setting) for setting in whole or (settings if len(settings) == 1 else [])]
        return found


def comparison_tables(
    families: Sequence[Family],
    sweep: Sequence[tuple[str, str, Mapping[Name, Mapping[str, float]]]],
    *,
    methods: Sequence[str],
    directions: Mapping[str, bool | None],
    points: tuple[str, ...],
    confidence: float,
    resamples: int,
    seed: int,
    areas: Mapping[Name, Mapping[str, float]] | None = None,
) -> dict[str, list[Row]]:
    """The rows of ``COMPARISON_TABLES``.

    Args:
        families: All scores of the experiment.
        sweep: Factor, what it was changed to, and the scores then: of a metric and setting, method to value.
        methods: In the order of the configuration.
        directions: Metric to whether higher is better; None where methods aren't ranked by it.
        points: Prefixes of settings that stand for one point of a curve.
        areas: Scores that are known as such only, of a metric and setting, method to value: their orders of the methods
            are compared with others.
    """
    scored = {
        (one.metric, one.setting): (one, family)
        for family in families
        for one in _scored(family, methods, directions, points, resamples, seed)
    }
    compared = [
        compare_methods(one, confidence=confidence, resamples=resamples, seed=derive_seed(seed, *name))
        for name, (one, _) in scored.items()
    ]
    tests = {name: one.test for name, (one, _) in scored.items()}
    ranked = {name: pair for name, pair in scored.items() if pair[0].higher_is_better is not None}
    stable = list(_stability(ranked, families, sweep, points))
    return {
        **_rows_of_comparisons(compared, tests),
        "metric_agreement": list(_agreement(ranked | _bare(areas or {}, directions), methods)),
        "rank_stability": [row for rows, _ in stable for row in rows],
        "rank_stability_summary": [row for _, rows in stable for row in rows],
    }


def means(columns: Sequence[Column]) -> dict[Name, dict[str, float]]:
    """Of a metric and setting, method to its score; methods without one are left out."""
    found: dict[Name, dict[str, float]] = {}
    if columns:
        scores = mean_of(torch.stack([column.values.mean(dim=0) for column in columns], dim=1)).tolist()
        for column, score in zip(columns, scores, strict=True):
            if column.ranked and score == score:
                found.setdefault((column.metric, column.setting), {})[column.method] = score
    return found


def _scored(
    family: Family,
    methods: Sequence[str],
    directions: Mapping[str, bool | None],
    points: tuple[str, ...],
    resamples: int,
    seed: int,
) -> Iterator[Scored]:
    order = {method: place for place, method in enumerate(methods)}
    for metric, setting in family.overall(points):
        found = [c for c in family.columns if (c.metric, c.setting) == (metric, setting) and c.ranked]
        found.sort(key=lambda column: order[column.method])
        if found:
            yield from _of_rows(found, family.images, directions[metric], resamples, seed)
            continue
        scores = [one for one in family.features if (one.metric, one.setting) == (metric, setting)]
        scores.sort(key=lambda one: order[one.method])
        drawn = [one.draws.numpy() for one in scores if one.draws is not None]
        yield Scored(
            metric,
            setting,
            directions[metric],
            tuple(one.method for one in scores),
            np.array([np.nan if one.value is None else one.value for one in scores]),
            draws_KB=np.stack(drawn) if len(drawn) == len(scores) else None,
        )


def _bare(
    areas: Mapping[Name, Mapping[str, float]], directions: Mapping[str, bool | None]
) -> dict[Name, tuple[Scored, Family]]:
    """Scores without rows or resamples, of metrics with a direction."""
    nothing = Family([], torch.empty(0, dtype=torch.int64), [])
    return {
        (metric, setting): (
            Scored(metric, setting, directions[metric], tuple(values), np.array(list(values.values()))), nothing
        )
        for (metric, setting), values in areas.items()
        if directions[metric] is not None and values
    }  # fmt: skip


def _of_rows(
    columns: Sequence[Column], images: Tensor, higher_is_better: bool | None, resamples: int, seed: int
) -> Iterator[Scored]:
    repeats = [r for r in columns[0].repeats if all(r in column.repeats for column in columns)]
    if not repeats or not len(images):
        return
    rows = [column.values[[column.repeats.index(repeat) for repeat in repeats]] for column in columns]
    rows_MK = torch.stack([values.mean(dim=0) for values in rows], dim=1)
    draws = None
    if len(repeats) > 1 and int(images.max()):
        drawn = bootstrap_means(rows_MK, images, resamples, derive_seed(seed, "images"))
        first = columns[0]
        draws = np.stack(
            [
                add_repeat_draws(
                    drawn[:, place],
                    mean_of(values.T),
                    derive_seed(seed, _REPEAT, first.metric, first.setting, column.method),
                ).numpy()
                for place, (column, values) in enumerate(zip(columns, rows, strict=True))
            ]
        )
    yield Scored(
        columns[0].metric,
        columns[0].setting,
        higher_is_better,
        tuple(column.method for column in columns),
        mean_of(rows_MK).numpy(),
        torch.stack(rows).numpy(),
        images.numpy(),
        draws,
    )


def _rows_of_comparisons(compared: Sequence[Comparison], tests: Mapping[Name, str]) -> dict[str, list[Row]]:
    pairs: list[Row] = []
    places: list[Row] = []
    reliability: list[Row] = []
    for one in compared:
        name = {"metric": one.metric, "setting": one.setting}
        test = tests[one.metric, one.setting]
        pairs += [
            {
                **name, "first": pair.first, "second": pair.second, "images": pair.images,
                "difference": pair.difference, "ci_low": pair.low, "ci_high": pair.high, "p_mean": pair.p_mean,
                "p_mean_holm": pair.p_mean_holm,
                "p_wilcoxon": pair.p_wilcoxon, "p_wilcoxon_holm": pair.p_wilcoxon_holm, "test": test,
                "better": pair.better,
            }
            for pair in one.pairs
        ]  # fmt: skip
        places += [
            {
                **name, "method": row.method, "place": row.place, "place_low": row.low, "place_high": row.high,
                "bars": ",".join(map(str, row.bars)),
            }
            for row in one.places
        ]  # fmt: skip
        if one.reliability is not None:
            known = one.reliability
            chi2, p = known.friedman or (None, None)
            reliability.append(
                {
                    **name, "test": test, "methods": known.methods, "images": known.images,
                    "left_out": ",".join(known.left_out), "friedman_chi2": chi2, "friedman_p": p,
                    "nemenyi_distance": known.nemenyi, "alpha": known.alpha, "alpha_low": known.alpha_low,
                    "alpha_high": known.alpha_high, "alpha_interval": known.alpha_interval,
                    "inter_method": known.inter_method,
                }
            )  # fmt: skip
    return {"pairwise_tests": pairs, "critical_difference": places, "metric_reliability": reliability}


def _agreement(ranked: Mapping[Name, tuple[Scored, Family]], methods: Sequence[str]) -> Iterator[Row]:
    """A row for every two metrics: of their orders of the methods, and of what they say of images."""
    if len(ranked) < 2:
        return
    values_TK = np.full((len(ranked), len(methods)), np.nan)
    for row, (scored, _) in enumerate(ranked.values()):
        goodness = scored.values_K if scored.higher_is_better else -scored.values_K
        values_TK[row, [methods.index(method) for method in scored.methods]] = goodness
    tau, shared = tau_b(values_TK)
    correlation, images = _internal_consistency(ranked, methods)
    names = list(ranked)
    for one, two in combinations(range(len(names)), 2):
        yield {
            "first_metric": names[one][0], "first_setting": names[one][1],
            "second_metric": names[two][0], "second_setting": names[two][1],
            "methods": int(shared[one, two]), "kendall_tau_b": _known(tau[one, two]),
            "images": int(images[one, two]), "spearman_images": _known(correlation[one, two]),
        }  # fmt: skip


def _internal_consistency(
    ranked: Mapping[Name, tuple[Scored, Family]], methods: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """([T, T] mean over methods of the correlation of two metrics over images, [T, T] how many images they share)."""
    ids = sorted({name for _, family in ranked.values() for name in family.image_ids})
    rows = {name: row for row, name in enumerate(ids)}
    values_KNT = np.full((len(methods), len(ids), len(ranked)), np.nan)
    for column, (one, family) in enumerate(ranked.values()):
        if one.rows_KRM is None or one.cluster_M is None:
            continue
        goodness = images_by_method(one.rows_KRM, one.cluster_M) * (1 if one.higher_is_better else -1)
        places = [rows[name] for name in family.image_ids]
        for index, method in enumerate(one.methods):
            values_KNT[methods.index(method), places, column] = goodness[:, index]
    seen_NT = (~np.isnan(values_KNT)).any(axis=0).astype(np.int64)
    return mean_known([spearman(values_NT) for values_NT in values_KNT]), seen_NT.T @ seen_NT


def _stability(
    ranked: Mapping[Name, tuple[Scored, Family]],
    families: Sequence[Family],
    sweep: Sequence[tuple[str, str, Mapping[Name, Mapping[str, float]]]],
    points: tuple[str, ...],
) -> Iterator[tuple[list[Row], list[Row]]]:
    """For each metric: places at every point, and how far they agree; points are swept, or repeats, or of a curve."""
    by_point = {id(family): means(family.columns) for family in families}
    for (metric, setting), (one, family) in ranked.items():
        base = {m: float(v) for m, v in zip(one.methods, one.values_K, strict=True) if v == v}
        found = [
            Point(factor, label, values[metric, setting])
            for factor, label, values in sweep
            if (metric, setting) in values
        ]
        found += _repeat_points(one)
        found += [
            Point(other.partition("=")[0], other.partition("=")[2], values)
            for (name, other), values in by_point[id(family)].items()
            if name == metric and other != setting and other.startswith(points) and _kind(other) == _kind(setting)
        ]
        placed, agreed = stability(base, found, higher_is_better=bool(one.higher_is_better))
        name = {"metric": metric, "setting": setting}
        yield (
            [
                {**name, "factor": row.factor, "point": row.label, "method": row.method, "value": row.value,
                 "place": row.place}
                for row in placed
            ],
            [
                {**name, "factor": row.factor, "points": row.points, "methods": row.methods,
                 "kendall_w": row.kendall_w, "tau_mean": row.tau_mean, "tau_min": row.tau_min}
                for row in agreed
            ],
        )  # fmt: skip


def _kind(setting: str) -> str:
    """What stands behind the comma: points and sums of a similarity are compared with those of the same."""
    return setting.partition(", ")[2]


def _repeat_points(one: Scored) -> Iterator[Point]:
    """A point for each repeat, where there are several."""
    if one.rows_KRM is None or one.rows_KRM.shape[1] < 2:
        return
    for repeat in range(one.rows_KRM.shape[1]):
        scores = mean_of(torch.from_numpy(one.rows_KRM[:, repeat].T)).tolist()
        yield Point(
            _REPEAT, str(repeat), {m: score for m, score in zip(one.methods, scores, strict=True) if score == score}
        )


def _known(value: Any) -> float | None:
    return None if value != value else float(value)
