"""Metrics of evaluate-perturbation that probe the classifier, or the method, on altered images. Imports no torch."""

from __future__ import annotations

from roarline.config.component import MetricComponent, NoParams

_STAGE = "evaluate-perturbation"
_SETS = "roarline.evaluation.pixel_sets:set_correlation"
_SENSITIVITY = "roarline.evaluation.map_sensitivity"
_CURVES = "roarline.evaluation.information_curve:area_under_information"

PROBE_METRICS: dict[str, MetricComponent] = {
    "sensitivity_n": MetricComponent(
        _SETS,
        NoParams,
        "Correlation of the relevance of random pixel sets with what their removal costs",
        "Ancona et al. 2018, arXiv 1711.06104",
        higher_is_better=True,
        stage=_STAGE,
        range=(-1, 1),
        needs=("network",),
        passes="a forward pass a pixel set and n, shared with faithfulness_correlation where sets are the same",
    ),
    "faithfulness_correlation": MetricComponent(
        _SETS,
        NoParams,
        "Correlation of the relevance of random pixel sets of one size with what their removal costs",
        "Bhatt et al. 2020, arXiv 2005.00631",
        higher_is_better=True,
        stage=_STAGE,
        range=(-1, 1),
        needs=("network",),
        passes="a forward pass a pixel set, shared with sensitivity_n where sets are the same",
    ),
    "infidelity": MetricComponent(
        "roarline.evaluation.infidelity:infidelity",
        NoParams,
        "Mean squared distance of the relevance of a perturbation from what it costs",
        "Yeh et al. 2019, arXiv 1901.09392",
        higher_is_better=False,
        stage=_STAGE,
        range=(0, None),
        needs=("network",),
        passes="a forward pass a perturbation",
    ),
    "max_sensitivity": MetricComponent(
        f"{_SENSITIVITY}:largest_change",
        NoParams,
        "Largest relative change of the map as slight noise is added to the image",
        "Yeh et al. 2019, arXiv 1901.09392",
        higher_is_better=False,
        stage=_STAGE,
        range=(0, None),
        needs=("network", "gradients"),
        passes="the method's own a noisy copy, shared by both sensitivities",
    ),
    "avg_sensitivity": MetricComponent(
        f"{_SENSITIVITY}:mean_change",
        NoParams,
        "Mean relative change of the map as slight noise is added to the image",
        "Yeh et al. 2019, arXiv 1901.09392",
        higher_is_better=False,
        stage=_STAGE,
        range=(0, None),
        needs=("network", "gradients"),
        passes="the method's own a noisy copy, shared by both sensitivities",
    ),
    "aic": MetricComponent(
        _CURVES,
        NoParams,
        "Area under accuracy over information as the most relevant pixels of a blurred image become sharp",
        "Kapishnikov et al. 2019, arXiv 1906.02825",
        higher_is_better=True,
        stage=_STAGE,
        range=(0, 1),
        needs=("network",),
        passes="a forward pass and a compression a fraction, shared by aic and sic",
    ),
    "sic": MetricComponent(
        _CURVES,
        NoParams,
        "Area under probability over information as the most relevant pixels of a blurred image become sharp",
        "Kapishnikov et al. 2019, arXiv 1906.02825",
        higher_is_better=True,
        stage=_STAGE,
        range=(0, 1),
        needs=("network",),
        passes="a forward pass and a compression a fraction, shared by aic and sic",
    ),
}
