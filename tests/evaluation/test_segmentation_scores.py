"""Scores of a mask against a segmentation: NN-Explainer's numbers, its pseudo-methods, scikit-learn's AUC."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from torch import Tensor

from roarline.evaluation import segmentation_scores as scores
from roarline.evaluation.segmentation_scores import Segmented
from tests.golden_cases import case

SCORES: dict[str, Callable[[Segmented], Tensor]] = {
    "d_f1_25": lambda pair: scores.f1_curve(pair, [0.25])[:, 0],
    "d_f1_50": lambda pair: scores.f1_curve(pair, [0.5])[:, 0],
    "d_f1_75": lambda pair: scores.f1_curve(pair, [0.75])[:, 0],
    "c_f1": scores.soft_f1,
    "acc": scores.soft_accuracy,
    "auc": scores.roc_auc,
    "c_IOU": scores.continuous_iou,
    "over": scores.overlap,
    "background_c": scores.background_coverage,
    "mask_c": scores.object_coverage,
    "sr": scores.similarity_ratio,
}


@pytest.fixture
def pairs() -> list[Segmented]:
    """For each mask, that mask with every ground truth of the case."""
    arrays, _ = case("s0_seg_metrics")
    truths = torch.from_numpy(arrays["in_gts"])
    return [Segmented(mask.expand_as(truths), truths) for mask in torch.from_numpy(arrays["in_masks"])]


def test_every_score_of_the_original_code(pairs: list[Segmented]) -> None:
    arrays, params = case("s0_seg_metrics")
    for mask, pair in enumerate(pairs):
        for metric, name in enumerate(params["metrics"]):
            expected = arrays["out_table"][mask, :, metric]  # NaN: one class only
            np.testing.assert_allclose(SCORES[name](pair), expected, rtol=1e-7, atol=1e-12, err_msg=f"{name} {mask}")


def test_curves_of_the_original_code(pairs: list[Segmented]) -> None:
    arrays, params = case("s0_seg_metrics")
    np.testing.assert_array_equal(scores.CURVE_THRESHOLDS, np.arange(0.1, 1, 0.1))
    np.testing.assert_allclose(params["thresholds"], scores.CURVE_THRESHOLDS)
    for mask, pair in enumerate(pairs):
        np.testing.assert_allclose(scores.f1_curve(pair), arrays["out_f1s"][mask], rtol=1e-7)
        np.testing.assert_allclose(scores.iou_curve(pair), arrays["out_IOUs"][mask], rtol=1e-7)
        expected = arrays["out_table"][mask, :, :3].mean(axis=1)
        np.testing.assert_allclose(scores.mean_f1(pair), expected, rtol=1e-7, atol=1e-15)


def test_saliency_and_probabilities_of_the_original_code() -> None:
    arrays, params = case("s0_seg_metrics")
    probabilities = torch.from_numpy(arrays["in_p"])
    masks = torch.from_numpy(arrays["in_masks"])
    for column, categories in enumerate(params["categories"]):
        listed = categories if isinstance(categories, list) else [categories]
        found = scores.saliency(masks, probabilities[listed].sum().expand(len(masks)))
        np.testing.assert_allclose(found, arrays["out_saliency"][:, column], rtol=1e-7)
    assert scores.probability_sparsity(probabilities[None]).item() == pytest.approx(arrays["out_prob_sparsity"])
    assert scores.probability_entropy(probabilities[None]).item() == pytest.approx(arrays["out_prob_entropy"])


@pytest.fixture
def truth() -> Tensor:
    """[1, 20, 20], an object of a quarter of the image."""
    truth = torch.zeros(1, 20, 20)
    truth[:, 5:15, 5:15] = 1
    return truth


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        ("perfect", {"f1": 1, "c_f1": 1, "acc": 1, "auc": 1, "c_IOU": 1, "background_c": 0, "mask_c": 1, "sr": 1}),
        ("1", {"c_f1": 0.5 / 1.25, "acc": 0.25, "auc": 0.5, "c_IOU": 0.25, "background_c": 1, "mask_c": 1}),
        ("0", {"f1": 0, "c_f1": 0, "acc": 0.75, "auc": 0.5, "c_IOU": 0, "background_c": 0, "mask_c": 0, "sr": 0}),
        ("0.5", {"d_f1_25": 0.4, "d_f1_50": 0, "d_f1_75": 0, "acc": 0.5, "background_c": 0.5, "mask_c": 0.5}),
    ],
)  # fmt: skip
def test_pseudo_methods(truth: Tensor, mask: str, expected: dict[str, float]) -> None:
    pair = Segmented(truth.clone() if mask == "perfect" else torch.full_like(truth, float(mask)), truth)
    for name, value in expected.items():
        found = scores.mean_f1(pair) if name == "f1" else SCORES[name](pair)
        # The published scores add 1e-10 to denominators of 100 and more.
        assert found.item() == pytest.approx(value, abs=1e-9), name


@given(st.integers(0, 2**20), st.sampled_from([2, 5, 1000]))
def test_auc_as_scikit_learn(seed: int, values: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    masks = torch.randint(0, values, (3, 6, 7), generator=generator) / values
    truths = (torch.rand(3, 6, 7, generator=generator) < 0.4).float()
    truths[:, 0, 0], truths[:, 0, 1] = 1, 0
    found = scores.roc_auc(Segmented(masks, truths))
    expected = [roc_auc_score(t.ravel(), m.ravel()) for m, t in zip(masks.numpy(), truths.numpy(), strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("variant", ["raw", "norm", "normabs"])
def test_auc_as_quantus(variant: str) -> None:
    arrays, _ = case("q_localisation_complexity")
    maps, truths = (torch.from_numpy(arrays[name])[:, 0] for name in ("in_a", "in_s"))
    maps = maps.abs() if variant == "normabs" else maps
    found = scores.roc_auc(Segmented(maps, truths.float()))
    # Where Quantus divides by the largest magnitude, two float32 values may become equal: half a pair of 576 · 576 / 4.
    np.testing.assert_allclose(found, arrays[f"out_auc_{variant}"], atol=1e-12 if variant == "raw" else 1e-5)


@given(st.integers(0, 2**20))
def test_voc_border_is_no_object_and_no_background(seed: int) -> None:
    """NN-Explainer counts VOC's void border as object."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.rand(2, 8, 8, generator=generator)
    truths = (torch.rand(2, 8, 8, generator=generator) < 0.5).float()
    valid = torch.rand(2, 8, 8, generator=generator) < 0.7
    valid[:, 0, :2] = True
    truths[:, 0, 0], truths[:, 0, 1] = 1, 0
    for name, score in SCORES.items():
        found = score(Segmented(masks, truths, valid))
        changed = Segmented(masks.where(valid, 1 - masks), truths.where(valid, 1 - truths), valid)
        torch.testing.assert_close(score(changed), found, msg=name)
        cut = Segmented(masks[:1, :1][valid[:1, :1]][None, None], truths[:1, :1][valid[:1, :1]][None, None])
        torch.testing.assert_close(score(cut), score(Segmented(masks[:1, :1], truths[:1, :1], valid[:1, :1])), msg=name)


def test_rows_do_not_depend_on_one_another() -> None:
    generator = torch.Generator().manual_seed(0)
    masks, truths = torch.rand(5, 9, 9, generator=generator), torch.rand(5, 9, 9, generator=generator).round()
    for score in SCORES.values():
        together = score(Segmented(masks, truths))
        torch.testing.assert_close(score(Segmented(masks[3:4], truths[3:4])), together[3:4])
