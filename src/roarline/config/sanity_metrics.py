"""The metrics of evaluate-sanity: what is left of a map where nothing was learned. Imports no torch."""

from __future__ import annotations

from roarline.config.component import MetricComponent, NoParams

_SIMILARITY = "roarline.evaluation.randomisation:Reference"
_STAGE = "evaluate-sanity"
_ADEBAYO = "Adebayo et al. 2018, arXiv 1810.03292"
_HEDSTROEM = "Hedström et al. 2024, arXiv 2405.02383"

SANITY_METRICS: dict[str, MetricComponent] = {
    "cascading_randomisation": MetricComponent(
        _SIMILARITY,
        NoParams,
        "Similarity to the map of a network whose layers lose their weights one after the other",
        _ADEBAYO,
        higher_is_better=False,
        stage=_STAGE,
        range=(-1, 1),
        needs=("network", "gradients"),
        passes="the method's passes a layer, shared by the metrics of a stage of randomisation",
    ),
    "independent_randomisation": MetricComponent(
        _SIMILARITY,
        NoParams,
        "Similarity to the map of a network of which one layer lost its weights, mean over layers",
        _ADEBAYO,
        higher_is_better=False,
        stage=_STAGE,
        range=(-1, 1),
        needs=("network", "gradients"),
        passes="the method's passes a layer, shared by the metrics of a stage of randomisation",
    ),
    "smooth_randomisation": MetricComponent(
        _SIMILARITY,
        NoParams,
        "As cascading_randomisation, of maps that are averaged over noisy copies of the image (sMPRT)",
        _HEDSTROEM,
        higher_is_better=False,
        stage=_STAGE,
        range=(-1, 1),
        needs=("network", "gradients"),
        passes="the method's passes a layer and noisy copy",
    ),
    "efficient_randomisation": MetricComponent(
        "roarline.evaluation.randomisation:relative_rise",
        NoParams,
        "Relative rise of the entropy of the map's values as all layers lose their weights (eMPRT)",
        _HEDSTROEM,
        higher_is_better=True,
        stage=_STAGE,
        range=(-1, None),
        needs=("network", "gradients"),
        passes="the method's passes twice, shared with cascading_randomisation",
    ),
    "random_logit": MetricComponent(
        _SIMILARITY,
        NoParams,
        "Similarity to the map of another class, drawn for each row",
        "Sixt et al. 2020, arXiv 1912.09818",
        higher_is_better=False,
        stage=_STAGE,
        range=(-1, 1),
        needs=("network", "gradients"),
        passes="the method's passes twice",
    ),
    "data_randomisation": MetricComponent(
        _SIMILARITY,
        NoParams,
        "Similarity to the map of a network that was trained on shuffled labels",
        _ADEBAYO,
        higher_is_better=False,
        stage=_STAGE,
        range=(-1, 1),
        needs=("network", "gradients"),
        passes="the method's passes once, and a training for all methods together",
    ),
}
