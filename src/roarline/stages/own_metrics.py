"""Calling metrics of the user's own, and refusing what they must not return.

A metric is a callable (model, images [B, C, H, W], targets [B], maps [B, H, W], **params) → [B] values. The model is
frozen and in eval mode, images are normalised, maps are as pixels are ranked by them: larger is more relevant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from roarline.attribution.global_random import seeded_globals
from roarline.attribution.model_state import frozen, guarded
from roarline.config.component import load_object
from roarline.errors import MetricError, RoarlineError
from roarline.models.passes import pass_size
from roarline.seeds import derive_seed


@dataclass(frozen=True)
class OwnMetric:
    """A metric of the user's own, ready to be called."""

    name: str
    function: Callable[..., Any]
    params: Mapping[str, Any]


def find_metrics(entries: Sequence[Mapping[str, Any]]) -> list[OwnMetric]:
    """Import the metrics that a job's parameters name.

    Raises:
        UserInputError: There is no such callable.
    """
    return [OwnMetric(entry["name"], load_object(entry["dotted_path"]), entry["params"]) for entry in entries]


def measure(
    metric: OwnMetric,
    model: nn.Module,
    images_BCHW: Tensor,
    targets_B: Tensor,
    maps_BHW: Tensor,
    sample_ids: Sequence[str],
    seed: int,
) -> np.ndarray:
    """Call a metric on some rows, as many at a time as go through the network at once; the model is left as it was.

    Args:
        seed: Of the experiment; what the metric draws from the global generators comes from it and the first sample id.

    Returns:
        float64 [B]; NaN or infinite where the metric said so.

    Raises:
        MetricError: It fails, or returns anything but one number a row.
    """
    at_once = pass_size(images_BCHW.shape[2], images_BCHW.shape[3], images_BCHW.device)
    found = []
    with frozen(model), guarded(model, metric.name):
        for start in range(0, len(images_BCHW), at_once):
            rows, ids = slice(start, start + at_once), sample_ids[start : start + at_once]
            where = f"the batch of {len(ids)} that begins with sample {ids[0]!r}"
            draws = derive_seed(seed, "own metric", metric.name, ids[0])
            with seeded_globals(draws, images_BCHW.device):
                # Copies, so that nothing the metric does to its arguments reaches another metric.
                given = (images_BCHW[rows].clone(), targets_B[rows].clone(), maps_BHW[rows].clone())
                found.append(_values(metric, _call(metric, model, *given, where), len(ids), where))
    return np.concatenate(found)


def _call(metric: OwnMetric, model: nn.Module, images: Tensor, targets: Tensor, maps: Tensor, where: str) -> Any:
    try:
        return metric.function(model, images, targets, maps, **metric.params)
    except (RoarlineError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise MetricError(f"metric {metric.name!r}: failed at {where}: {type(error).__name__}: {error}") from error


def _values(metric: OwnMetric, returned: Any, count: int, where: str) -> np.ndarray:
    values = returned
    if isinstance(returned, Tensor) and not returned.is_complex():
        values = returned.detach().to("cpu", torch.float64).numpy()
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiub":
        came = f"an array of {values.dtype}" if isinstance(values, np.ndarray) else f"a {type(returned).__name__}"
        raise MetricError(
            f"metric {metric.name!r}: returned {came} for {where}, expected a tensor or a numeric array [{count}]"
        )
    if values.shape != (count,):
        raise MetricError(
            f"metric {metric.name!r}: returned shape {list(values.shape)} for {where}, expected [{count}]"
        )
    return values.astype(np.float64)
