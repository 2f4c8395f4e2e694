"""Where a data set has ground truth, its perfect mask rides along as a control."""

from __future__ import annotations

from typing import Any

import pytest

from roarline.config.datasets import DATASETS
from roarline.config.experiment import Experiment

WITHOUT = {"digits", "cifar10", "cifar100", "food101"}
ON_DEMAND = {"image_folder", "imagenet", "listed_folder"}


def _methods(dataset: str, params: dict[str, Any]) -> list[str]:
    experiment = Experiment.model_validate(
        {
            "name": "x",
            "data": {"dataset": dataset, "params": params},
            "model": {"arch": "small_cnn"},
            "train-cls": {},
            "attribution": {"methods": [{"name": "gradient"}]},
        }
    )
    return [method.name for method in experiment.methods]


@pytest.mark.parametrize("name", DATASETS)
def test_the_perfect_mask_rides_along_where_there_is_ground_truth(name: str) -> None:
    assert ("ground_truth" in _methods(name, {})) == (name not in WITHOUT | ON_DEMAND)
    assert "random" in _methods(name, {})


@pytest.mark.parametrize("name", sorted(ON_DEMAND))
def test_boxes_that_are_asked_for_are_ground_truth(name: str) -> None:
    assert "ground_truth" in _methods(name, {"boxes": "boxes.csv"})
    assert "ground_truth" not in _methods(name, {"boxes": None})


def test_masks_beside_cub() -> None:
    assert DATASETS["cub"].known({}) == ("boxes",)
    assert DATASETS["cub"].known({"segmentation": "segmentations"}) == ("boxes", "segmentation")
