"""The perfect mask in evaluate-localization: best on every metric of ground truth, whatever the objects look like."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch

from roarline.artifacts.features import FEATURES_FILE, read_features
from roarline.artifacts.score_table import read_ground_truths
from roarline.artifacts.store import Artifact, Store
from roarline.artifacts.tables import SCORES_FILE
from roarline.config.experiment import Experiment
from roarline.config.localization import DIFFICULT_SUBSET, EvaluateLocalization
from roarline.config.metrics import METRICS
from roarline.evaluation.mask_boxes import box_scores
from roarline.evaluation.perfect_masks import best_mean_f1_mask
from roarline.evaluation.statistics_of_means import STATISTICS
from roarline.execution.plan import build_plan
from tests.stages.test_evaluate_localization import EVERY, SIDE, evaluate, scores
from tests.stages.toy_classifier import toy_dataset

OF_TRUTH = [
    name for name in EVERY if {"boxes", "ground_truth"} & set(METRICS[name].needs) and name != DIFFICULT_SUBSET
]  # the subset's values are pointing_game's
F1_SHORT = 2e-6  # published denominators have 1e-6 more
FILLED, TOUCHING, DISC, NESTED, SMALL = range(5)


def hard_objects() -> tuple[np.ndarray, np.ndarray]:
    """Boxes [M, 6] and segmentation [5, SIDE, SIDE] of class 0 where a mask of all pixels is not a mask of boxes."""
    boxes = [
        [FILLED, 0, 0, 0, SIDE - 1, SIDE - 1],
        [TOUCHING, 0, 1, 2, 6, 9], [TOUCHING, 0, 7, 2, 12, 9],
        [DISC, 0, 3, 3, 12, 12],
        [NESTED, 0, 0, 0, 11, 11], [NESTED, 0, 2, 2, 4, 4],
        [SMALL, 0, 5, 5, 5, 5],
    ]  # fmt: skip
    segmentation = np.zeros((5, SIDE, SIDE), dtype=np.uint8)
    for row, _, x0, y0, x1, y1 in boxes:
        segmentation[row, y0 : y1 + 1, x0 : x1 + 1] = 1
    y, x = np.mgrid[:SIDE, :SIDE]
    segmentation[DISC] = (x - 7.5) ** 2 + (y - 7.5) ** 2 <= 25
    return np.array(boxes), segmentation


@pytest.fixture
def hard(store: Store) -> Artifact:
    boxes, segmentation = hard_objects()
    return toy_dataset(store, count=5, labels=np.zeros(5, dtype=int), boxes=boxes, segmentation=segmentation)


def best(metric: str) -> float:
    low, high = METRICS[metric].range
    return cast(float, high if METRICS[metric].higher_is_better else low)


def run(store: Store, dataset: Artifact, **parameters: Any) -> Artifact:
    """The control, whose map is the segmentation's."""
    segmentation = hard_objects()[1].astype(np.float32)
    rows = [(f"image/{row:04d}", 0) for row in range(5)]
    asked = {"metrics": OF_TRUTH, "perfect": True, "mask": "none", "topk_fraction": 1 / SIDE**2}
    return evaluate(store, dataset, segmentation, rows, **asked | parameters)


@pytest.mark.parametrize("kind", ["segmentation", "boxes"])
def test_the_perfect_mask_is_best_on_every_metric(store: Store, hard: Artifact, kind: Any) -> None:
    artifact = run(store, hard, ground_truth=EvaluateLocalization(metrics=OF_TRUTH, ground_truth=kind).kinds())
    found, seen = scores(artifact), set()
    for (metric, setting), column in found.items():
        for row, (value, status) in enumerate(column):
            if metric == "roc_auc" and row == FILLED:  # no background to tell the object from
                assert value is None
            elif metric == "f1a" and row in (TOUCHING, NESTED):  # a mean over boxes: see below
                assert value is not None
                assert value < 1
            else:
                assert status == "ok", (metric, setting, row)
                assert value == pytest.approx(best(metric), abs=F1_SHORT), (metric, setting, row)
                seen.add(metric)
    for metric, features in read_features(artifact.file(FEATURES_FILE)).metrics.items():
        score = STATISTICS[features.statistic](torch.from_numpy(features.values).mean(dim=0))
        assert score.item() == best(metric), metric
        seen.add(metric)
    assert seen == set(OF_TRUTH)


def test_the_mean_over_boxes_is_the_highest_that_any_mask_has(store: Store, hard: Artifact) -> None:
    found, (boxes, _) = scores(run(store, hard)), hard_objects()
    for row in (TOUCHING, NESTED):
        own = boxes[boxes[:, 0] == row, 2:] + np.array([0, 0, 1, 1])
        mask = best_mean_f1_mask(own, (SIDE, SIDE))
        expected = box_scores(mask, np.zeros(4, dtype=np.int64), own).f1.mean()
        assert found["f1a", ""][row][0] == pytest.approx(expected, abs=1e-12)


def test_a_map_of_all_objects_pixels_is_no_perfect_mask_of_boxes(store: Store, hard: Artifact) -> None:
    """What a method gets for it: the published scores of boxes don't call it right."""
    found = scores(run(store, hard, perfect=False))
    assert [value for value, _ in found["le", ""]] == [0, 1, 0, 0, 0]
    f1 = found["f1", ""][DISC][0]
    share = hard_objects()[1][DISC].sum() / 100  # of the box, which is covered no further
    assert f1 == pytest.approx(2 * share / (1 + share), abs=F1_SHORT)


def test_wrong_decisions_are_errors_of_om_for_the_perfect_mask_too(store: Store) -> None:
    boxes, segmentation = hard_objects()
    dataset = toy_dataset(
        store, count=5, labels=np.array([0, 1, 0, 0, 2]), boxes=boxes, segmentation=segmentation
    )  # the toy maps' logits decide for class 0
    found = scores(run(store, dataset))
    assert [value for value, _ in found["om", ""]] == [0, 1, 0, 0, 1]
    assert [value for value, _ in found["le", ""]] == [0, 0, 0, 0, 0]


def test_published_definitions_miss_some_perfect_masks(store: Store, hard: Artifact) -> None:
    """``compat: original``: nothing is above the mean of a constant mask, and a box without its last row and column."""
    found = scores(run(store, hard, compat="original", metrics=["le", "max_box_acc", "f1"]))
    assert [value for value, _ in found["le", ""]] == [1, 0, 0, 0, 1]
    for row, (value, _) in enumerate(found["f1", ""]):
        assert value == pytest.approx(1, abs=F1_SHORT), row
    right = read_features(run(store, hard, compat="original").file(FEATURES_FILE)).metrics["max_box_acc"].values
    # Boxes a pixel too large: 1 px of 4 for the single pixel; the filled image's ends at its border.
    assert right.all(axis=1).tolist() == [True, True, True, True, False]


def test_every_metric_says_which_ground_truth_it_was_given(store: Store, hard: Artifact) -> None:
    kinds = EvaluateLocalization(metrics=EVERY, ground_truth={"pointing_game": "boxes", "pxap": "boxes"}).kinds()
    artifact = run(store, hard, perfect=False, metrics=EVERY, ground_truth=kinds)
    found = read_ground_truths(artifact.file(SCORES_FILE))
    features = read_features(artifact.file(FEATURES_FILE)).metrics
    assert found["pointing_game"] == features["pointing_game"].ground_truth == "boxes"
    assert found["roc_auc"] == "segmentation"
    assert found["le"] == features["max_box_acc"].ground_truth == features["pxap"].ground_truth == "boxes"
    assert not {"gini_sparseness", "saliency", "sm"} & set(found)
    assert features["mask_std"].ground_truth == ""
    assert set(found) | set(features) == {name for name in EVERY if name in kinds} | set(features)


def test_boxes_and_segmentation_in_one_run(store: Store, hard: Artifact) -> None:
    """A map on the corner of the disc's box: in the box, not on the disc."""
    corner = np.zeros((5, SIDE, SIDE), dtype=np.float32)
    corner[:, 3, 3] = 1
    rows, metrics = [(f"image/{row:04d}", 0) for row in range(5)], ["pointing_game", "relevance_mass_accuracy"]
    asked = {"pointing_game": "boxes", "relevance_mass_accuracy": "segmentation"}
    found = scores(evaluate(store, hard, corner, rows, metrics=metrics, ground_truth=asked, tolerance_px=1))
    assert found["pointing_game", ""][DISC] == (1.0, "ok")
    assert found["relevance_mass_accuracy", ""][DISC] == (0.0, "ok")


def test_only_the_untouched_control_is_planned_as_perfect() -> None:
    methods = [
        {"name": "ground_truth"}, {"name": "gradient"},
        {"name": "blurred", "method": "ground_truth", "filter": {"kind": "blur", "sigma_px": 1}},
    ]  # fmt: skip
    sections = {"name": "e", "data": {"dataset": "shapes"}, "model": {"arch": "small_cnn"}, "train-cls": {"epochs": 1}}
    attribution = {"methods": methods, "baselines": []}
    experiment = Experiment.model_validate(
        {**sections, "attribution": attribution, "evaluate-localization": {"metrics": ["le"]}}
    )
    jobs = build_plan(experiment).of("evaluate-localization")
    assert [job.parameters.get("perfect") for job in jobs] == [True, None, None]
