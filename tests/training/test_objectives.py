"""The loop's contract with objectives: terms, goals, accumulation, early stopping, companions, own steps and modes."""

import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from roarline.config.training import Training
from roarline.errors import DataError, JobError, UserInputError
from roarline.training.batches import ResidentSplit, batch_bounds, passes
from roarline.training.checkpoint import Checkpoint
from roarline.training.loop import fit


def settings(**changes: object) -> Training:
    words = {"epochs": 3, "batch_size": 8, "optimizer": {"name": "sgd", "lr": 0.05}, **changes}
    return Training.model_validate(words)


def split(count: int = 40) -> ResidentSplit:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, 3, 2, 2, generator=generator)
    return ResidentSplit(images, (images.mean((1, 2, 3)) > 0).long())


class TwoTerms:
    """Least squares and a penalty, with dropout, so that torch's own draws count."""

    def __init__(self, dropout: float = 0.0, goals: list[float] | None = None) -> None:
        torch.manual_seed(0)
        self.trained = nn.Sequential(nn.Dropout(dropout), nn.Flatten(), nn.Linear(12, 1))
        self.goal = ("error", "min")
        self.goals = goals
        self.seen: list[Tensor] = []
        self.draws: list[float] = []

    def losses(self, batch):
        self.seen.append(batch.rows)
        self.draws.append(float(torch.rand(1, generator=batch.generator)))
        error = (self.trained(batch.images)[:, 0] - batch.labels).square().mean()
        return {"error": error, "penalty": 0.1 * self.trained[2].weight.abs().sum()}

    def validate(self, split):
        if self.goals is not None:
            return {"error": self.goals.pop(0)}
        self.trained.eval()
        with torch.no_grad():
            return {"error": float((self.trained(split.images)[:, 0] - split.labels).square().mean())}


def state(objective: TwoTerms) -> Tensor:
    return torch.cat([value.flatten() for value in objective.trained.state_dict().values()])


def test_each_term_has_its_columns_and_the_loss_is_their_sum():
    trained = fit(TwoTerms(), split(), split(16), settings(), seed=0)
    for row in trained.curve:
        assert row["train_loss"] == pytest.approx(row["train_error"] + row["train_penalty"], rel=1e-12)
        assert list(row) == [
            "epoch", "learning_rate", "train_loss", "train_error", "train_penalty", "validation_error",
        ]  # fmt: skip
    assert trained.best == {"error": min(row["validation_error"] for row in trained.curve)}


def test_rows_are_told_once_each_and_in_order():
    told = []
    trained = fit(TwoTerms(), split(), None, settings(), seed=0, told=told.append)
    assert told == trained.curve
    assert [row["epoch"] for row in told] == [1, 2, 3]


@pytest.mark.parametrize("parts", [2, 3, 4, 50])
def test_accumulated_gradients_give_the_step_of_the_whole_batch(parts):
    whole, cut = TwoTerms(), TwoTerms()
    one = fit(whole, split(43), None, settings(), seed=0)
    many = fit(cut, split(43), None, settings(gradient_accumulation=parts), seed=0)
    assert len(cut.seen) > len(whole.seen)
    torch.testing.assert_close(state(cut), state(whole), rtol=0, atol=2e-6)  # float32 sums in another order
    assert many.curve[-1]["train_error"] == pytest.approx(one.curve[-1]["train_error"], rel=1e-5)


def test_passes_cover_a_batch_once_with_weights_that_sum_to_the_processes():
    bounds = batch_bounds(43, 8)
    for parts, processes in ((1, 1), (3, 1), (1, 2), (2, 2)):
        of_all = [passes(bounds, parts, rank, processes) for rank in range(processes)]
        covered = sorted((place.start, place.stop) for of_rank in of_all for place in of_rank)
        assert covered[0][0] == 0
        assert covered[-1][1] == 43
        assert all(before[1] == after[0] for before, after in pairwise(covered))
        for step in range(len(bounds)):
            weights = [place.weight for of_rank in of_all for place in of_rank if place.step == step]
            assert math.fsum(weights) == pytest.approx(processes)
    assert all(place.stop - place.start >= 2 for place in passes(bounds, 50))


def test_a_long_gradient_is_shortened_to_the_norm():
    untouched, trained = TwoTerms(), TwoTerms()
    chosen = settings(
        epochs=1, batch_size=40, optimizer={"name": "sgd", "lr": 1.0, "momentum": 0.0}, gradient_clip_norm=1e-3
    )
    fit(trained, split(), None, chosen, seed=0)  # one step of plain descent at rate 1
    assert float((state(trained) - state(untouched)).norm()) == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize(("share", "steps"), [(1.0, 5), (0.2, 2), (0.19, 1), (0.6, 4)])
def test_an_epoch_may_end_early(share, steps):
    objective = TwoTerms()
    fit(objective, split(), None, settings(epochs=1, epoch_fraction=share), seed=0)
    assert len(objective.seen) == steps  # floor(share · 5) + 1, at most 5


STOPPING = {"early_stopping": {"patience": 2, "min_delta": 0.1}, "epochs": 9}


@pytest.mark.parametrize(
    ("goals", "epochs", "best"),
    [
        ([5, 4, 4.5, 3.95, 1], 4, 4),  # 3.95 is best, but no gain of more than 0.1 over 4
        ([5, 4, 4.5, 3.8, 3.9, 3.9, 1], 6, 4),
        ([5, 4, 3, 2, 1, 0.5, 0.2, 0.05, 0.01], 9, 9),
        ([1, 1, 1, 0], 3, 1),
    ],
)
def test_training_stops_where_patience_is_over_and_keeps_the_best(goals, epochs, best):
    trained = fit(TwoTerms(goals=list(goals)), split(), split(), settings(**STOPPING), seed=0)
    assert (len(trained.curve), trained.best_epoch) == (epochs, best)


@pytest.mark.parametrize("killed_at", [1, 2, 3])
def test_a_killed_training_remembers_its_patience(tmp_path: Path, killed_at):
    goals = [5.0, 4, 4.5, 3.95, 1, 1, 1, 1, 1]

    class Kill(Exception):  # noqa: N818
        pass

    def kill(row):
        if row["epoch"] > killed_at:
            raise Kill

    with pytest.raises(Kill):
        fit(TwoTerms(goals=list(goals)), split(), split(), settings(**STOPPING), seed=0, told=kill,
            checkpoint=Checkpoint(tmp_path, every_s=0))  # fmt: skip
    resumed = TwoTerms(goals=goals[min(killed_at + 1, 3) :])  # an epoch that ends a training isn't saved
    got = fit(resumed, split(), split(), settings(**STOPPING), seed=0, checkpoint=Checkpoint(tmp_path, every_s=0))
    undisturbed = TwoTerms(goals=list(goals))
    expected = fit(undisturbed, split(), split(), settings(**STOPPING), seed=0)
    assert got == expected
    assert torch.equal(state(resumed), state(undisturbed))


def test_a_training_killed_within_an_epoch_goes_on_there_with_the_same_bits(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("roarline.training.meter._PASSES_BETWEEN_READS", {"cpu": 3, "cuda": 3})
    chosen, data = settings(batch_size=4, augmentation={"horizontal_flip": True}), (split(), split(16))
    undisturbed, killed, resumed = TwoTerms(0.3), TwoTerms(0.3), TwoTerms(0.3)
    expected = fit(undisturbed, *data, chosen, seed=0)

    def kill(done: int, total: int) -> None:
        if done > 16:  # in the second epoch of 10 steps: saved after its third and sixth, killed at the ninth
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(killed, *data, chosen, seed=0, checkpoint=Checkpoint(tmp_path, every_s=0), progress=kill)
    got = fit(resumed, *data, chosen, seed=0, checkpoint=Checkpoint(tmp_path, every_s=0))
    assert len(resumed.seen) == 14  # 4 steps of the second epoch, 10 of the third
    assert got == expected
    assert torch.equal(state(resumed), state(undisturbed))
    assert resumed.draws == undisturbed.draws[16:]


def test_early_stopping_without_a_validation_split_is_refused():
    with pytest.raises(DataError, match="early_stopping needs a validation split"):
        fit(TwoTerms(), split(), None, settings(**STOPPING), seed=0)


@pytest.mark.parametrize("goal", [math.nan, math.inf])
def test_a_goal_that_is_no_number_ends_the_training(goal):
    with pytest.raises(JobError, match=r"epoch 1 is judged by error, which is (nan|inf)"):
        fit(TwoTerms(goals=[goal]), split(), split(), settings(), seed=0)


def test_a_term_that_diverges_is_named():
    class Diverging(TwoTerms):
        def losses(self, batch):
            return {**super().losses(batch), "penalty": self.trained[2].weight.sum() * math.inf}

    with pytest.raises(JobError, match=r"loss term penalty (nan|inf|-inf) in epoch 1, step 1"):
        fit(Diverging(), split(), None, settings(), seed=0)


def test_terms_that_change_their_names_are_refused():
    class Fickle(TwoTerms):
        def losses(self, batch):
            terms = super().losses(batch)
            return terms if len(self.seen) == 1 else {"error": terms["error"]}

    with pytest.raises(JobError, match="error, penalty and are now error"):
        fit(Fickle(), split(), None, settings(), seed=0)


class WithCompanions(TwoTerms):
    """Two other images beside each: the next rows."""

    def __init__(self) -> None:
        super().__init__()
        self.beside: list[Tensor] = []
        self.own: list[Tensor] = []

    def draw_companions(self, generator):
        return torch.stack([(torch.arange(40) + 1) % 40, (torch.arange(40) + 2) % 40], 1)

    def losses(self, batch):
        self.own.append(batch.images)
        self.beside.append(batch.companions)
        return super().losses(batch)


@pytest.mark.parametrize("parts", [1, 2])
def test_companions_come_with_their_images(parts):
    data, objective = split(), WithCompanions()
    fit(objective, data, None, settings(epochs=1, gradient_accumulation=parts), seed=0)
    rows = torch.cat(objective.seen)
    assert sorted(rows.tolist()) == list(range(40))
    assert torch.equal(torch.cat(objective.own), data.images[rows])
    beside = torch.cat(objective.beside).unflatten(0, (40, 2))
    assert torch.equal(beside, data.images[torch.stack([(rows + 1) % 40, (rows + 2) % 40], 1)])


def test_companions_are_augmented_each_by_itself_whatever_the_passes():
    flipped = []
    for parts in (1, 3):
        objective = WithCompanions()
        fit(
            objective, split(), None,
            settings(epochs=1, gradient_accumulation=parts, augmentation={"horizontal_flip": True}), seed=0,
        )  # fmt: skip
        flipped.append(torch.cat(objective.beside))
    assert torch.equal(*flipped)
    as_they_are = WithCompanions()
    fit(as_they_are, split(), None, settings(epochs=1), seed=0)
    same = (torch.cat(as_they_are.beside) == flipped[0]).flatten(1).all(1)
    assert 20 < int(same.sum()) < 60  # of 80, a half each way


class Alternating(TwoTerms):
    """Two optimisers, which take turns."""

    def __init__(self) -> None:
        super().__init__()
        parameters = self.trained[2].parameters()
        self.optimizers = [torch.optim.SGD([each], lr=1.0, momentum=0.5) for each in parameters]
        self.turn = 0

    def step(self, batch, rate):
        terms = self.losses(batch)
        optimizer = self.optimizers[self.turn % 2]
        optimizer.param_groups[0]["lr"] = rate
        self.trained.zero_grad()
        sum(terms.values()).backward()
        optimizer.step()
        self.turn += 1
        return {name: term.detach() for name, term in terms.items()}

    def state_dict(self):
        return {"turn": self.turn, "optimizers": [each.state_dict() for each in self.optimizers]}

    def load_state_dict(self, state):
        self.turn = state["turn"]
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)


def test_an_objective_with_own_steps_is_resumed_bit_for_bit(tmp_path: Path):
    undisturbed, killed, resumed = Alternating(), Alternating(), Alternating()
    expected = fit(undisturbed, split(), split(16), settings(), seed=0)

    def kill(done: int, total: int) -> None:
        if done > 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(killed, split(), split(16), settings(), seed=0, checkpoint=Checkpoint(tmp_path, every_s=0), progress=kill)
    got = fit(resumed, split(), split(16), settings(), seed=0, checkpoint=Checkpoint(tmp_path, every_s=0))
    assert resumed.turn == undisturbed.turn == 15
    assert got == expected
    assert torch.equal(state(resumed), state(undisturbed))


def test_own_steps_and_accumulation_do_not_go_together():
    with pytest.raises(UserInputError, match="Alternating has several optimisers"):
        fit(Alternating(), split(), None, settings(gradient_accumulation=2), seed=0)


def test_an_objective_may_set_its_own_modes():
    class Frozen(TwoTerms):
        modes: list[bool] = []  # noqa: RUF012

        def to_training(self):
            self.trained.eval()

        def losses(self, batch):
            self.modes.append(self.trained.training)
            return super().losses(batch)

    fit(Frozen(), split(), None, settings(epochs=1), seed=0)
    assert not any(Frozen.modes)
