"""The metrics of evaluate-perturbation: what the classifier says as pixels go. Imports no torch."""

from __future__ import annotations

from roarline.config.component import MetricComponent, NoParams

_CURVES = "roarline.evaluation.curves"
_STAGE = "evaluate-perturbation"

PERTURBATION_METRICS: dict[str, MetricComponent] = {
    "morf": MetricComponent(
        f"{_CURVES}:area_under_curve",
        NoParams,
        "Area under the score as the most relevant pixels go first",
        "Samek et al. 2017, arXiv 1509.06321",
        higher_is_better=False,
        stage=_STAGE,
        needs=("network",),
        passes="a forward pass a fraction, shared by the metrics of a curve",
    ),
    "lerf": MetricComponent(
        f"{_CURVES}:area_under_curve",
        NoParams,
        "Area under the score as the least relevant pixels go first",
        "Samek et al. 2017; Ancona et al. 2018",
        higher_is_better=True,
        stage=_STAGE,
        needs=("network",),
        passes="a forward pass a fraction, shared by the metrics of a curve",
    ),
    "srg": MetricComponent(
        f"{_CURVES}:symmetric_relevance_gain",
        NoParams,
        "LeRF area minus MoRF area",
        "Blücher et al. 2024, arXiv 2401.06654",
        higher_is_better=True,
        stage=_STAGE,
        needs=("network",),
        passes="a forward pass a fraction, shared by the metrics of a curve",
    ),
    "insertion": MetricComponent(
        f"{_CURVES}:area_under_curve",
        NoParams,
        "Area under the score as the most relevant pixels appear on a blurred image",
        "Petsiuk et al. 2018, arXiv 1806.07421",
        higher_is_better=True,
        stage=_STAGE,
        needs=("network",),
        passes="a forward pass a step, shared by the metrics of a curve",
    ),
    "deletion": MetricComponent(
        f"{_CURVES}:area_under_curve",
        NoParams,
        "Area under the score as the most relevant pixels are deleted in fine steps",
        "Petsiuk et al. 2018, arXiv 1806.07421",
        higher_is_better=False,
        stage=_STAGE,
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
        stage=_STAGE,
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
        stage=_STAGE,
        range=(0, None),
        needs=("network",),
        passes="a forward pass a fraction, shared by the metrics of a curve",
    ),
}
