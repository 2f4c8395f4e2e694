"""CA: who steps when, who judges, and that a killed training goes on with the same bits."""

import copy
import dataclasses
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from roarline.config.masker_params import CaMaskerLosses
from roarline.errors import UserInputError
from roarline.models.masker_explainers import ca_masker as ca_network
from roarline.training.checkpoint import Checkpoint
from roarline.training.loop import fit
from roarline.training.masker_against_classifier import ca_masker
from tests.training.masker_games import CLASSES, SIDE, SpotClassifier, batch, frozen, split, task


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield
    torch.set_num_threads(threads)


def objective(training=None, dropout=0.0, **losses):
    """A game with plain gradient descent, so that updates can be computed by hand."""
    classifier = frozen()
    classifier.dropout.p = dropout
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(1)
        net = ca_network(classifier, num_classes=CLASSES, input_size=(SIDE, SIDE), layers=["relu"], channels=4)
    plain = {"optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.0}}
    words = CaMaskerLosses.model_validate({"opponent": {"lr": 0.05, "momentum": 0, "weight_decay": 0}, **losses})
    return ca_masker(net.train(), classifier, task(**(training or plain)), **words.model_dump())


def descended(model, loss, rate):
    """A copy of the model's parameters after one step of gradient descent."""
    parameters = dict(model.named_parameters())
    found = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True)
    return {
        name: value.detach() - rate * gradient
        for (name, value), gradient in zip(parameters.items(), found, strict=True)
    }


def by_hand(game, one, skip=False):
    """Masker and classifier after one step against the current classifier, and the masker's loss."""
    net = copy.deepcopy(game.trained)
    classifier = net.classifier
    logits, activations = net.read(classifier, one.images, graph=True)
    after_clean = descended(classifier, F.cross_entropy(logits, one.labels), 0.05)
    classifier.load_state_dict(after_clean, strict=False)
    masks = net.draw(activations, one.labels, one.images)
    inside, outside = classifier(one.images * masks), classifier(one.images * (1 - masks))
    p, right = outside.softmax(1), logits.argmax(1) == one.labels
    area = masks.mean((1, 2, 3))
    won_in, won_out = (inside.argmax(1) == one.labels).float(), (right & (outside.argmax(1) != one.labels)).float()
    loss = F.cross_entropy(inside, one.labels) - (won_in - area).relu().mean()
    loss = loss + (right * (p * p.log()).sum(1)).mean() - 15 * (won_out - area).relu().mean()
    on_masked = F.cross_entropy(inside, one.labels) + F.cross_entropy(outside, one.labels)
    masker = descended(net.masker, loss, 0.1)
    return masker, after_clean if skip else descended(classifier, on_masked, 0.05), loss


def equal(module, expected):
    for name, value in module.named_parameters():
        torch.testing.assert_close(value.detach(), expected[name], msg=name)


SIDES = {"mask_in": {"objective": "classification", "area": 1, "variation": 0}, "mask_out": {"objective": "entropy", "area": 15, "variation": 0}}  # fmt: skip # noqa: E501


def test_b3_2_both_gradients_come_before_both_updates():
    game, one = objective(**SIDES, pool={"share": 0.0}), batch()
    masker, classifier, loss = by_hand(game, one)
    terms = game.step(one, 0.1)
    equal(game.trained.masker, masker)
    equal(game.trained.classifier, classifier)
    mask_terms = [value for name, value in terms.items() if name.startswith("mask_")]
    torch.testing.assert_close(sum(mask_terms), loss.detach())


def test_b3_1_unused_asks_the_current_classifier_and_only_skips_its_update():
    game, one = objective(**SIDES, pool={"share": 1.0, "use": "unused"}), batch()
    masker, classifier, _ = by_hand(game, one, skip=True)
    game.step(one, 0.1)
    equal(game.trained.masker, masker)
    equal(game.trained.classifier, classifier)


def test_b3_1_used_asks_the_classifier_drawn_from_the_pool():
    game = objective(**SIDES, pool={"share": 1.0, "every": 1000})
    game.step(batch(), 0.1)
    for value in game.pool.copies[0].values():
        value.zero_()  # the only copy says nothing of any image: each class has a third
    terms = game.step(batch(seed=1), 0.1)
    torch.testing.assert_close(terms["mask_in_objective"], torch.tensor(CLASSES).float().log())
    assert not any(game.judge.modes)
    assert game.trained.classifier.modes[-1]


def test_a_judge_from_the_pool_learns_nothing_and_the_classifier_only_from_clean_images():
    game, one = objective(**SIDES, pool={"share": 1.0}), batch()
    _, after_clean, _ = by_hand(game, one, skip=True)
    game.step(one, 0.1)
    equal(game.trained.classifier, after_clean)
    assert all(parameter.grad is None for parameter in game.judge.parameters())


def test_the_pools_share_is_that_of_the_steps():
    game, asked = objective(pool={"share": 0.25, "every": 1}), []
    game.pool.load_into = lambda model, generator: asked.append(1)
    for number in range(200):
        game._judge(batch(1, words=(number, "words")).generator)
    assert abs(len(asked) - 50) < 31  # five standard deviations of 6.1


def test_the_given_classifier_stays_and_its_copy_learns():
    game = objective()
    given = SpotClassifier().state_dict()
    game.step(batch(), 0.1)
    assert not torch.equal(game.trained.classifier.linear.weight, given["linear.weight"])
    assert any(name.startswith("classifier.") for name in game.trained.state_dict())
    other = frozen()
    masks = game.trained.eval().masks(other, batch().images)
    assert not other.modes  # the masker reads its own classifier
    assert masks.shape == (8, 1, SIDE, SIDE)


def test_rates_fall_together_and_the_maskers_gradient_is_clipped():
    training = {"optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.0}, "gradient_clip_norm": 1e-3}
    game = objective(training, pool={"share": 1.0})
    before = [value.detach().clone() for value in game.trained.masker.parameters()]
    game.step(batch(), 0.01)
    assert game.classifier_optimizer.param_groups[0]["lr"] == pytest.approx(0.005)
    moved = torch.cat([(a - b).flatten() for a, b in zip(game.trained.masker.parameters(), before, strict=True)])
    assert moved.norm().item() == pytest.approx(0.01 * 1e-3, rel=1e-3)


class KilledError(Exception):
    pass


def test_a_killed_training_goes_on_with_the_same_bits(tmp_path: Path):
    training = {
        "epochs": 4,
        "batch_size": 8,
        "optimizer": {"name": "adam", "lr": 1e-2, "weight_decay": 1e-4},
        "scheduler": {"name": "step", "step_size": 2},
        "augmentation": {"horizontal_flip": True},
    }
    pool = {"size": 3, "every": 2}

    def run(folder, dies_at=None):
        game = objective(training, dropout=0.5, pool=pool)

        def progress(done, total):
            if dies_at is not None and done >= dies_at:
                raise KilledError

        checkpoint = Checkpoint(folder, every_s=0)
        found = fit(game, split(40), split(16, 1), game.task.settings, seed=3, checkpoint=checkpoint, progress=progress)
        return game, found

    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    whole, curve = run(tmp_path / "whole")
    with pytest.raises(KilledError):
        run(tmp_path / "killed", dies_at=15)
    again, found = run(tmp_path / "killed")
    assert found == curve
    assert found.best_epoch == 4  # the last
    assert again.steps == whole.steps == 20
    for name, value in whole.trained.state_dict().items():
        assert torch.equal(value, again.trained.state_dict()[name]), name
    for one, other in zip(whole.pool.copies, again.pool.copies, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_several_labels_are_refused():
    game = objective()
    with pytest.raises(UserInputError, match="multi-label"):
        ca_masker(game.trained, frozen(), dataclasses.replace(task(), multi_label=True))
