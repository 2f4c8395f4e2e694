"""Losses of explainers: what NN-Explainer's code gives for the same arrays, and what mathematics says."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from roarline.imaging.mask_aggregation import aggregate_masks
from roarline.imaging.total_variation import reflected_total_variation
from roarline.training.explainer_losses import (
    area_bound,
    class_area_bound,
    classification_loss,
    destruction_loss,
    disagreement,
    multi_hot,
    negative_entropy,
    preservation_loss,
)
from tests.golden_cases import case
from tests.golden_recipes import tiny_net

ROUNDING = {"rtol": 1e-7, "atol": 1e-13}
"""float64 sums in another order; atol: the original's clamp of p at 1e-16 is worth up to 4e-15 a class."""
STORED = {"rtol": 1e-6, "atol": 1e-9}
"""Golden gradients are stored as float32."""


def same(actual, expected, tolerance=ROUNDING):
    torch.testing.assert_close(actual.detach(), torch.as_tensor(expected).to(actual.dtype), **tolerance)


class TestEntropy:
    def test_equals_nn_explainers(self):
        arrays, _ = case("s0_masks_tv_entropy")
        logits = torch.from_numpy(arrays["in_logits"])
        same(negative_entropy(logits), arrays["out_entropy_loss"])
        same(torch.stack([negative_entropy(row[None]) for row in logits]), arrays["out_entropy_loss_row"])

    @pytest.mark.parametrize(("classes", "about"), [(20, -0.150), (91, -0.0496)])
    def test_is_lowest_for_equal_logits(self, classes, about):
        lowest = negative_entropy(torch.full((3, classes), -7.0, dtype=torch.float64))
        assert lowest.item() == pytest.approx(-math.log(classes) / classes)
        assert lowest.item() == pytest.approx(about, abs=5e-4)  # as the specification states it

    def test_is_0_where_one_class_is_certain(self):
        certain = torch.tensor([[200.0, 0, 0]])
        assert negative_entropy(certain).item() == pytest.approx(0, abs=1e-12)


class TestAreaBound:
    @pytest.mark.parametrize("tag", ["ab", "a0", "b1", "eq"])
    def test_equals_nn_explainers(self, tag):
        arrays, params = case("s0_area_loss")
        logits, labels = torch.from_numpy(arrays["in_seg_logits"]), torch.from_numpy(arrays["in_targets"])
        logits.requires_grad_()
        loss = class_area_bound(logits.sigmoid(), labels, *params[tag], over_classes="sum")
        same(loss, arrays[f"out_class_area_{tag}"])
        loss.backward()
        same(logits.grad, arrays[f"out_class_area_grad_{tag}"], STORED)
        same(area_bound(logits[:, 0].sigmoid(), *params[tag]).mean(), arrays[f"out_mask_area_{tag}"])

    def test_mean_counts_an_image_of_many_classes_once(self):
        arrays, params = case("s0_area_loss")
        masks, labels = torch.from_numpy(arrays["in_seg_logits"]).sigmoid(), torch.from_numpy(arrays["in_targets"])
        each = [area_bound(masks[row, labels[row] > 0], *params["ab"]) for row in range(len(labels))]
        same(class_area_bound(masks, labels, *params["ab"]), torch.stack([costs.mean() for costs in each]).mean())
        summed = class_area_bound(masks, labels, *params["ab"], over_classes="sum")
        same(summed, torch.stack([costs.sum() for costs in each]).mean())

    def test_is_the_same_when_only_so_many_masks_are_sorted(self):
        arrays, params = case("s0_area_loss")
        masks, labels = torch.from_numpy(arrays["in_seg_logits"]).sigmoid(), torch.from_numpy(arrays["in_targets"])
        most = int(labels.sum(dim=1).max())
        assert most < labels.shape[1]
        few = class_area_bound(masks, labels, *params["ab"], most_labels=most)
        same(few, class_area_bound(masks, labels, *params["ab"]))

    @given(st.integers(0, 100), st.floats(0, 0.5), st.floats(0.5, 1))
    def test_of_a_binary_mask_is_its_distance_from_the_bounds(self, ones, smallest, largest):
        mask = torch.zeros(100, dtype=torch.float64)
        mask[:ones] = 1
        low, high = math.floor(smallest * 100 + 1e-9), math.floor(largest * 100 + 1e-9)
        expected = (max(0, low - ones) + max(0, ones - high)) / 100
        assert area_bound(mask.reshape(1, 10, 10), smallest, largest).item() == pytest.approx(expected, abs=1e-12)

    def test_of_an_image_without_a_label_is_0(self):
        assert class_area_bound(torch.rand(1, 3, 4, 4), torch.zeros(1, 3), 0.05, 0.3).item() == 0


@pytest.mark.parametrize("size", [56, 224])
def test_the_sum_of_all_terms_equals_nn_explainers_training_step(size):
    arrays, params = case(f"s0_total_loss_{size}")
    classifier, labels = tiny_net(arrays), torch.from_numpy(arrays["in_targets"])
    images = torch.from_numpy(arrays["in_image"]).double()
    images = images.repeat_interleave(size // images.shape[-1], 2).repeat_interleave(size // images.shape[-1], 3)
    for index, config in enumerate(params["configs"]):
        settings = {**params["defaults"], **config}
        low = torch.from_numpy(arrays["in_seg_low"]).double().requires_grad_()
        logits = F.interpolate(low, size=(size, size), mode="bilinear", align_corners=False)
        target, others = aggregate_masks(logits, labels)
        on_masked = classifier(target[:, None] * images)
        on_rest = classifier((1 - target[:, None]) * images)
        same(on_masked, arrays["out_logits_masked"], {"rtol": 1e-6, "atol": 1e-8})
        bounds = (settings["class_mask_min_area"], settings["class_mask_max_area"])
        terms = [
            classification_loss(on_masked, labels),
            negative_entropy(on_rest),
            reflected_total_variation(target),
            reflected_total_variation(others),
            class_area_bound(logits.sigmoid(), labels, *bounds, over_classes="sum"),
            target.mean(),
            others.mean(),
        ]
        same(torch.stack(terms), arrays["out_terms"][index], {"rtol": 1e-6, "atol": 1e-9})
        rough = settings["mask_variation_regularizer"] * settings["use_mask_variation_loss"]
        area = float(settings["use_mask_area_loss"])
        weights = [
            1.0,
            settings["entropy_regularizer"],
            rough,
            rough,
            settings["mask_area_constraint_regularizer"] * area,
            settings["mask_total_area_regularizer"] * area,
            settings["ncmask_total_area_regularizer"] * area,
        ]
        total = sum(weight * term for weight, term in zip(weights, terms, strict=True))
        same(total, arrays["out_total_loss"][index], {"rtol": 1e-6, "atol": 1e-9})
        total.backward()
        same(low.grad, arrays["out_grad_seg_low"][index], {"rtol": 1e-4, "atol": 1e-9})


@pytest.mark.parametrize("kind", ["blur", "color"])
def test_real_time_saliencys_terms_equal_nn_explainers(kind):
    arrays, params = case("s0_rtsal")
    classifier, labels = tiny_net(arrays), torch.from_numpy(arrays["in_targets"])
    images = torch.from_numpy(arrays["in_image"]).double()
    other = torch.from_numpy(arrays[f"in_alt_{kind}"]).double()
    low = torch.from_numpy(arrays["in_seg_low"]).double().requires_grad_()
    logits = F.interpolate(low, size=images.shape[-2:], mode="bilinear", align_corners=False)
    mask = aggregate_masks(logits, labels)[0]
    m = mask[:, None]
    preserved, destroyed = classifier(m * images + (1 - m) * other), classifier((1 - m) * images + m * other)
    rough, mean = reflected_total_variation(mask, 2.0), mask.mean()
    kept, left = preservation_loss(preserved, labels), destruction_loss(destroyed, labels, params["exponent"])
    same(torch.stack([rough, mean, kept]), arrays[f"out_{kind}_terms"][:3], {"rtol": 1e-6, "atol": 1e-9})
    same(left, arrays[f"out_{kind}_terms"][3] ** params["exponent"], {"rtol": 1e-6, "atol": 1e-9})
    weights = params["weights"]
    total = weights[0] * rough + weights[1] * mean + weights[2] * kept + weights[3] * left
    same(total, arrays[f"out_{kind}_total"], {"rtol": 1e-6, "atol": 1e-9})
    total.backward()
    same(low.grad, arrays[f"out_{kind}_grad"], {"rtol": 1e-4, "atol": 1e-8})


class TestOneLabel:
    def test_classification_is_cross_entropy(self):
        logits, labels = torch.tensor([[1.0, 3.0], [2.0, -1.0]]), torch.tensor([1, 1])
        expected = -torch.stack([logits[0].log_softmax(0)[1], logits[1].log_softmax(0)[1]]).mean()
        torch.testing.assert_close(classification_loss(logits, labels), expected)

    def test_real_time_saliency_takes_softmaxes(self):
        logits, labels = torch.tensor([[0.0, math.log(3)], [math.log(4), 0.0]]), torch.tensor([1, 0])
        assert preservation_loss(logits, labels).item() == pytest.approx(-(math.log(0.75) + math.log(0.8)) / 2)
        assert destruction_loss(logits, labels, 0.5).item() == pytest.approx(math.sqrt((0.75 + 0.8) / 2))

    def test_counts_as_one_hot(self):
        assert multi_hot(torch.tensor([2, 0]), 3).tolist() == [[0, 0, 1], [1, 0, 0]]


def test_certain_logits_give_finite_losses_and_gradients():
    logits = torch.tensor([[-500.0, 500.0]], requires_grad=True)
    labels = torch.tensor([[1.0, 0.0]])
    kept, left = preservation_loss(logits, labels), destruction_loss(logits, labels)
    assert kept.item() == pytest.approx(500)
    assert 0 <= left.item() < 1e-10
    (kept + left).backward()
    assert np.isfinite(logits.grad.numpy()).all()


def test_disagreement_is_the_mean_distance():
    assert disagreement(torch.tensor([1.0, -2.0]), torch.tensor([0.0, 2.0])).item() == 2.5
