"""The table of metrics: direction, unit, stage, source. Imports no torch.

To add a metric: write one function in ``roarline/evaluation/`` and one line in ``METRICS``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from roarline.config.component import MetricComponent, NoParams
from roarline.config.localization_metrics import LOCALIZATION_METRICS
from roarline.config.perturbation_metrics import PERTURBATION_METRICS
from roarline.config.probe_metrics import PROBE_METRICS
from roarline.config.retraining_metrics import RETRAINING_METRICS
from roarline.config.sanity_metrics import SANITY_METRICS
from roarline.config.wording import suggest

_PERTURBATION = "evaluate-perturbation"

METRICS: dict[str, MetricComponent] = {
    **PERTURBATION_METRICS,
    **PROBE_METRICS,
    **RETRAINING_METRICS,
    **LOCALIZATION_METRICS,
    **SANITY_METRICS,
}

_OF_THE_SCORE = "of probabilities within [-1, 1]; with score: logit as far as logits go"
UNBOUNDED: dict[str, str] = {
    **dict.fromkeys(
        (
            "morf",
            "lerf",
            "srg",
            "insertion",
            "deletion",
            "road_morf",
            "road_lerf",
            "road_combined",
            "region_perturbation",
            "aopc",
        ),
        _OF_THE_SCORE,
    ),
    "roar_relative_area": "a share of an area that may be small",
    "recursive_roar_relative_area": "a share of an area that may be small",
    "sm": "a logarithm of an area less that of a probability",
    "saliency": "a logarithm of an area less that of a probability",
}
"""Why a metric has no lowest and no highest value."""


def check_metrics(names: Sequence[str], stage: str) -> None:
    """Refuse names that are no metrics of a stage.

    Raises:
        ValueError: Names the first such name, which stage computes it if any, and what is near.
    """
    known = [name for name, metric in METRICS.items() if metric.stage == stage]
    for name in names:
        if name not in known:
            where = f"{name!r} is computed by {METRICS[name].stage}" if name in METRICS else f"no metric is {name!r}"
            raise ValueError(f"{where}{suggest(name, known)}")


def with_own_metrics(own: Sequence[Mapping[str, Any]]) -> dict[str, MetricComponent]:
    """The table, and after it an experiment's own metrics, as a job's parameters describe them.

    Args:
        own: A mapping with ``name``, ``metric`` (dotted path or entry point), ``higher_is_better`` and ``unit`` each.
    """
    return METRICS | {
        metric["name"]: MetricComponent(
            metric["metric"],
            NoParams,
            f"this experiment's own metric, {metric['metric']}",
            higher_is_better=metric["higher_is_better"],
            unit=metric["unit"],
            stage=_PERTURBATION,
        )
        for metric in own
    }
