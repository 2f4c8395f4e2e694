"""Every metric of evaluate-localization needs what it declares, and nothing else: network, pixels of objects, boxes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from roarline.config.metrics import METRICS
from roarline.stages.ground_truth import Truth
from roarline.stages.localization_batch import Batch, Batches
from roarline.stages.localization_metrics import FEATURES, features_of, values_of
from tests.stages.test_evaluate_localization import EVERY, PARAMETERS

SIDE, COUNT = 16, 3


def batch(**changed: Any) -> Batch:
    """Rows that can tell any two ground truths apart."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(COUNT, SIDE, SIDE, generator=generator, dtype=torch.float64)
    first = Batch(
        maps=maps, masks=maps, truth=truth(4, 4), targets=torch.arange(COUNT), seeds=list(range(COUNT)),
        right=np.ones(COUNT, dtype=bool), settings={**PARAMETERS, "tolerance_px": 1}, multi_label=False,
        images=torch.rand(COUNT, 3, SIDE, SIDE, generator=generator, dtype=torch.float64),
        logits_of=lambda images: images.mean(dim=(2, 3)) * 9,
    )  # fmt: skip
    return replace(first, **changed)


def truth(masks_at: int, boxes_at: int) -> Truth:
    """Squares of 8 px from (masks_at, masks_at), and others as boxes."""
    masks = torch.zeros(COUNT, SIDE, SIDE, dtype=torch.bool)
    masks[:, masks_at : masks_at + 8, masks_at : masks_at + 8] = True
    boxes = [np.array([[boxes_at, boxes_at, boxes_at + 7, boxes_at + 7]])] * COUNT
    flags = np.zeros(COUNT, dtype=bool)
    return Truth(masks, torch.ones_like(masks), boxes, ~flags, flags)


def found(metric: str, rows: Batch) -> np.ndarray:
    if metric in FEATURES:
        return features_of(metric, rows)
    return values_of([metric], Batches(rows, {}, {}))


def peaked() -> dict[str, Tensor]:
    """Maps that lie on the upper left: other objects, other scores."""
    maps = batch().maps / 4
    maps[:, 1:9, 1:9] += 0.7
    return {"maps": maps, "masks": maps}


@pytest.mark.parametrize("metric", EVERY)
def test_needs_are_those_that_are_declared(metric: str) -> None:
    needs, rows = METRICS[metric].needs, batch(**peaked())
    value = found(metric, rows)
    if "network" in needs:
        with pytest.raises(ValueError, match="though a metric ask"):
            found(metric, replace(rows, images=None, logits_of=None))
    else:
        np.testing.assert_array_equal(found(metric, replace(rows, images=None, logits_of=None)), value)
    other_masks = found(metric, batch(truth=truth(8, 4), **peaked()))
    other_boxes = found(metric, batch(truth=truth(4, 1), **peaked()))
    assert (not np.array_equal(other_masks, value)) == ("ground_truth" in needs)
    assert (not np.array_equal(other_boxes, value)) == ("boxes" in needs)
    assert not {"ground_truth", "boxes"} <= set(needs)
    assert not {"gradients", "segmentation"} & set(needs)  # maps are made elsewhere; pixels may be of either kind
