"""The metrics that train networks anew, or fine-tune one, to judge maps. Imports no torch."""

from __future__ import annotations

from roarline.config.component import MetricComponent, NoParams

_ACCURACY = "roarline.evaluation.accuracy:accuracy"
_ROAR = "evaluate-roar"

RETRAINING_METRICS: dict[str, MetricComponent] = {
    "roar_accuracy": MetricComponent(
        _ACCURACY,
        NoParams,
        "Test accuracy after removing the most relevant pixels and retraining",
        "Hooker et al. 2019, arXiv 1806.10758",
        higher_is_better=False,
        stage=_ROAR,
        range=(0, 1),
        passes="a training a cell",
    ),
    "kar_accuracy": MetricComponent(
        _ACCURACY,
        NoParams,
        "Test accuracy after removing the least relevant pixels and retraining",
        "Hooker et al. 2019, arXiv 1806.10758",
        higher_is_better=True,
        stage=_ROAR,
        range=(0, 1),
        passes="a training a cell",
    ),
    "roar_leakage": MetricComponent(
        _ACCURACY,
        NoParams,
        "Test accuracy of a classifier that sees ROAR's binary removal masks alone",
        "Rong et al. 2022, arXiv 2202.00449",
        stage=_ROAR,
        range=(0, 1),
        passes="a training a cell",
    ),
    "kar_leakage": MetricComponent(
        _ACCURACY,
        NoParams,
        "Test accuracy of a classifier that sees KAR's binary removal masks alone",
        "Rong et al. 2022, arXiv 2202.00449",
        stage=_ROAR,
        range=(0, 1),
        passes="a training a cell",
    ),
}
