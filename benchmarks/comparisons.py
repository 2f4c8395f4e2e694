"""All comparisons of the summary at the size of a large study, against scipy's two tests called pair by pair.

Here "bare" is no network: it is one pair of methods on one metric, tested by ``scipy.stats.wilcoxon`` and
``ttest_rel``. The hot path does that for every pair, and on top of it intervals, places, bars, alpha with its interval,
and both kinds of agreement between metrics.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
import torch
from scipy import stats

from benchmarks.harness import Measurement, Options, alternate
from roarline.evaluation.summary import Column
from roarline.stages.aggregate_comparisons import Family, comparison_tables

GOAL = 1.0
_METHODS, _METRICS, _IMAGES, _RESAMPLES = 50, 6, 1000, 2000


def measure(options: Options) -> Iterator[Measurement]:
    """A tenth of 60 metrics: the work grows with their number, but for the agreement of metrics, which is little."""
    methods, metrics, images = (6, 2, 60) if options.quick else (_METHODS, _METRICS, _IMAGES)
    values_TKN = random_scores(metrics, methods, images)
    pairs = list(combinations(range(methods), 2))

    def ours() -> None:
        compare(values_TKN, _RESAMPLES)

    def bare(passes: int) -> None:
        for index in range(passes):
            metric, pair = divmod(index, len(pairs))
            one, two = (values_TKN[metric, method] for method in pairs[pair])
            stats.wilcoxon(one, two, method="asymptotic")
            stats.ttest_rel(one, two)

    count = metrics * len(pairs)
    setting = f"{methods} methods, {metrics} metrics, {_RESAMPLES} resamples"
    measurement = Measurement("comparisons", "pairs", setting, images, count, "pair of tests", "scipy", GOAL)
    yield alternate(measurement, ours, bare, options)


def random_scores(metrics: int, methods: int, images: int) -> np.ndarray:
    """float64 [T, K, N]: methods differ a little, images a lot."""
    generator = np.random.default_rng(0)
    skill = generator.normal(0, 0.2, (1, methods, 1))
    return skill + generator.normal(size=(metrics, 1, images)) + generator.normal(size=(metrics, methods, images))


def compare(values_TKN: np.ndarray, resamples: int) -> dict[str, list[object]]:
    """The tables that aggregate-scores writes of them."""
    metrics, methods, images = values_TKN.shape
    names = [f"method{index}" for index in range(methods)]
    columns = [
        Column(names[method], f"metric{metric}", "", torch.from_numpy(values_TKN[metric, method][None]))
        for metric in range(metrics)
        for method in range(methods)
    ]
    family = Family(columns, torch.arange(images), [f"{image:06d}" for image in range(images)])
    return comparison_tables(  # type: ignore[return-value]
        [family],
        [],
        methods=names,
        directions={f"metric{metric}": True for metric in range(metrics)},
        points=("removed_fraction=",),
        confidence=0.95,
        resamples=resamples,
        seed=0,
    )
