"""Scores that are no mean over rows, but a function of means: what each row gives is a vector of features.

The function is applied to the mean over all rows and to that of every bootstrap resample, so that these scores get
intervals and paired differences as all others do. Shapes: … any leading dimensions, F features.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def mean_value(features: Tensor) -> Tensor:
    """The mean itself, for rows that are averaged within groups first: [..., 1] → [...]."""
    return features[..., 0]


def best_threshold(features: Tensor) -> Tensor:
    """The accuracy at the best of all thresholds: [..., T] → [...]. Source: MaxBoxAcc."""
    return features.amax(dim=-1)


def mean_of_three_best(features: Tensor) -> Tensor:
    """Of three overlaps, each at its own best threshold: [..., 3 · T] → [...]. Source: MaxBoxAccV2."""
    return features.reshape(*features.shape[:-1], 3, -1).amax(dim=-1).mean(dim=-1)


def average_precision(features: Tensor) -> Tensor:
    """Area under precision over recall, from histograms of object and other pixels by rising value.

    Args:
        features: [..., 2 · (T + 2)], counts of any common scale.

    Returns:
        [...] in [0, 1]; NaN where no object has a pixel.

    Source: wsolevaluation ``MaskEvaluator.compute``: each step of recall with the precision at its end.
    """
    hits, false_alarms = features.reshape(*features.shape[:-1], 2, -1).flip(-1).cumsum(dim=-1).unbind(dim=-2)
    found = hits + false_alarms
    precision = hits / found.where(found > 0, 1.0)
    total = hits[..., -1:]
    recall = hits / total.where(total > 0, torch.nan)
    gained = torch.diff(recall, dim=-1, prepend=torch.zeros_like(recall[..., :1]))
    return (precision * gained).sum(dim=-1)


def standard_deviation(features: Tensor) -> Tensor:
    """Standard deviation over rows, from the means of a value and of its square: [..., 2] → [...]."""
    mean, square = features.unbind(dim=-1)
    return (square - mean.square()).clamp_min(0).sqrt()


STATISTICS: dict[str, Callable[[Tensor], Tensor]] = {
    function.__name__: function
    for function in (mean_value, best_threshold, mean_of_three_best, average_precision, standard_deviation)
}
"""By the name that ``features.h5`` gives."""
