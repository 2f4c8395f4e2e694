"""The table of metrics: direction, unit, stage, source. Imports no torch.

To add a metric: write one function in ``roarline/evaluation/`` and one line in ``METRICS``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from roarline.config.component import MetricComponent, NoParams
from roarline.config.localization_metrics import LOCALIZATION_METRICS

_CURVES = "roarline.evaluation.curves"
_PERTURBATION = "evaluate-perturbation"

METRICS: dict[str, MetricComponent] = {
    "morf": MetricComponent(
        f"{_CURVES}:area_under_curve",
        NoParams,
        "Area under the score as the most relevant pixels go first",
        "Samek et al. 2017, arXiv 1509.06321",
        higher_is_better=False,
        stage=_PERTURBATION,
        needs=("network",),
        passes="a forward pass a fraction, shared by the metrics of a curve",
    ),
    "lerf": MetricComponent(
        f"{_CURVES}:area_under_curve",
        NoParams,
        "Area under the score as the least relevant pixels go first",
        "Samek et al. 2017; Ancona et al. 2018",
        higher_is_better=True,
        stage=_PERTURBATION,
        needs=("network",),
        passes="a forward pass a fraction, shared by the metrics of a curve",
    ),
    "srg": MetricComponent(
        f"{_CURVES}:symmetric_relevance_gain",
        NoParams,
        "LeRF area minus MoRF area",
        "Blücher et al. 2024, arXiv 2401.06654",
        higher_is_better=True,
        stage=_PERTURBATION,
        needs=("network",),
        passes="a forward pass a fraction, shared by the metrics of a curve",
    ),
    "insertion": MetricComponent(
        f"{_CURVES}:area_under_curve",
        NoParams,
        "Area under the score as the most relevant pixels appear on a blurred image",
        "Petsiuk et al. 2018, arXiv 1806.07421",
        higher_is_better=True,
        stage=_PERTURBATION,
        needs=("network",),
        passes="a forward pass a step, shared by the metrics of a curve",
    ),
    "deletion": MetricComponent(
        f"{_CURVES}:area_under_curve",
        NoParams,
        "Area under the score as the most relevant pixels are deleted in fine steps",
        "Petsiuk et al. 2018, arXiv 1806.07421",
        higher_is_better=False,
        stage=_PERTURBATION,
        needs=("network",),
        passes="a forward pass a step, shared by the metrics of a curve",
    ),
    "morf_deviation": MetricComponent(
        f"{_CURVES}:relative_deviation",
        NoParams,
        "Relative change of the probability, most relevant removed",
        "saurabheights/ROAR",
        higher_is_better=True,
        unit="%",
        stage=_PERTURBATION,
        range=(0, None),
        needs=("network",),
        passes="a forward pass a fraction, shared by the metrics of a curve",
    ),
    "lerf_deviation": MetricComponent(
        f"{_CURVES}:relative_deviation",
        NoParams,
        "Relative change of the probability, least relevant removed",
        "saurabheights/ROAR",
        higher_is_better=False,
        unit="%",
        stage=_PERTURBATION,
        range=(0, None),
        needs=("network",),
        passes="a forward pass a fraction, shared by the metrics of a curve",
    ),
    "roar_accuracy": MetricComponent(
        "roarline.evaluation.accuracy:accuracy",
        NoParams,
        "Test accuracy after removing the most relevant pixels and retraining",
        "Hooker et al. 2019, arXiv 1806.10758",
        higher_is_better=False,
        stage="evaluate-roar",
        range=(0, 1),
        passes="a training a cell",
    ),
    "kar_accuracy": MetricComponent(
        "roarline.evaluation.accuracy:accuracy",
        NoParams,
        "Test accuracy after removing the least relevant pixels and retraining",
        "Hooker et al. 2019, arXiv 1806.10758",
        higher_is_better=True,
        stage="evaluate-roar",
        range=(0, 1),
        passes="a training a cell",
    ),
    "roar_leakage": MetricComponent(
        "roarline.evaluation.accuracy:accuracy",
        NoParams,
        "Test accuracy of a classifier that sees ROAR's binary removal masks alone",
        "Rong et al. 2022, arXiv 2202.00449",
        stage="evaluate-roar",
        range=(0, 1),
        passes="a training a cell",
    ),
    "kar_leakage": MetricComponent(
        "roarline.evaluation.accuracy:accuracy",
        NoParams,
        "Test accuracy of a classifier that sees KAR's binary removal masks alone",
        "Rong et al. 2022, arXiv 2202.00449",
        stage="evaluate-roar",
        range=(0, 1),
        passes="a training a cell",
    ),
    **LOCALIZATION_METRICS,
}


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
