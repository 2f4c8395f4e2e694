"""Losses of a masker: the original's values and gradients, what mathematics says of each term, the ancestor's loss."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from roarline.training.masker_losses import (
    area_gap,
    border_variation,
    classification_objective,
    correct_beyond_prior,
    entropy_objective,
    is_correct,
    mask_in_area,
    mask_out_area,
    prior_divergence,
    prior_of,
)
from tests.golden_cases import case

# float64, but for sums of 50,176 pixels in another order
EXACT = {"rtol": 1e-7, "atol": 1e-9}
# the case keeps this gradient in float32
ROUNDED = {"rtol": 2e-7, "atol": 1e-10}
CRITERION, CRITERION_PARAMS = case("s3_masker_criterion")
PRIOR, PRIOR_PARAMS = case("s3_masker_prior_criterion")


def inputs(arrays):
    """Mask cells and masked logits, both differentiable; clean logits, labels."""
    names = ("in_mask56", "in_y_hat_masked", "in_y_hat", "in_y")
    mask, masked, clean, labels = (torch.from_numpy(arrays[name]) for name in names)
    return mask.requires_grad_(), masked.requires_grad_(), clean, labels


@pytest.mark.parametrize("number", range(len(CRITERION_PARAMS["configs"])))
def test_equals_the_original_criterion(number):
    config = CRITERION_PARAMS["configs"][number]
    mask56, masked, clean, labels = inputs(CRITERION)
    masks = F.interpolate(mask56, scale_factor=4)[:, 0]
    areas = masks.mean(dim=(1, 2))
    if config["prob_loss_func"]:
        areas = area_gap(areas, torch.from_numpy(CRITERION["in_use_p"]), config["prob_loss_func"])
    clean_right, masked_right = is_correct(clean, labels), is_correct(masked, labels)
    direction = config["objective_direction"]
    if config["objective_type"] == "classification":
        objective = classification_objective(masked, labels, direction)
    else:
        objective = entropy_objective(masked, clean_right, direction)
    inside = config["mask_reg_mode"] == "mask_in"
    area = mask_in_area(areas, masked_right) if inside else mask_out_area(areas, clean_right, masked_right)
    variation = (config["lambda_tv"] or 0) * border_variation(masks)
    loss = objective + config["lambda_r"] * area + variation
    found = dict(zip(CRITERION_PARAMS["metadata"], CRITERION["out_metadata"][number].tolist(), strict=True))
    assert clean_right.double().mean().item() == pytest.approx(found["correct_on_clean"])
    assert objective.item() == pytest.approx(found["loss"], rel=1e-7)
    assert config["lambda_r"] * area.item() == pytest.approx(found["mask_reg"], rel=1e-7)
    assert variation.item() == pytest.approx(found["tv_reg"], rel=1e-7)
    assert loss.item() == pytest.approx(CRITERION["out_loss"][number], rel=1e-7)
    of_mask, of_logits = torch.autograd.grad(loss, [mask56, masked])
    torch.testing.assert_close(of_mask.float(), torch.from_numpy(CRITERION["out_grad_mask56"][number]), **ROUNDED)
    torch.testing.assert_close(of_logits, torch.from_numpy(CRITERION["out_grad_y_hat_masked"][number]), **EXACT)


@pytest.mark.parametrize("number", range(len(PRIOR_PARAMS["configs"])))
def test_equals_the_original_criterion_with_a_prior(number):
    config, weight = PRIOR_PARAMS["configs"][number], PRIOR_PARAMS["lambda_r"]
    mask56, masked, clean, labels = inputs(PRIOR)
    areas = mask56.mean(dim=(1, 2, 3))
    class_weights = torch.tensor(PRIOR_PARAMS["class_weights"], dtype=torch.float32).double()  # the original's rounding
    prior = prior_of(class_weights)
    clean_right, masked_right = (correct_beyond_prior(of, labels, prior, config["prior"]) for of in (clean, masked))
    weights = class_weights[labels] if config["apply_class_weight"] else torch.ones(len(labels), dtype=torch.float64)
    counted = weights * clean_right if config["loss_on_coc"] else weights
    objective = prior_divergence(masked, prior, config["kl"], counted)
    always = config.get("regularize_always", False)
    area = (areas * weights).mean() if always else mask_out_area(areas, clean_right, masked_right, weights)
    area = weight * area
    expected = PRIOR["out_loss"][number]
    assert [(objective + area).item(), objective.item(), area.item()] == pytest.approx(expected.tolist(), rel=1e-6)
    of_mask, of_logits = torch.autograd.grad(objective + area, [mask56, masked])
    torch.testing.assert_close(
        of_mask.sum(dim=(1, 2, 3)), torch.from_numpy(PRIOR["out_grad_mask56_sum"][number]), rtol=1e-6, atol=1e-9
    )
    torch.testing.assert_close(
        of_logits, torch.from_numpy(PRIOR["out_grad_y_hat_masked"][number]), rtol=1e-6, atol=1e-9
    )


def test_the_ancestors_loss_is_the_masked_out_side_alone():
    # CASM: -mean K · H(out) - 10 · mean relu(nontrivially confused - area), or -CE(out) where it is adversarial
    mask56, masked, clean, labels = (value.detach() for value in inputs(CRITERION))
    p = masked.softmax(dim=1)
    right, areas = clean.argmax(1) == labels, mask56.mean(dim=(1, 2, 3))
    confused = right & (masked.argmax(1) != labels)
    entropy = sum(-(p[i] * p[i].log()).sum() for i in range(len(p)) if right[i]) / len(p)
    reward = sum(max(float(confused[i]) - areas[i].item(), 0.0) for i in range(len(p))) / len(p)
    area = mask_out_area(areas, right, is_correct(masked, labels))
    assert (entropy_objective(masked, right) + 10 * area).item() == pytest.approx(-entropy.item() - 10 * reward)
    cross_entropy = sum(-p[i, labels[i]].log() for i in range(len(p))) / len(p)
    assert classification_objective(masked, labels, "minimize").item() == pytest.approx(-cross_entropy.item())


def test_an_undecided_answer_has_the_entropy_of_all_classes():
    logits = torch.zeros(4, 8)
    right = torch.tensor([True, True, True, False])
    assert entropy_objective(logits, right).item() == pytest.approx(-3 / 4 * math.log(8))  # the wrong one still divides
    assert entropy_objective(logits, right, "minimize").item() == pytest.approx(3 / 4 * math.log(8))


def test_certain_answers_have_no_entropy_and_finite_gradients():
    logits = torch.tensor([[200.0, -200.0, -200.0]], requires_grad=True)
    value = entropy_objective(logits, torch.tensor([True]))
    value.backward()
    assert value.item() == 0
    assert torch.isfinite(logits.grad).all()


@given(
    areas=st.lists(st.floats(0, 1), min_size=1, max_size=6),
    bits=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=6, max_size=6),
)
def test_a_smaller_mask_is_rewarded_only_where_the_game_is_won(areas, bits):
    values = torch.tensor(areas, dtype=torch.float64, requires_grad=True)
    clean, masked = (torch.tensor([bit[side] for bit in bits[: len(areas)]]) for side in range(2))
    reward = mask_out_area(values, clean, masked)
    won = clean & ~masked
    expected = -sum((1 - area) for area, one in zip(areas, won.tolist(), strict=True) if one) / len(areas)
    assert reward.item() == pytest.approx(expected, abs=1e-12)
    reward.backward()
    inside = won & (values.detach() < 1)  # at area 1 the slope is relu's at 0
    assert torch.equal(values.grad[inside], torch.full((int(inside.sum()),), 1 / len(areas), dtype=torch.float64))
    assert not values.grad[~won].any()


def test_b3_13_a_batch_of_one_is_a_batch():
    logits, labels, right = torch.randn(1, 5), torch.tensor([2]), torch.tensor([True])
    areas = torch.tensor([0.25])
    for value in (
        classification_objective(logits, labels),
        entropy_objective(logits, right),
        mask_in_area(areas, right),
        mask_out_area(areas, right, ~right),
        border_variation(torch.rand(1, 4, 4)),
        prior_divergence(logits, torch.full((5,), 0.2), "forward", torch.ones(1)),
    ):
        assert value.ndim == 0
        assert torch.isfinite(value)
    assert is_correct(logits, labels).shape == (1,)


def test_variation_of_one_pixel():
    masks = torch.zeros(2, 5, 5)
    masks[0, 2, 2] = 1.0  # four neighbours differ by 1, no border
    assert border_variation(masks).item() == pytest.approx(4 / (2 * 2))
    masks = torch.zeros(1, 5, 5)
    masks[0, 0, 0] = 1.0  # two neighbours, and a corner belongs to two sides
    assert border_variation(masks).item() == pytest.approx((2 + 0.3 * 2) / 2)
    assert border_variation(torch.ones(1, 4, 6)).item() == pytest.approx(0.3 * (2 * 4 + 2 * 6) / 2)


@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=5))
def test_a_divergence_is_least_at_the_prior(weights):
    prior = prior_of(torch.tensor(weights, dtype=torch.float64))
    assert prior.sum().item() == pytest.approx(1)
    one = torch.ones(1, dtype=torch.float64)
    at_prior = prior.log()[None].requires_grad_()
    assert prior_divergence(at_prior, prior, "backward", one).item() == pytest.approx(0, abs=1e-12)
    entropy = -(prior * prior.log()).sum().item()
    assert prior_divergence(at_prior, prior, "forward", one).item() == pytest.approx(entropy)
    for form in ("forward", "backward"):
        (gradient,) = torch.autograd.grad(prior_divergence(at_prior, prior, form, one), at_prior)
        assert gradient.abs().max() < 1e-12
        moved = at_prior.detach() + torch.tensor([[1.0] + [0.0] * (len(weights) - 1)], dtype=torch.float64)
        assert prior_divergence(moved, prior, form, one) > prior_divergence(at_prior, prior, form, one)


def test_a_rare_class_is_right_where_it_beats_its_prior():
    prior = torch.tensor([0.9, 0.1])
    logits = torch.tensor([[0.7, 0.3]]).log()
    labels = torch.tensor([1])
    assert not is_correct(logits, labels).item()
    assert correct_beyond_prior(logits, labels, prior, "subtract").item()
    assert correct_beyond_prior(logits, labels, prior, "divide").item()


def test_gaps_from_a_wished_area():
    areas, wished = torch.tensor([0.5, 0.2]), torch.tensor([0.25, 0.5])
    torch.testing.assert_close(area_gap(areas, wished, "l1"), torch.tensor([0.25, 0.3]))
    torch.testing.assert_close(area_gap(areas, wished, "l2"), torch.tensor([0.0625, 0.09]))
