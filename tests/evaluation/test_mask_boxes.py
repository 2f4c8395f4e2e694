"""Masks and boxes: the numbers of saliency_investigation and casme, corrected and as published."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch import Tensor

from roarline.evaluation.mask_boxes import (
    binarised,
    box_saliency,
    box_scores,
    largest_part,
    mask_entropy,
    mask_total_variation,
)
from roarline.evaluation.statistics_of_means import standard_deviation
from roarline.imaging.crops import enlarged_crops
from tests.golden_cases import case, unpacked
from tests.golden_recipes import tiny_net

CASME = 0


def enlarged(masks: np.ndarray, times: int) -> Tensor:
    """Every pixel repeated along both sides."""
    return torch.from_numpy(masks.repeat(times, axis=-1).repeat(times, axis=-2))


@pytest.fixture
def scored() -> tuple[Tensor, dict[str, np.ndarray], dict[str, float]]:
    """Masks [6, 224, 224], the case, and its table's row for masks."""
    arrays, params = case("s3_score_bboxes")
    table = dict(zip(params["keys"], arrays["out_table"][params["modes"].index("casme")], strict=True))
    return enlarged(arrays["in_mask56"][:, 0], 4), arrays, table


def published_parts(masks: Tensor) -> np.ndarray:
    """Half-open boxes of the largest parts, without their last row and column."""
    parts = np.stack([largest_part(mask) for mask in binarised(masks).numpy()])
    return parts - np.array([0, 0, 1, 1])


def test_binarised_masks_and_their_boxes(scored: tuple[Tensor, dict[str, np.ndarray], dict[str, float]]) -> None:
    masks, arrays, table = scored
    inside = binarised(masks)
    np.testing.assert_array_equal(inside.numpy(), unpacked(arrays["out_binarized"], 6, 224, 224))
    np.testing.assert_array_equal(published_parts(masks)[:, [0, 2, 1, 3]], arrays["out_rect_boxes"])
    assert inside.float().mean().item() == pytest.approx(table["binarized"], rel=1e-6)


def test_f1_localization_and_classification_as_published(
    scored: tuple[Tensor, dict[str, np.ndarray], dict[str, float]],
) -> None:
    masks, arrays, table = scored
    f1, f1_mean, missed, missed_or_wrong = [], [], [], []
    for image, mask in enumerate(masks.numpy()):
        boxes = arrays["in_gt_boxes"][arrays["in_gt_boxes"][:, 0] == image, 1:]
        found = box_scores(mask, largest_part(binarised(masks)[image].numpy()), boxes, "original")
        expected = arrays["out_loc_scores"][arrays["out_loc_scores"][:, 0] == image]
        np.testing.assert_allclose(found.f1, expected[:, 2], atol=1e-6)  # sums of float32 there
        np.testing.assert_array_equal(found.iou > 0.5, expected[:, 3])
        f1.append(found.f1.max())
        f1_mean.append(found.f1.mean())
        missed.append(found.localization_error)
        missed_or_wrong.append(1 - (1 - found.localization_error) * arrays["out_is_correct"][image])
    for name, values in (("F1", f1), ("F1a", f1_mean), ("LE", missed), ("OM", missed_or_wrong)):
        assert np.mean(values) == pytest.approx(table[name], abs=1e-6), name


def test_statistics_of_masks_as_published(scored: tuple[Tensor, dict[str, np.ndarray], dict[str, float]]) -> None:
    masks, _, table = scored
    assert masks.mean().item() == pytest.approx(table["avg_mask"], rel=1e-6)
    assert mask_entropy(masks).mean().item() == pytest.approx(table["entropy"], rel=1e-5)
    assert mask_total_variation(masks).mean().item() == pytest.approx(table["tv"], rel=1e-5)


def test_saliency_metric_as_published(scored: tuple[Tensor, dict[str, np.ndarray], dict[str, float]]) -> None:
    masks, arrays, table = scored
    images = enlarged(arrays["in_image_low"], 8)
    boxes = torch.from_numpy(published_parts(masks))
    crops = enlarged_crops(images, boxes)
    # The crop is bicubic in OpenCV's fixed-point weights' neighbourhood, of values up to 2.6.
    np.testing.assert_allclose(crops[0, :, ::8, ::8].permute(1, 2, 0), arrays["out_crop0_8"], atol=1e-3)
    targets = torch.from_numpy(arrays["in_target"])
    with torch.no_grad():
        logs = tiny_net(arrays)(crops).log_softmax(dim=1)[torch.arange(6), targets]
    area, confidence = box_saliency(boxes, logs, (224, 224))
    np.testing.assert_allclose(area, arrays["out_sm1"], rtol=1e-5)
    np.testing.assert_allclose(confidence, arrays["out_sm2"], atol=2e-3)
    np.testing.assert_allclose(area - confidence, arrays["out_sm"], atol=2e-3)
    assert (area - confidence).mean().item() == pytest.approx(table["SM"], abs=2e-3)


def test_an_empty_box_shows_nothing_and_counts_as_the_least_area() -> None:
    empty = torch.zeros(1, 4, dtype=torch.int64)
    assert not enlarged_crops(torch.ones(1, 3, 8, 8), empty).any()
    assert box_saliency(empty, torch.zeros(1), (8, 8))[0].item() == pytest.approx(np.log(0.05))


def test_binarising_by_area_as_casme() -> None:
    arrays, _ = case("s3_casm_binarise")
    masks = enlarged(arrays["in_mask56"][:, 0], 4)
    inside = binarised(masks, "area")
    np.testing.assert_array_equal(inside.numpy(), unpacked(arrays["out_binarized"], 6, 224, 224))
    for part, expected in zip(inside.numpy(), unpacked(arrays["out_rect"], 6, 224, 224), strict=True):
        if part.any():  # without a part, casme takes the whole image
            x0, y0, x1, y1 = largest_part(part)
            rectangle = np.zeros_like(expected)
            rectangle[y0:y1, x0:x1] = True
            np.testing.assert_array_equal(rectangle, expected)


@settings(max_examples=50)
@given(st.integers(0, 2**30))
def test_largest_part_by_labelling(seed: int) -> None:
    inside = np.random.default_rng(seed).random((9, 11)) < 0.5
    x0, y0, x1, y1 = largest_part(inside)
    labels, _ = ndimage.label(inside)
    within = labels[y0:y1, x0:x1]
    assert np.bincount(within[within > 0]).max() == np.bincount(labels[labels > 0]).max()


@pytest.mark.parametrize(("mode", "value"), [("max", 1.0), ("min", 0.0)])
def test_constant_masks_as_the_modes_max_and_min(
    scored: tuple[Tensor, dict[str, np.ndarray], dict[str, float]], mode: str, value: float
) -> None:
    """There the original sets what is in by hand: all of a mask of ones, nothing of a mask of zeros."""
    _, arrays, _ = scored
    _, params = case("s3_score_bboxes")
    expected = dict(zip(params["keys"], arrays["out_table"][params["modes"].index(mode)], strict=True))
    masks = torch.full((6, 224, 224), value)
    inside = binarised(masks)
    assert inside.double().mean().item() == expected["binarized"]
    parts = np.stack([largest_part(one) for one in inside.numpy()])
    area, _ = box_saliency(torch.from_numpy(parts), torch.zeros(6), (224, 224))
    assert area.mean().item() == pytest.approx(expected["SM1"], abs=1e-6)
    found = []
    for image in range(6):
        boxes = arrays["in_gt_boxes"][arrays["in_gt_boxes"][:, 0] == image, 1:]
        found.append(box_scores(masks[image].numpy(), parts[image], boxes, "original"))
    assert np.mean([one.f1.max() for one in found]) == pytest.approx(expected["F1"], abs=1e-6)
    assert np.mean([one.localization_error for one in found]) == expected["LE"]


@pytest.mark.parametrize("threshold", ["mean", "area"])
def test_constant_masks(threshold: Literal["mean", "area"]) -> None:
    masks = torch.tensor([1.0, 0.3, 0.0])[:, None, None].expand(3, 4, 5)
    assert binarised(masks, threshold).flatten(1).all(dim=1).tolist() == [True, True, False]
    assert not binarised(masks, threshold)[2].any()
    assert not binarised(masks, threshold, "original").any()  # the published rule on its own: above the mean


def test_a_perfect_mask_is_best() -> None:
    mask = np.zeros((20, 20), dtype=np.float32)
    mask[3:9, 5:16] = 1
    box = np.array([[5, 3, 16, 9]])
    part = largest_part(binarised(torch.from_numpy(mask)[None])[0].numpy())
    found = box_scores(mask, part, box)
    assert found.iou[0] == 1
    assert found.localization_error == 0
    assert found.f1[0] == pytest.approx(1, abs=2e-6)  # published denominators have 1e-6 more
    assert largest_part(binarised(torch.zeros(1, 4, 4))[0].numpy()).tolist() == [0, 0, 0, 0]


def test_corrected_boxes_are_cut_at_the_image_and_keep_their_last_row() -> None:
    mask = np.ones((10, 10), dtype=np.float32)
    outside = np.array([[-10, 0, 10, 10]])
    whole = np.array([0, 0, 10, 10])
    assert box_scores(mask, whole, outside).iou[0] == 1
    assert box_scores(mask, whole, outside, "original").iou[0] == pytest.approx(81 / (81 + 200 - 81))


def test_standard_deviation_of_means() -> None:
    values = np.random.default_rng(0).random(40)
    features = torch.from_numpy(np.stack([values, values**2], axis=1))
    assert standard_deviation(features.mean(dim=0)).item() == pytest.approx(values.std())
