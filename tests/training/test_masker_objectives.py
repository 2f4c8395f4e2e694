"""The objective of FIX: the published sum, a classifier that stays as it is, a mask that finds what counts."""

import dataclasses

import pytest
import torch
from torch.nn import functional as F

from roarline.config.explainers import EXPLAINERS
from roarline.config.masker_params import FixMaskerParams, MaskerLosses
from roarline.config.training import Training
from roarline.errors import UserInputError
from roarline.models.build import build
from roarline.models.explainers import build_explainer
from roarline.models.masker_explainers import fix_masker as fix_network
from roarline.training.batches import ResidentSplit
from roarline.training.explainer_task import ExplainerTask
from roarline.training.loop import fit
from roarline.training.masker_losses import border_variation, prior_divergence
from roarline.training.masker_objectives import Game, MaskTerms, fix_masker
from tests.golden_cases import case
from tests.training.masker_games import CLASSES, SIDE, batch, frozen, split, spots, task


def network(classifier, seed=0, **words):
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return fix_network(classifier, num_classes=CLASSES, input_size=(SIDE, SIDE), layers=["relu"], **words)


def objective(classifier=None, net=None, training=None, **losses):
    classifier = classifier or frozen()
    net = net or network(classifier, channels=8)
    words = MaskerLosses.model_validate(losses).model_dump()
    return fix_masker(net, classifier, task(**(training or {})), **words)


def test_the_published_sum():
    game, classifier = objective(), frozen()
    one = batch()
    terms = game.losses(one)
    masks = game.trained.train().draw(game.trained.read(classifier, one.images)[1], one.labels, one.images)
    clean, inside, outside = (classifier(x) for x in (one.images, one.images * masks, one.images * (1 - masks)))
    area, right = masks.mean((1, 2, 3)), clean.argmax(1) == one.labels
    p = outside.softmax(1)
    won_in, won_out = (inside.argmax(1) == one.labels).float(), (right & (outside.argmax(1) != one.labels)).float()
    variation = 0.001 * border_variation(masks[:, 0])
    expected = {
        "mask_in_objective": F.cross_entropy(inside, one.labels),
        "mask_in_area": -1.0 * (won_in - area).relu().mean(),
        "mask_in_variation": variation,
        "mask_out_objective": (right * (p * p.log()).sum(1)).mean(),
        "mask_out_area": -10.0 * (won_out - area).relu().mean(),
        "mask_out_variation": variation,
    }
    assert list(terms) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, msg=name)


@pytest.mark.parametrize("number", range(6))
def test_the_terms_of_a_side_sum_to_the_original_criterion(number):
    arrays, params = case("s3_masker_criterion")
    config = params["configs"][number]
    name, gap = config["mask_reg_mode"], config["prob_loss_func"]
    side = {
        "objective": config["objective_type"], "direction": config["objective_direction"], "area": config["lambda_r"],
        "variation": config["lambda_tv"] or 0, "area_gap": gap or "l1", "weight": 2.0,
    }  # fmt: skip
    other = {"mask_in": "mask_out", "mask_out": "mask_in"}[name]
    losses = MaskerLosses.model_validate({name: side, other: {"objective": "none"}})
    labels, clean, masked, cells, wished = (
        torch.from_numpy(arrays[f"in_{key}"]) for key in ("y", "y_hat", "y_hat_masked", "mask56", "use_p")
    )
    game = Game(labels, clean, F.interpolate(cells, scale_factor=4), wished if gap else None)
    silent = torch.zeros_like(masked)
    inside, outside = (masked, silent) if name == "mask_in" else (silent, masked)
    terms = MaskTerms(losses, torch.ones(7))(game, inside, outside)
    assert sum(term.item() for term in terms.values()) == pytest.approx(2 * arrays["out_loss"][number], rel=1e-7)


@pytest.mark.parametrize("number", range(3))
def test_the_terms_with_a_prior_sum_to_the_original_criterion(number):
    arrays, params = case("s3_masker_prior_criterion")
    config = params["configs"][number]
    losses = MaskerLosses.model_validate(
        {
            "mask_in": {"objective": "none"},
            "mask_out": {"objective": "prior", "area": params["lambda_r"], "variation": 0},
            "prior": {
                "divergence": config["kl"], "compared": config["prior"],
                "clean_correct_only": config["loss_on_coc"], "weigh_classes": config["apply_class_weight"],
                "always_small": config.get("regularize_always", False),
            },
        }
    )  # fmt: skip
    labels, clean, masked, masks = (
        torch.from_numpy(arrays[f"in_{key}"]) for key in ("y", "y_hat", "y_hat_masked", "mask56")
    )
    terms = MaskTerms(losses, torch.tensor(params["class_weights"]))(
        Game(labels, clean, masks, None), torch.zeros_like(masked), masked
    )
    found = [terms["mask_out_objective"].item(), terms["mask_out_area"].item()]
    assert [sum(found), *found] == pytest.approx(arrays["out_loss"][number].tolist(), rel=1e-6)


def test_b3_14_the_classifier_gathers_no_gradient_and_stays_in_eval_mode():
    classifier = frozen()
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    game = objective(classifier, training={"epochs": 2})
    fit(game, split(32), split(16, 1), game.task.settings, seed=0)
    assert not any(classifier.modes)
    assert all(parameter.grad is None for parameter in classifier.parameters())
    assert all(torch.equal(before[name], value) for name, value in classifier.state_dict().items())
    assert not any("norm.running" in name and "masker" not in name for name in game.trained.state_dict())


def test_the_mask_finds_what_the_classifier_sees():
    classifier = frozen()
    game = objective(
        classifier, training={"epochs": 8, "batch_size": 16, "optimizer": {"lr": 0.02}}, mask_in={
            "objective": "classification", "area": 1.0
        },
    )  # fmt: skip
    images, _, inside = spots(64, 5)
    before = game.trained.eval().masks(classifier, images)[:, 0]
    fit(game, split(256), split(32, 1), game.task.settings, seed=0)
    after = game.trained.masks(classifier, images)[:, 0]

    def contrast(masks):
        return (masks[inside].mean() - masks[~inside].mean()).item()

    assert after.shape == (64, SIDE, SIDE)
    assert contrast(after) > 0.5
    assert abs(contrast(before)) < 0.3


def test_validation_says_the_sum_and_how_the_games_stand():
    game = objective()
    seen = game.validate(split(20))
    terms = [name for name in seen if name.startswith("mask_") and "accuracy" not in name]
    assert seen["loss"] == pytest.approx(sum(seen[name] for name in terms))
    assert 0 <= seen["masked_in_accuracy"] <= 1
    assert 0 < seen["mean_mask"] < 1
    assert game.validate(split(20)) == seen


def test_a_side_that_does_not_count_has_no_terms():
    names = list(objective(mask_in={"objective": "none"}).losses(batch()))
    assert names == ["mask_out_objective", "mask_out_area", "mask_out_variation"]


def test_the_ancestors_preset():
    # CASM FL: entropy of the masked-out image, lambda_r 7.5, nothing else
    side = {"objective": "entropy", "area": 7.5, "variation": 0}
    terms = objective(mask_in={"objective": "none"}, mask_out=side).losses(batch())
    assert list(terms) == ["mask_out_objective", "mask_out_area"]


def test_the_prior_objective():
    classifier, one = frozen(), batch()
    game = objective(
        classifier, mask_in={"objective": "none"}, mask_out={"objective": "prior", "area": 2.0, "variation": 0},
        prior={"class_weights": [1.0, 2.0, 4.0], "divergence": "backward", "always_small": True},
    )  # fmt: skip
    terms = game.losses(one)
    masks = game.trained.draw(game.trained.read(classifier, one.images)[1], one.labels, one.images)
    prior = torch.tensor([4.0, 2.0, 1.0]) / 7
    expected = prior_divergence(classifier(one.images * (1 - masks)), prior, "backward", torch.ones(8))
    torch.testing.assert_close(terms["mask_out_objective"], expected)
    torch.testing.assert_close(terms["mask_out_area"], 2 * masks.mean())


def test_wished_areas_are_drawn_from_the_batchs_generator():
    classifier = frozen()
    net = network(classifier, channels=4, area_channel=True)
    game = objective(classifier, net)
    first, again, other = (game.losses(batch(words=words)) for words in ((0, "a"), (0, "a"), (0, "b")))
    assert torch.equal(first["mask_in_area"], again["mask_in_area"])
    assert not torch.equal(first["mask_in_area"], other["mask_in_area"])
    assert game.validate(split(8)) == game.validate(split(8))


def test_in_use_a_masker_with_class_channels_is_told_the_predicted_class():
    classifier = frozen()
    net = network(classifier, channels=4, class_channels=True).eval()
    images, labels, _ = spots(6)
    masks = net.masks(classifier, images)
    assert torch.equal(classifier(images).argmax(1), labels)
    _, activations = net.read(classifier, images)
    torch.testing.assert_close(masks, net.draw(activations, labels, images))
    assert not torch.equal(masks, net.draw(activations, (labels + 1) % CLASSES, images))


@pytest.mark.parametrize("infiller", ["mean", "blur", "tests.training.test_infillers.doubled"])
def test_infillers_change_what_the_classifier_is_asked(infiller):
    plain = objective().losses(batch())
    filled = objective(infill={"infiller": infiller, "sides": ["mask_out"]}).losses(batch())
    assert torch.equal(plain["mask_in_objective"], filled["mask_in_objective"])
    assert not torch.equal(plain["mask_out_objective"], filled["mask_out_objective"])


def test_gumbel_masks_are_drawn_in_training_and_rounded_in_use():
    classifier = frozen()
    net = network(classifier, channels=4, output="gumbel_hard", temperature=None)
    game = objective(classifier, net)
    game.losses(batch())["mask_in_objective"].backward()
    assert net.masker.temperature.grad is not None
    masks = net.eval().masks(classifier, spots(4)[0])
    assert set(masks.unique().tolist()) <= {0.0, 1.0}


def test_the_artifact_holds_nothing_of_the_classifier():
    params = FixMaskerParams()
    net = build_explainer(
        "fix_masker", frozen(), params.network.model_dump() | {"layers": ["relu"]}, num_classes=CLASSES,
        input_size=(SIDE, SIDE), seed=0,
    )  # fmt: skip
    assert all(name.startswith("masker.") for name in net.state_dict())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fix_masker", "ca_masker"])
def test_a_resnet50_at_224_px(name):
    """As published: layers 3 and 4, or all five, cells of 4 px."""
    classifier = build("torchvision:resnet50", {}, 10, input_size=None, seed=0).eval().requires_grad_(False)
    component, size = EXPLAINERS[name], (224, 224)
    layers = {"fix_masker": ["layer3", "layer4"], "ca_masker": ["maxpool", "layer1", "layer2", "layer3", "layer4"]}
    params = component.params(network={"layers": layers[name], "unchanged": layers[name][:-4]}).model_dump()
    net = build_explainer(name, classifier, params["network"], num_classes=10, input_size=size, seed=0)
    settings = Training.model_validate({"epochs": 1, "batch_size": 2})
    game = component.load_objective()(
        net, classifier, ExplainerTask(10, False, 1, size, settings, 0), **params["losses"]
    )
    images = torch.randn(4, 3, *size, generator=torch.Generator().manual_seed(0))
    before = net.masker.final.weight.clone()
    found = fit(game, ResidentSplit(images, torch.arange(4)), None, settings, seed=0)
    assert found.curve[0]["train_loss"] is not None
    assert not torch.equal(before, net.masker.final.weight)
    masks = net.masks(classifier, images[:1])[0, 0]
    assert masks.shape == size
    assert torch.equal(masks[::4, ::4].repeat_interleave(4, 0).repeat_interleave(4, 1), masks)


def test_several_labels_and_wrong_class_weights_are_refused():
    classifier = frozen()
    with pytest.raises(UserInputError, match="multi-label; use nn_explainer"):
        fix_masker(network(classifier), classifier, dataclasses.replace(task(), multi_label=True))
    with pytest.raises(UserInputError, match="has 2 numbers, expected 3"):
        objective(prior={"class_weights": [1.0, 1.0]})
    with pytest.raises(ValueError, match="both none"):
        MaskerLosses.model_validate({"mask_in": {"objective": "none"}, "mask_out": {"objective": "none"}})
