"""A stack trains each network as it would be trained alone: batches, draws, epochs, ends and failures of its own."""

import copy
import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.datasets import load_digits
from torch import Tensor, nn

from roarline.config.training import TrainCls
from roarline.errors import DataError, JobError, ModelError
from roarline.models.build import build
from roarline.models.stacking import StackedNetworks
from roarline.seeds import derive_seed
from roarline.training.batches import ResidentSplit
from roarline.training.classification import train
from roarline.training.evaluate import evaluate
from roarline.training.evaluate_stacked import evaluate_stack
from roarline.training.loop import Trained
from roarline.training.stacked import Member, fit_stack
from roarline.training.steps import OptimizerSteps

SIDE = 6
# Networks and images are float64: sums in another order differ by 1e-16, which a few steps of Adam enlarge. Losses and
# logits are evaluated in float32.
FEW_STEPS = {"rtol": 1e-7, "atol": 1e-9}


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def network(seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        made = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(),
            nn.Linear(6 * SIDE**2, 3),
        )  # fmt: skip
    return made.double()


def split(count: int, seed: int, noise: float = 0.5, labels: Tensor | None = None) -> ResidentSplit:
    generator = torch.Generator().manual_seed(seed)
    classes = torch.arange(count) % 3
    images = torch.randn(count, 3, SIDE, SIDE, generator=generator, dtype=torch.float64) * noise
    images[torch.arange(count), classes] += 1.0
    return ResidentSplit(images, classes if labels is None else labels)


def multi_hot(count: int) -> Tensor:
    return torch.eye(3, dtype=torch.float64)[torch.arange(count) % 3]


def settings(**changes: object) -> TrainCls:
    words = {"epochs": 2, "batch_size": 16, "optimizer": {"name": "adam", "lr": 0.01}, **changes}
    return TrainCls.model_validate(words)


def members(count: int = 3, *, images: int = 41, validation: bool = True, several: bool = False) -> list[Member]:
    labels = multi_hot if several else lambda count: None
    return [
        Member(
            split(images, seed, labels=labels(images)),
            split(30, 50 + seed, labels=labels(30)) if validation else None,
            seed=seed // 2,  # two share their draws, as cells of one repeat do
        )
        for seed in range(count)
    ]


def in_a_stack(how: TrainCls, group: list[Member]) -> StackedNetworks:
    networks = StackedNetworks([network(member.seed) for member in group], (SIDE, SIDE))
    fit_stack(networks, group, how)
    return networks


def alone(how: TrainCls, member: Member) -> tuple[nn.Module, Trained]:
    model = network(member.seed)
    return model, train(model, member.train_split, member.validation_split, how, seed=member.seed)


HOW = {
    "adam": {},
    "adamw, cosine": {"optimizer": {"name": "adamw", "lr": 0.01, "weight_decay": 0.1}, "scheduler": {"name": "cosine"}},
    "sgd, one cycle": {
        "optimizer": {"name": "sgd", "lr": 0.05, "nesterov": True, "weight_decay": 0.01},
        "scheduler": {"name": "one_cycle"},
    },
    "steps, smoothing": {"scheduler": {"name": "step", "step_size": 1, "gamma": 0.1}, "label_smoothing": 0.1},
    "augmented": {"augmentation": {"crop_padding_px": 1, "horizontal_flip": True, "resized_crop": 0.5}},
    "channels last": {"channels_last": True},
    "accumulated, clipped": {"gradient_accumulation": 2, "gradient_clip_norm": 0.2, "epoch_fraction": 0.5},
    "several labels": {"loss": "binary_cross_entropy", "class_reduction": "sum"},
    "by the loss": {"best_by": "loss", "loss": "binary_cross_entropy"},
}


@pytest.mark.parametrize("name", HOW)
def test_each_network_is_trained_as_it_would_be_alone(name):
    how = settings(**HOW[name])
    group = members(several=name == "several labels")
    networks = in_a_stack(how, group)
    seen = evaluate_stack(networks, [split(30, 90 + place) for place in range(3)])
    for place, member in enumerate(group):
        model, expected = alone(how, member)
        for key, value in model.state_dict().items():
            torch.testing.assert_close(member.best_state[key], value, **FEW_STEPS)
            if value.ndim:
                assert torch.equal(networks.state_of(place)[key], member.best_state[key])
        assert member.trained.best_epoch == expected.best_epoch
        assert member.trained.best == pytest.approx(expected.best, rel=1e-5)
        for ours, theirs in zip(member.curve, expected.curve, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-5)
            assert list(ours) == list(theirs)
        one = evaluate(model, split(30, 90 + place))
        assert seen[place].accuracy == one.accuracy
        assert torch.equal(seen[place].predicted_N, one.predicted_N)


def test_bfloat16_trains_each_network_too():
    how = settings(precision="bfloat16", epochs=3)
    group = members()
    in_a_stack(how, group)
    for member in group:
        _, expected = alone(how, member)
        # bfloat16 keeps 8 bits, so that losses of a few epochs agree to some percent.
        assert member.curve[-1]["train_loss"] == pytest.approx(expected.curve[-1]["train_loss"], rel=0.1)


def test_a_network_that_diverges_is_given_up_and_the_others_are_as_without_it():
    group, again = members(), members()
    broken = group[1].train_split
    group[1] = Member(ResidentSplit(broken.images * math.inf, broken.labels), group[1].validation_split, seed=0)
    how = settings(epochs=3)
    networks, calm = in_a_stack(how, group), in_a_stack(how, again)
    assert isinstance(group[1].failed, JobError)
    assert "epoch 1, step 1" in str(group[1].failed)
    for place in (0, 2):
        assert group[place].failed is None
        assert group[place].curve == again[place].curve
        for key, value in calm.state_of(place).items():
            assert torch.equal(networks.state_of(place)[key], value)


def test_each_network_keeps_its_own_best_epoch_and_stops_by_its_own_patience():
    how = settings(epochs=8, early_stopping={"patience": 2}, best_by="loss", optimizer={"name": "adam", "lr": 0.05})
    nonsense = (torch.arange(40) % 3 + 1) % 3
    group = [
        Member(split(40, 0), split(30, 7), seed=0),
        Member(split(40, 1, labels=nonsense), split(30, 8), seed=1),  # its validation loss rises at once
    ]
    networks = in_a_stack(how, group)
    lengths = []
    for place, member in enumerate(group):
        model, expected = alone(how, member)
        assert [row["epoch"] for row in member.curve] == [row["epoch"] for row in expected.curve]
        assert member.trained.best_epoch == expected.best_epoch
        torch.testing.assert_close(networks.state_of(place)["0.weight"], model.state_dict()["0.weight"], **FEW_STEPS)
        lengths.append(len(member.curve))
    assert lengths[1] < lengths[0]


def test_the_last_epoch_is_the_best_without_a_validation_split():
    group = members(validation=False)
    in_a_stack(settings(), group)
    assert [member.trained.best_epoch for member in group] == [2, 2, 2]
    assert "validation_loss" not in group[0].curve[0]
    with pytest.raises(DataError, match="early_stopping needs a validation split"):
        in_a_stack(settings(early_stopping={}), members(validation=False))


def test_nan_logits_are_the_error_of_their_network_alone():
    networks = StackedNetworks([network(seed) for seed in range(2)], (SIDE, SIDE))
    with torch.no_grad():
        networks.state_of(0)["4.bias"].fill_(math.nan)
    seen = evaluate_stack(networks, [split(30, 1), split(30, 2)])
    assert isinstance(seen[0], ModelError)
    assert 0 <= seen[1].accuracy <= 1


def test_batches_are_those_of_the_loop(monkeypatch):
    """The same images, in the same order, cropped and mirrored alike: compared as they reach the network."""
    how = settings(epochs=1, augmentation={"crop_padding_px": 2, "horizontal_flip": True})
    member = Member(split(41, 0), None, seed=derive_seed(5, "batches"))
    own: list[Tensor] = []
    model = network(0)
    model.register_forward_pre_hook(lambda _, inputs: own.append(inputs[0].clone()))
    train(model, member.train_split, None, how, seed=member.seed)
    seen: list[Tensor] = []
    together = StackedNetworks.forward
    monkeypatch.setattr(StackedNetworks, "forward", lambda self, x: (seen.append(x.clone()), together(self, x))[1])
    networks = StackedNetworks([network(0), network(1)], (SIDE, SIDE))
    seen.clear()
    fit_stack(networks, [member, Member(split(41, 1), None, seed=4)], how)
    assert len(seen) == len(own) > 1
    assert all(torch.equal(a[:, :3], b) for a, b in zip(seen, own, strict=True))


def test_out_of_memory_says_how_many_networks(monkeypatch):
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("no")

    monkeypatch.setattr(OptimizerSteps, "make", full)
    with pytest.raises(JobError, match="too little memory for 3 networks with batch_size 16"):
        in_a_stack(settings(), members())


def test_accuracies_of_a_whole_training_stay_within_the_interval_of_repeats():
    digits = load_digits()
    images = torch.from_numpy(digits.images / 16.0).float()[:, None].expand(-1, 3, -1, -1).contiguous()
    train_split, test_split = (
        ResidentSplit(images[part], torch.from_numpy(digits.target[part]).long())
        for part in (slice(800), slice(800, None))
    )
    how = TrainCls.model_validate(
        {"epochs": 6, "batch_size": 32, "optimizer": {"name": "adam", "lr": 0.005}, "scheduler": {"name": "one_cycle"}}
    )
    repeats = range(5)
    networks = [build("small_cnn", {"width": 8}, 10, input_size=(8, 8), seed=seed) for seed in repeats]
    single = []
    for seed, model in enumerate(networks):
        one = copy.deepcopy(model)
        train(one, train_split, None, how, seed=seed)
        single.append(evaluate(one, test_split).accuracy)
    stack = StackedNetworks(networks, (8, 8))
    fit_stack(stack, [Member(train_split, None, seed=seed) for seed in repeats], how)
    stacked = [one.accuracy for one in evaluate_stack(stack, [test_split] * len(repeats))]
    half_width = stats.t.ppf(0.975, len(repeats) - 1) * stats.sem(single)
    assert min(single) > 0.7  # they learn something, and differ
    assert 0 < half_width < 0.05
    assert abs(np.mean(stacked) - np.mean(single)) <= half_width
