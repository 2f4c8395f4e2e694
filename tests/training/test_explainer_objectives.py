"""Objectives of explainers: the published sums, a classifier that stays as it is, and that masks find what counts."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from roarline.config.explainer_params import (
    NnExplainerLosses,
    NnExplainerParams,
    RealTimeSaliencyLosses,
    SelfExplainerLosses,
)
from roarline.config.training import Optimizer, Training
from roarline.imaging.mask_aggregation import aggregate_masks
from roarline.imaging.total_variation import reflected_total_variation
from roarline.models.explainers import class_map_explainer
from roarline.training import explainer_objectives
from roarline.training.alternative_images import alternative_images
from roarline.training.batches import ResidentSplit
from roarline.training.explainer_losses import class_area_bound
from roarline.training.explainer_objectives import nn_explainer, real_time_saliency, self_explainer
from roarline.training.explainer_task import ExplainerTask
from roarline.training.loop import fit
from roarline.training.objectives import Batch
from tests.golden_cases import case
from tests.golden_recipes import tiny_net

SIDE = 16


def task(classes, *, multi_label=True, most_labels=None, size=(SIDE, SIDE), **training):
    return ExplainerTask(classes, multi_label, most_labels or classes, size, Training(**training), 0)


def batch(images, labels):
    return Batch(images, labels, torch.arange(len(images)), (0, "test"))


class FixedMaps(nn.Module):
    """Maps that don't look at the image."""

    def __init__(self, low, size):
        super().__init__()
        self.low, self.size = nn.Parameter(low), size

    def forward(self, images):
        return F.interpolate(self.low, size=(self.size, self.size), mode="bilinear", align_corners=False)


class Colours(nn.Module):
    """A classifier that knows what it sees: logit k says whether channel k is bright somewhere. It has all that
    training mode would change: dropout and batch norm."""

    def __init__(self):
        super().__init__()
        self.dropout, self.norm = nn.Dropout(0.5), nn.BatchNorm2d(3, affine=False)
        self.seen = []
        self.eval().requires_grad_(False)

    def forward(self, images):
        self.seen.append(self.training or self.dropout.training or self.norm.training)
        bright = F.avg_pool2d(self.dropout(self.norm(images)), 3, stride=1).clamp_min(0).amax(dim=(2, 3))
        return 12 * bright - 6


def coloured_squares(count, seed=0):
    """Dark noise with one 6 × 6 px square in the colour of each label; multi-hot labels and the squares' masks."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.1 * torch.randn(count, 3, SIDE, SIDE, generator=generator)
    labels, masks = torch.zeros(count, 3), torch.zeros(count, 3, SIDE, SIDE, dtype=torch.bool)
    for row in range(count):
        for colour in torch.randperm(3, generator=generator)[: 1 + row % 2].tolist():
            top, left = torch.randint(0, SIDE - 6, (2,), generator=generator).tolist()
            images[row, colour, top : top + 6, left : left + 6] = 1
            masks[row, colour, top : top + 6, left : left + 6] = True
            labels[row, colour] = 1
    return images, labels, masks


def light(classes=3, width=8, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return class_map_explainer(
            nn.Identity(), num_classes=classes, input_size=(SIDE, SIDE), backbone="light", width=width
        )


@pytest.mark.parametrize("size", [56, 224])
@pytest.mark.parametrize("index", range(4))
def test_nn_explainers_sum_is_the_originals(size, index):
    """1e-5: float32 here, float64 in the original."""
    arrays, params = case(f"s0_total_loss_{size}")
    settings = {**params["defaults"], **params["configs"][index]}
    variation, area = float(settings["use_mask_variation_loss"]), float(settings["use_mask_area_loss"])
    losses = NnExplainerLosses(
        entropy=settings["entropy_regularizer"],
        variation=variation * settings["mask_variation_regularizer"],
        area_bound=area * settings["mask_area_constraint_regularizer"],
        target_area=area * settings["mask_total_area_regularizer"],
        other_area=area * settings["ncmask_total_area_regularizer"],
        over_classes="sum",
    )
    images = torch.from_numpy(arrays["in_image"])
    images = F.interpolate(images, size=(size, size), mode="nearest")
    labels = torch.from_numpy(arrays["in_targets"]).float()
    network = FixedMaps(torch.from_numpy(arrays["in_seg_low"]), size)
    classifier = tiny_net(arrays).float().requires_grad_(False)
    objective = nn_explainer(network, classifier, task(20, most_labels=4), **losses.model_dump())
    terms = objective.losses(batch(images, labels))
    total = torch.stack(list(terms.values())).sum()
    assert total.item() == pytest.approx(float(arrays["out_total_loss"][index]), rel=1e-5)
    total.backward()
    expected = torch.from_numpy(arrays["out_grad_seg_low"][index]).float()
    torch.testing.assert_close(network.low.grad, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    assert ("variation" in terms) == bool(variation)
    assert ("area_bound" in terms) == bool(area)


@pytest.mark.parametrize("kind", ["blur", "color"])
def test_real_time_saliencys_sum_is_the_originals(kind):
    """1e-5: float32 here, float64 in the original."""
    arrays, params = case("s0_rtsal")
    size = arrays["in_image"].shape[-1]
    network = FixedMaps(torch.from_numpy(arrays["in_seg_low"]), size)
    classifier = tiny_net(arrays).float().requires_grad_(False)
    objective = real_time_saliency(
        network, classifier, task(20, size=(size, size)), **RealTimeSaliencyLosses().model_dump()
    )
    images, other = torch.from_numpy(arrays["in_image"]), torch.from_numpy(arrays[f"in_alt_{kind}"])
    terms, _ = objective.terms(images, torch.from_numpy(arrays["in_targets"]).float(), other)
    *linear, destroyed = arrays[f"out_{kind}_terms"].tolist()
    unweighted = [*linear, destroyed ** params["exponent"]]
    expected = [weight * term for weight, term in zip(params["weights"], unweighted, strict=True)]
    names = ("variation", "area", "preservation", "destruction")
    assert [terms[name].item() for name in names] == pytest.approx(expected, rel=1e-5)
    total = torch.stack(list(terms.values())).sum()
    assert total.item() == pytest.approx(float(arrays[f"out_{kind}_total"]), rel=1e-5)
    total.backward()
    gradient = torch.from_numpy(arrays[f"out_{kind}_grad"])
    torch.testing.assert_close(network.low.grad, gradient, rtol=1e-3, atol=1e-3 * float(gradient.abs().max()))


@pytest.mark.parametrize("compat", ["corrected", "original"])
def test_real_time_saliencys_compat_is_that_of_its_alternative_images(monkeypatch, compat):
    images, labels, _ = coloured_squares(6)
    losses = RealTimeSaliencyLosses(compat=compat).model_dump()
    objective = real_time_saliency(light(), Colours(), task(3), **losses)
    found = objective.losses(batch(images, labels))
    others = alternative_images(images, batch(images, labels).generator, compat)
    expected, _ = objective.terms(images, labels, others)
    assert {name: term.item() for name, term in found.items()} == {name: t.item() for name, t in expected.items()}
    asked = []
    monkeypatch.setattr(
        explainer_objectives, "alternative_images", lambda x, generator, how: asked.append(how) or torch.zeros_like(x)
    )
    objective.validate(ResidentSplit(images, labels))
    assert set(asked) == {compat}


def test_self_explainers_sum_by_hand():
    """Spec S0.7: both passes are classified, their masks are smooth and small, and they agree."""
    images, labels, _ = coloured_squares(5)
    network = light().eval()
    losses = SelfExplainerLosses(
        variation=0.7, area_bound=0.5, target_area=0.3, other_area=0.2, coherency=0.6, over_classes="sum"
    )
    terms = self_explainer(network, Colours(), task(3), **losses.model_dump()).losses(batch(images, labels))
    of_teacher = network(images)
    teacher, others = aggregate_masks(of_teacher, labels)
    of_student = network(teacher[:, None] * images)
    student, others_again = aggregate_masks(of_student, labels)
    known, again = of_teacher.mean((2, 3)), of_student.mean((2, 3))
    bounds = [
        class_area_bound(maps.sigmoid(), labels, 0.05, 0.3, over_classes="sum") for maps in (of_teacher, of_student)
    ]
    expected = {
        "classification": F.binary_cross_entropy_with_logits(known, labels),
        "student_classification": F.binary_cross_entropy_with_logits(again, labels),
        "logit_distance": (known - again).abs().mean(),
        "coherency": 0.6 * (teacher - student).abs().mean(),
        "variation": 0.7 * (reflected_total_variation(teacher) + reflected_total_variation(student)),
        "area_bound": 0.5 * (bounds[0] + bounds[1]),
        "target_area": 0.3 * (teacher.mean() + student.mean()),
        "other_area": 0.2 * (others.mean() + others_again.mean()),
    }
    assert list(terms) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, msg=name)
    assert terms["logit_distance"] > 0
    weights = list(network.parameters())
    (first,) = torch.autograd.grad(terms["student_classification"], weights[:1], retain_graph=True)
    cut = F.binary_cross_entropy_with_logits(network(teacher.detach()[:, None] * images).mean((2, 3)), labels)
    assert not torch.allclose(first, torch.autograd.grad(cut, weights[:1])[0])  # the teacher's mask learns from it


def test_a_mean_over_a_split_counts_every_image_once():
    images, labels, _ = coloured_squares(7)
    objective = nn_explainer(light(), Colours(), task(3), **NnExplainerLosses().model_dump())
    objective.trained.eval()
    seen = objective.validate(ResidentSplit(images, labels))
    with torch.no_grad():
        each = [objective.losses(batch(images[row : row + 1], labels[row : row + 1])) for row in range(7)]
    for name in each[0]:
        assert seen[name] == pytest.approx(sum(terms[name].item() for terms in each) / 7, rel=1e-4), name
    assert seen["loss"] == pytest.approx(sum(seen[name] for name in each[0]))
    assert 0 <= seen["masked_accuracy"] <= 1


OBJECTIVES = {
    "nn_explainer": (nn_explainer, NnExplainerLosses()),
    "real_time_saliency": (real_time_saliency, RealTimeSaliencyLosses()),
    "self_explainer": (self_explainer, SelfExplainerLosses()),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_b0_3_the_classifier_stays_frozen_and_in_eval_mode_while_an_explainer_trains(name):
    """NN-Explainer's code leaves its dropout on and lets batch norm's statistics drift (spec B0.3)."""
    make, losses = OBJECTIVES[name]
    classifier = Colours()
    before = {key: value.clone() for key, value in classifier.state_dict().items()}
    images, labels, _ = coloured_squares(12)
    split, settings = ResidentSplit(images, labels), Training(epochs=2, batch_size=4)
    objective = make(light(), classifier, task(3), **losses.model_dump())
    weights = {key: value.clone() for key, value in objective.trained.state_dict().items()}
    fit(objective, split, split, settings, seed=0)
    assert not any(classifier.seen)
    assert bool(classifier.seen) == (name != "self_explainer")
    assert all(torch.equal(value, before[key]) for key, value in classifier.state_dict().items())
    assert not any(module.training for module in classifier.modules())
    assert any(not torch.equal(value, weights[key]) for key, value in objective.trained.state_dict().items())


@pytest.mark.parametrize("name", OBJECTIVES)
def test_images_of_one_class_each_train_as_well(name):
    make, losses = OBJECTIVES[name]
    images, labels, _ = coloured_squares(8)
    split = ResidentSplit(images, labels.argmax(dim=1))
    objective = make(light(), Colours(), task(3, multi_label=False, most_labels=1), **losses.model_dump())
    trained = fit(objective, split, split, Training(epochs=1, batch_size=4), seed=0)
    assert trained.best["loss"] > 0


def test_a_students_pass_that_sees_the_same_agrees_with_the_teachers():
    network = FixedMaps(torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)), SIDE)
    images, labels, _ = coloured_squares(2)
    terms = self_explainer(network, Colours(), task(3), **SelfExplainerLosses().model_dump()).losses(
        batch(images, labels)
    )
    assert terms["logit_distance"].item() == terms["coherency"].item() == 0
    assert terms["classification"].item() == terms["student_classification"].item()


def test_validation_draws_the_same_alternative_images_every_time():
    images, labels, _ = coloured_squares(6)
    objective = real_time_saliency(light(), Colours(), task(3), **RealTimeSaliencyLosses().model_dump())
    split = ResidentSplit(images, labels)
    assert objective.validate(split) == objective.validate(split)


def inside_and_outside(network, images, labels, masks):
    """Mean mask value on a label's square, and elsewhere."""
    with torch.no_grad():
        drawn = network.eval().masks(nn.Identity(), images)
    chosen = labels > 0
    return drawn[chosen][masks[chosen]].mean().item(), drawn[chosen][~masks[chosen]].mean().item()


def test_an_nn_explainer_learns_where_the_classes_are():
    """From nothing but the classifier's answers its masks come to lie on the squares that the answers rest on."""
    images, labels, _ = coloured_squares(96)
    losses = NnExplainerParams.model_validate({"losses": {"smallest_area": 0.05, "variation": 0.2}}).losses
    objective = nn_explainer(light(), Colours(), task(3, most_labels=2), **losses.model_dump())
    settings = Training(epochs=12, batch_size=16, optimizer=Optimizer(lr=1e-2))
    fit(objective, ResidentSplit(images, labels), None, settings, seed=0)
    others = coloured_squares(32, seed=1)
    inside, outside = inside_and_outside(objective.trained, *others)
    assert inside > 0.5
    assert inside - outside > 0.35
