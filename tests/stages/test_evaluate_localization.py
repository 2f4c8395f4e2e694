"""evaluate-localization: its numbers, rows without ground truth, constant maps, interruptions, what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from roarline.artifacts.dataset import DATASET_FILE, DatasetContent, write_dataset
from roarline.artifacts.features import FEATURES_FILE, read_features
from roarline.artifacts.store import Artifact, Store
from roarline.artifacts.tables import SCORES_FILE, read_parquet
from roarline.config.localization import OF_CLASSES, ON_GRIDS, EvaluateLocalization
from roarline.config.metrics import METRICS
from roarline.errors import DataError
from roarline.evaluation.max_box_accuracy import boxes_right
from roarline.evaluation.relevance import relevance_mass
from roarline.evaluation.segmentation_scores import Segmented, continuous_iou
from roarline.execution.run_job import run_job
from roarline.stages import evaluate_localization as stage
from roarline.stages.job import Context
from roarline.stages.localization_metrics import (
    DIFFICULT,
    NO_BOX,
    NO_MASK,
    NO_OBJECT,
    NO_SEGMENTATION,
    NOT_IN_SUBSET,
    UNDEFINED,
)
from tests.stages.toy_classifier import job_for, make_artifact, toy_classifier, toy_dataset
from tests.stages.toy_maps import distinct_values, toy_maps

SIDE, COUNT, STEP = 16, 12, 0.25
OTHERS = (*ON_GRIDS, *OF_CLASSES)  # they make maps of their own
EVERY = [name for name, metric in METRICS.items() if metric.stage == stage.STAGE and name not in OTHERS]
PARAMETERS = {
    **EvaluateLocalization(metrics=EVERY, tolerance_px=2, threshold_step=STEP).model_dump(
        mode="json", exclude={"grid", "class_matrix"}
    ),
    "ground_truth": EvaluateLocalization(metrics=EVERY).kinds(),
    "sign": "signed", "mask": "min_max", "seed": 0, "threads": 1,
}  # fmt: skip


def truth() -> tuple[np.ndarray, np.ndarray]:
    """One rectangle an image, of class (row mod 3); image 11 has none. Boxes [M, 6], segmentation [N, H, W]."""
    generator, boxes = np.random.default_rng(1), []
    segmentation = np.zeros((COUNT, SIDE, SIDE), dtype=np.uint8)
    for row in range(COUNT - 1):
        x0, y0 = generator.integers(0, 8, 2)
        x1, y1 = x0 + generator.integers(3, 8), y0 + generator.integers(3, 8)
        boxes.append([row, row % 3, x0, y0, x1, y1])
        segmentation[row, y0 : y1 + 1, x0 : x1 + 1] = row % 3 + 1
    segmentation[0, 15, 15] = 255
    return np.array(boxes), segmentation


@pytest.fixture
def dataset(store: Store) -> Artifact:
    boxes, segmentation = truth()
    labels = np.array([row % 3 for row in range(COUNT)])
    return toy_dataset(store, labels=labels, boxes=boxes, segmentation=segmentation)


@pytest.fixture
def rows() -> list[tuple[str, int]]:
    """Every image with its own class, but image 4 with one it hasn't."""
    return [(f"image/{row:04d}", 3 if row == 4 else row % 3) for row in range(COUNT)]


def evaluate(
    store: Store,
    dataset: Artifact,
    values: np.ndarray,
    rows: list[tuple[str, int]],
    logits: np.ndarray | None = None,
    **parameters: Any,
) -> Artifact:
    """Run the stage on some maps; the artifact."""
    maps = toy_maps(store, dataset, values.astype(np.float32), rows=rows, logits=logits)
    inputs = {"dataset": dataset, "classifier": toy_classifier(store), "maps": maps}
    job = job_for(stage.STAGE, {**PARAMETERS, **parameters}, inputs)
    run_job(job, Context(store))
    return store.open(job.stage, job.key)


Found = dict[tuple[str, str], list[tuple[float | None, str]]]


def scores(artifact: Artifact) -> Found:
    """(metric, setting) to (value, status) of each image."""
    table, found = read_parquet(artifact.file(SCORES_FILE)), Found()
    columns = (table[name] for name in ("metric", "setting", "value", "status"))
    for metric, setting, value, status in zip(*columns, strict=True):
        found.setdefault((metric, setting), []).append((value, status))
    return found


def test_values_are_those_of_the_pure_functions(store: Store, dataset: Artifact, rows: list[tuple[str, int]]) -> None:
    values = distinct_values(COUNT, SIDE)
    artifact = evaluate(store, dataset, values, rows)
    found, (boxes, segmentation) = scores(artifact), truth()
    masks = torch.from_numpy(segmentation == (np.arange(COUNT) % 3 + 1)[:, None, None])
    valid, maps = torch.from_numpy(segmentation != 255), torch.from_numpy(values)
    scaled = (maps.double() - maps.amin((1, 2), True)) / (maps.amax((1, 2), True) - maps.amin((1, 2), True)).double()
    mass, iou = relevance_mass(maps, masks, valid), continuous_iou(Segmented(scaled, masks, valid))
    features = read_features(artifact.file(FEATURES_FILE)).metrics
    for row in (0, 1, 5, 10):
        assert found["content_heatmap", ""][row][0] == pytest.approx(100 * mass[row].item())
        assert found["relevance_mass_accuracy", ""][row][0] == pytest.approx(mass[row].item())
        assert found["continuous_iou", ""][row][0] == pytest.approx(iou[row].item())
        right = boxes_right(scaled[row].numpy(), boxes[boxes[:, 0] == row, 2:], step=STEP)
        np.testing.assert_array_equal(features["max_box_acc"].values[row], right[0])


def test_every_metric_has_a_row_for_every_image(store: Store, dataset: Artifact, rows: list[tuple[str, int]]) -> None:
    artifact = evaluate(store, dataset, distinct_values(COUNT, SIDE), rows)
    found, features = scores(artifact), read_features(artifact.file(FEATURES_FILE))
    assert {metric for metric, _ in found} | set(features.metrics) == set(EVERY)
    assert all(len(column) == COUNT for column in found.values())
    assert features.sample_ids == [sample_id for sample_id, _ in rows]
    for (metric, _), column in found.items():
        low, high = METRICS[metric].range
        for value, status in column:
            assert (value is None) == (status != "ok")
            if value is not None:
                assert low is None or value >= low - 1e-9, metric
                assert high is None or value <= high + 1e-9, metric


def test_rows_without_ground_truth_say_so(store: Store, dataset: Artifact, rows: list[tuple[str, int]]) -> None:
    artifact = evaluate(store, dataset, distinct_values(COUNT, SIDE), rows)
    found, features = scores(artifact), read_features(artifact.file(FEATURES_FILE)).metrics
    for row in (4, 11):  # a class that the image hasn't, and no object at all
        assert found["pointing_game", ""][row] == (None, NO_OBJECT)
        assert found["f1_curve", "threshold=0.3"][row] == (None, NO_OBJECT)
        assert found["le", ""][row] == (None, NO_BOX)
        assert features["max_box_acc"].statuses[row] == NO_BOX
        assert features["pxap"].statuses[row] == NO_OBJECT
        assert np.isnan(features["pxap"].values[row]).all()
        assert found["gini_sparseness", ""][row][1] == "ok"  # needs none


@pytest.mark.parametrize("compat", ["corrected", "original"])
def test_an_image_without_a_segmentation_is_told_from_one_without_an_object(
    store: Store, rows: list[tuple[str, int]], compat: str
) -> None:
    """As most of VOC's: void all over, whatever its boxes say; by boxes it has an object."""
    boxes, segmentation = truth()
    segmentation[2] = 255
    labels = np.array([row % 3 for row in range(COUNT)])
    dataset = toy_dataset(store, labels=labels, boxes=boxes, segmentation=segmentation)
    artifact = evaluate(store, dataset, distinct_values(COUNT, SIDE), rows, compat=compat)
    found, features = scores(artifact), read_features(artifact.file(FEATURES_FILE)).metrics
    assert found["roc_auc", ""][2] == found["mean_f1", ""][2] == (None, NO_SEGMENTATION)
    assert found["roc_auc", ""][11] == (None, NO_OBJECT)
    assert features["pxap"].statuses[2] == NO_SEGMENTATION
    assert found["le", ""][2][1] == features["max_box_acc"].statuses[2] == "ok"


def test_a_wrong_class_is_an_error_of_om_wherever_there_are_boxes(
    store: Store, dataset: Artifact, rows: list[tuple[str, int]]
) -> None:
    found = scores(evaluate(store, dataset, distinct_values(COUNT, SIDE), rows))
    # The toy maps' logits are all 0, so that class 0 is decided for: wrong for image 4 (class 1), right for image 9.
    assert found["om", ""][4] == (1.0, "ok")
    assert found["om", ""][9] == found["le", ""][9]
    assert found["om", ""][11] == (None, NO_BOX)


def test_perfect_masks_are_best(store: Store, dataset: Artifact, rows: list[tuple[str, int]]) -> None:
    _, segmentation = truth()
    perfect = (segmentation == (np.arange(COUNT) % 3 + 1)[:, None, None]).astype(np.float32)
    best = {
        **dict.fromkeys(EVERY, 1.0), "content_heatmap": 100.0, "background_coverage": 0.0, "le": 0.0, "om": None,
        "topk_intersection": None,
    }  # fmt: skip
    artifact = evaluate(store, dataset, perfect, rows, mask="none", topk_fraction=0.02)
    for (metric, setting), column in scores(artifact).items():
        if METRICS[metric].needs and "network" not in METRICS[metric].needs and best[metric] is not None:
            for value, status in column:
                assert status != "ok" or value == pytest.approx(best[metric], abs=2e-6), (metric, setting)
    features = read_features(artifact.file(FEATURES_FILE)).metrics
    assert np.nanmin(features["max_box_acc"].values) == 1
    assert np.nanmin(features["max_box_acc_v2"].values) == 1


def test_constant_maps_have_the_stated_outcome(store: Store, dataset: Artifact, rows: list[tuple[str, int]]) -> None:
    found = scores(evaluate(store, dataset, np.zeros((COUNT, SIDE, SIDE)), rows))
    masks = truth()[1][1] == 2
    area = masks.mean()
    for metric in ("relevance_mass_accuracy", "relevance_rank_accuracy", "topk_intersection", "continuous_iou"):
        assert found[metric, ""][1] == (pytest.approx(area), "ok"), metric
    assert found["roc_auc", ""][1] == (0.5, "ok")
    assert found["object_coverage", ""][1] == (1.0, "ok")
    assert found["mask_average", ""][1] == (1.0, "ok")
    assert found["le", ""][1] == (1.0, "ok")
    stated = ("ok", NO_OBJECT, NO_BOX, NOT_IN_SUBSET, UNDEFINED)
    assert all(status in stated for column in found.values() for _, status in column)


def test_maps_that_are_no_masks_fail_where_they_are_to_be_taken_as_such(
    store: Store, dataset: Artifact, rows: list[tuple[str, int]]
) -> None:
    values = distinct_values(COUNT, SIDE) / 1000
    artifact = evaluate(store, dataset, values, rows, mask="none")
    found = scores(artifact)
    assert found["continuous_iou", ""][1] == (None, NO_MASK)
    assert found["pointing_game", ""][1][1] == "ok"
    assert read_features(artifact.file(FEATURES_FILE)).metrics["max_box_acc"].statuses[1] == NO_MASK


def content(rows: list[tuple[str, int]], boxes: np.ndarray, **more: Any) -> DatasetContent:
    """Black test images, each of class (row mod 3)."""
    return DatasetContent(
        name="toy", class_names=[f"class {index}" for index in range(4)], multi_label=False,
        sample_ids=[sample_id for sample_id, _ in rows], split=np.full(COUNT, 2),
        labels=np.array([row % 3 for row in range(COUNT)]), mean=None, std=None,
        images=np.zeros((COUNT, 3, SIDE, SIDE), dtype=np.uint8), boxes=boxes, **more,
    )  # fmt: skip


def made(store: Store, what: DatasetContent) -> Artifact:
    return make_artifact(store, "prepare-data", {}, lambda folder: write_dataset(folder / DATASET_FILE, what))


def test_difficult_objects_are_left_out_of_pointing_games_only(store: Store, rows: list[tuple[str, int]]) -> None:
    """Where all of the class's objects are: image 5 has another that is not."""
    boxes = np.vstack([truth()[0], [[5, 2, 0, 0, 1, 1]]])
    difficult = np.zeros(len(boxes), dtype=np.uint8)
    difficult[[2, 5]] = 1
    dataset = made(store, content(rows, boxes, box_difficult=difficult))
    found = scores(evaluate(store, dataset, distinct_values(COUNT, SIDE), rows))
    for metric in ("pointing_game", "stochastic_pointing_game"):
        assert found[metric, ""][2] == (None, DIFFICULT)
        assert found[metric, ""][5][1] == "ok"
    assert found["content_heatmap", ""][2][1] == "ok"


def test_scores_of_masks_read_soft_ground_truth_as_it_is(store: Store, rows: list[tuple[str, int]]) -> None:
    """A mask equal to the shares overlaps with them wholly; metrics of pixels count every pixel above 0."""
    boxes, segmentation = truth()
    drawn = np.random.default_rng(5).integers(1, 256, segmentation.shape).astype(np.uint8)
    shares = np.where((segmentation > 0) & (segmentation < 255), drawn, 0).astype(np.uint8)
    dataset = made(store, content(rows, boxes, segmentation=segmentation, shares=shares))
    found = scores(evaluate(store, dataset, shares / 255, rows, mask="none"))
    for row in (1, 5, 10):
        assert found["overlap", ""][row][0] == pytest.approx(1, abs=1e-6)
        assert found["continuous_iou", ""][row][0] == pytest.approx(1, abs=1e-6)
        assert found["relevance_rank_accuracy", ""][row] == (1.0, "ok")


def test_results_do_not_depend_on_parts_and_an_interrupted_run_goes_on(
    store: Store, dataset: Artifact, rows: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    values = distinct_values(COUNT, SIDE)
    whole = evaluate(store, dataset, values, rows)
    monkeypatch.setattr(stage, "rows_per_part", lambda height, width: 5)
    computed, original = [], stage.batches_of

    def failing(rows: Any, span: slice, *rest: Any) -> Any:
        computed.append(span.start)
        if len(computed) == 2:
            raise KeyboardInterrupt
        return original(rows, span, *rest)

    monkeypatch.setattr(stage, "batches_of", failing)
    with pytest.raises(KeyboardInterrupt):
        evaluate(store, dataset, values, rows, draws=100, threads=2)
    parts = evaluate(store, dataset, values, rows, draws=100, threads=2)
    assert computed == [0, 5, 5, 10]
    for column, expected in scores(whole).items():
        found = scores(parts)[column]
        for (value, status), (other, same) in zip(found, expected, strict=True):
            assert status == same
            # Passes of other sizes round otherwise.
            assert value == (None if other is None else pytest.approx(other, rel=1e-5, abs=1e-6)), column


def test_boxes_stand_in_for_segmentation_where_asked(
    store: Store, dataset: Artifact, rows: list[tuple[str, int]]
) -> None:
    values = distinct_values(COUNT, SIDE)
    by_pixels = scores(
        evaluate(store, dataset, values, rows, metrics=["roc_auc"], ground_truth={"roc_auc": "segmentation"})
    )
    by_boxes = scores(evaluate(store, dataset, values, rows, metrics=["roc_auc"], ground_truth={"roc_auc": "boxes"}))
    # Objects are rectangles: both agree but for the image with a void pixel.
    assert by_pixels["roc_auc", ""][1:] == by_boxes["roc_auc", ""][1:]
    assert by_pixels["roc_auc", ""][0] != by_boxes["roc_auc", ""][0]


@pytest.mark.parametrize(
    ("metric", "ground_truth", "message"),
    [
        ("max_box_acc", "boxes", "max_box_acc needs boxes, and data set 'toy' has none"),
        ("pointing_game", "auto", "needs boxes or segmentation, and data set 'toy' has neither"),
        ("roc_auc", "segmentation", "roc_auc needs segmentation, and data set 'toy' has none"),
    ],
)
def test_data_sets_without_the_ground_truth_are_refused(
    store: Store, rows: list[tuple[str, int]], metric: str, ground_truth: str, message: str
) -> None:
    plain, asked = toy_dataset(store), {metric: ground_truth}
    with pytest.raises(DataError, match=message):
        evaluate(store, plain, distinct_values(COUNT, SIDE), rows, metrics=[metric], ground_truth=asked)


def test_complexity_needs_no_ground_truth(store: Store, rows: list[tuple[str, int]]) -> None:
    plain = toy_dataset(store)
    metrics = ["entropy_complexity", "gini_sparseness", "effective_complexity"]
    found = scores(evaluate(store, plain, distinct_values(COUNT, SIDE), rows, metrics=metrics))
    assert {status for column in found.values() for _, status in column} == {"ok"}
