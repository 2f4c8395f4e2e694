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


def test_what_is_not_set_is_in_no_key() -> None:
    """So that a new setting leaves every artifact that was made without it valid."""
    from roarline.execution.plan import build_plan

    def parameters(**data: Any) -> dict[str, Any]:
        said = {"dataset": "image_folder", **data}
        experiment = Experiment.model_validate(
            {"name": "x", "data": said, "model": {"arch": "small_cnn"}, "train-cls": {},
             "attribution": {"methods": [{"name": "random"}]}}
        )  # fmt: skip
        return build_plan(experiment).of("prepare-data")[0].parameters

    assert parameters(params={"boxes": None}, validation_per_class=None, limit={"per_class": False}) == parameters()
    assert parameters()["params"] == {}
    changed = parameters(params={"boxes": "boxes.csv"}, validation_per_class=2, limit={"per_class": True})
    assert (changed["params"], changed["validation_per_class"]) == ({"boxes": "boxes.csv"}, 2)
    assert "validation_annotated" not in changed
    assert parameters(validation_per_class=2, validation_annotated=True)["validation_annotated"]
    assert changed["limit_per_class"] is True
