"""The loop: it learns, picks the best epoch, resumes bit for bit, and says what went wrong."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from roarline.config.training import TrainCls
from roarline.errors import DataError, JobError, ModelError, UserInputError
from roarline.training import loop
from roarline.training.batches import ResidentSplit
from roarline.training.checkpoint import Checkpoint
from roarline.training.classification import Classification, train
from roarline.training.evaluate import evaluate
from roarline.training.loop import Trained


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def network(classes: int = 3, dropout: float = 0.0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(7)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(dropout), nn.Flatten(),
            nn.Linear(8 * 16, classes),
        )  # fmt: skip


def coloured(count: int, seed: int) -> ResidentSplit:
    """Three classes, each bright in another channel: separable."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    images = torch.randn(count, 3, 4, 4, generator=generator) * 0.3
    images[torch.arange(count), labels] += 1.0
    return ResidentSplit(images, labels)


def settings(**changes: object) -> TrainCls:
    words = {"epochs": 4, "batch_size": 16, "optimizer": {"name": "adam", "lr": 0.01}, **changes}
    return TrainCls.model_validate(words)


def weights(model: nn.Module) -> list[Tensor]:
    return [value.clone() for value in model.state_dict().values()]


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy"])
def test_separable_classes_are_learned(optimizer, loss):
    model = network()
    chosen = settings(loss=loss, optimizer={"name": optimizer, "lr": 0.02}, scheduler={"name": "one_cycle"})
    trained = train(model, coloured(150, 0), coloured(60, 1), chosen, seed=0)
    assert evaluate(model, coloured(90, 2)).accuracy > 0.95
    assert trained.curve[-1]["train_loss"] < trained.curve[0]["train_loss"] / 2
    assert not model.training


def test_several_labels_an_image_are_learned():
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(200, 3, generator=generator) < 0.5).float()
    images = torch.randn(200, 3, 4, 4, generator=generator) * 0.3 + labels[:, :, None, None]
    model = network()
    chosen = settings(epochs=6, loss="binary_cross_entropy", optimizer={"name": "adam", "lr": 0.02})
    trained = train(
        model, ResidentSplit(images[:150], labels[:150]), ResidentSplit(images[150:], labels[150:]), chosen, seed=0
    )
    assert trained.validation_accuracy is not None
    assert trained.validation_accuracy > 0.95


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"optimizer": {"name": "sgd", "lr": 0.05, "nesterov": True}, "scheduler": {"name": "cosine"}},
        {"augmentation": {"crop_padding_px": 1, "horizontal_flip": True}, "scheduler": {"name": "one_cycle"}},
        {"channels_last": True, "precision": "bfloat16", "scheduler": {"name": "step", "step_size": 1}},
    ],
)
@pytest.mark.parametrize("stop_after", [1, 2, 3])
def test_resumed_at_an_epoch_boundary_a_training_ends_with_the_same_bits(tmp_path: Path, change, stop_after):
    chosen, splits = settings(**change), (coloured(70, 0), coloured(30, 1))
    undisturbed = network(dropout=0.3)
    expected = train(undisturbed, *splits, chosen, seed=5)

    steps_an_epoch = 5

    def kill(done: int, total: int) -> None:
        assert total == 4 * steps_an_epoch
        if done > stop_after * steps_an_epoch:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(network(dropout=0.3), *splits, chosen, seed=5, checkpoint=Checkpoint(tmp_path, every_s=0), progress=kill)
    assert Checkpoint(tmp_path).load(torch.device("cpu"))["epoch"] == stop_after
    resumed = network(dropout=0.3)
    seen: list[int] = []
    got = train(
        resumed, *splits, chosen, seed=5, checkpoint=Checkpoint(tmp_path, every_s=0),
        progress=lambda done, total: seen.append(done),
    )  # fmt: skip
    assert min(seen) > stop_after * steps_an_epoch  # what was done is not done again
    assert got == expected
    assert same(weights(resumed), weights(undisturbed))


def test_how_often_it_is_saved_changes_nothing(tmp_path):
    results = []
    for every_s in (0.0, 1e9):
        model = network(dropout=0.3)
        trained = train(
            model,
            coloured(70, 0),
            coloured(30, 1),
            settings(),
            seed=5,
            checkpoint=Checkpoint(tmp_path / str(every_s), every_s),
        )
        results.append((trained, weights(model)))
    assert results[0][0] == results[1][0]
    assert same(results[0][1], results[1][1])


def test_what_a_lone_process_had_seen_of_an_epoch_counts_once_among_several(monkeypatch):
    """A training that one process began may be gone on with by two."""
    run = loop._Run(
        Classification(network(), settings(), multi_label=False), coloured(48, 0), settings(), 0, None, print
    )
    begun = begun_after(1)
    for rank, images in ((0, 16), (1, 0)):
        monkeypatch.setattr(loop.processes, "rank", lambda rank=rank: rank)
        meter, run.begun = loop.Meter(1, 0.01), dict(begun)
        assert [place.step for place in run._ahead(meter)] == [1, 2]
        assert meter.images == images


def begun_after(steps: int, **more: object) -> dict[str, object]:
    """What is saved of an epoch; ``device_draws`` where that was on a GPU."""
    seen = loop.Meter(1, 0.01)
    seen.add(0, 16, {"loss": torch.tensor(2.0)})
    seen.read()
    return {"steps": steps, "meter": seen.state(), "draws": torch.get_rng_state(), **more}


def resume(begun: dict[str, object], device: str, done: int = 0) -> list[int]:
    """Which steps a training of 3 an epoch makes yet."""
    run = loop._Run(
        Classification(network(), settings(), multi_label=False), coloured(48, 0), settings(), 0, None, print
    )
    run.device, run.done, run.begun = torch.device(device), done, begun
    return [place.step for place in run._ahead(loop.Meter(1, 0.01))]


def test_a_training_begun_on_a_cpu_goes_on_on_a_gpu_with_draws_of_its_own(monkeypatch):
    """The device is in no key, so that both find the same file; a CPU has saved no state of a GPU's generator."""
    generators = [torch.Generator(), torch.Generator()]
    monkeypatch.setattr(torch.cuda, "default_generators", generators)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda *_: pytest.fail("of a CPU"))

    def seed_after(steps: int, done: int) -> int:
        assert resume(begun_after(steps), "cuda:1", done) == list(range(steps, 3))
        return generators[1].initial_seed()

    untouched = generators[0].initial_seed()
    seeds = [seed_after(1, 0), seed_after(2, 0), seed_after(1, 1)]
    assert len({*seeds, loop.derive_seed(0, "epoch", 1, "model")}) == 4  # nor the draws of the epoch's beginning
    assert seed_after(1, 0) == seeds[0]
    assert generators[0].initial_seed() == untouched


def test_a_training_begun_on_a_gpu_goes_on_with_its_draws_there_and_without_them_on_a_cpu(monkeypatch):
    state, found = torch.arange(16, dtype=torch.uint8), []
    monkeypatch.setattr(torch.cuda, "default_generators", [])
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda *given: found.append(given))
    begun = begun_after(1, device_draws=state)
    assert resume(dict(begun), "cuda:1") == resume(dict(begun), "cpu") == [1, 2]
    ((value, device),) = found
    assert torch.equal(value, state)
    assert device == torch.device("cuda:1")


def test_two_runs_give_the_same_bits_and_other_seeds_other_ones():
    def run(seed: int) -> tuple[Trained, list[Tensor]]:
        model = network(dropout=0.3)
        return train(model, coloured(70, 0), coloured(30, 1), settings(), seed=seed), weights(model)

    (first, a), (second, b), (_, c) = run(5), run(5), run(6)
    assert first == second
    assert same(a, b)
    assert not same(a, c)


def test_torchs_own_generator_is_left_as_it_was_and_does_not_matter():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    model = network(dropout=0.5)
    train(model, coloured(70, 0), None, settings(epochs=1), seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    other = network(dropout=0.5)
    train(other, coloured(70, 0), None, settings(epochs=1), seed=5)
    assert same(weights(model), weights(other))


class Scripted(nn.Module):
    """Knows the label of as many validation images as its script says for each epoch, whatever it is trained on."""

    def __init__(self, right: list[int]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.right = right
        self.register_buffer("epoch", torch.tensor(0))

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            self.epoch += 1
            return self.weight.expand(len(images), 2)
        known = torch.arange(len(images)) < self.right[int(self.epoch) - 1]
        return torch.stack([known.float(), 1 - known.float()], 1)


def blank(count: int) -> ResidentSplit:
    return ResidentSplit(torch.zeros(count, 3, 1, 1), torch.zeros(count, dtype=torch.int64))


@pytest.mark.parametrize(
    ("right", "best"), [([3, 5, 4, 5], 2), ([9, 1, 1, 1], 1), ([1, 2, 3, 4], 4), ([0, 0, 0, 0], 1)]
)
def test_the_best_epoch_is_the_first_of_highest_validation_accuracy(right, best):
    model = Scripted(right)
    trained = train(model, blank(8), blank(10), settings(batch_size=8), seed=0)
    assert trained.best_epoch == best
    assert trained.validation_accuracy == pytest.approx(right[best - 1] / 10)
    assert int(model.epoch) == best  # the weights are that epoch's
    assert [row["validation_accuracy"] for row in trained.curve] == pytest.approx([share / 10 for share in right])


def test_without_a_validation_split_the_last_epoch_counts():
    model = Scripted([])
    trained = train(model, blank(8), None, settings(batch_size=8), seed=0)
    assert (trained.best_epoch, trained.validation_accuracy, int(model.epoch)) == (4, None, 4)
    assert "validation_loss" not in trained.curve[0]


def test_the_curve_tells_loss_and_rate():
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, images: Tensor) -> Tensor:
            return images[:, :2, 0, 0] + 0 * self.weight

    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]])
    images = torch.cat([logits, torch.zeros(3, 1)], 1)[:, :, None, None]
    labels = torch.tensor([0, 0, 0])
    split = ResidentSplit(images, labels)
    trained = train(
        Fixed(), split, split, settings(epochs=3, batch_size=2, scheduler={"name": "step", "step_size": 2}), seed=0
    )
    expected = float(nn.functional.cross_entropy(logits, labels))
    for row in trained.curve:
        assert row["train_loss"] == pytest.approx(expected, rel=1e-6)
        assert row["validation_loss"] == pytest.approx(expected, rel=1e-6)
        assert row["train_accuracy"] == row["validation_accuracy"] == pytest.approx(2 / 3)
    assert [row["learning_rate"] for row in trained.curve] == pytest.approx([0.01, 0.01, 0.001])


def test_a_last_batch_of_one_image_trains_with_batch_norm():
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    trained = train(model, coloured(17, 0), None, settings(batch_size=16, epochs=1), seed=0)
    assert len(trained.curve) == 1


def test_a_single_training_image_is_refused():
    with pytest.raises(DataError, match=r"1 image.*at least 2"):
        train(network(), coloured(1, 0), None, settings(), seed=0)


def test_a_diverging_loss_names_epoch_step_and_what_to_do():
    chosen = settings(optimizer={"name": "sgd", "lr": 1e30}, epochs=2)
    with pytest.raises(
        JobError, match=r"diverged: loss (nan|inf) in epoch 1, step \d+; lower optimizer.lr \(now 1e\+30\)"
    ):
        train(network(), coloured(70, 0), None, chosen, seed=0)


def test_weights_that_broke_in_the_very_last_step_are_found():
    chosen = settings(optimizer={"name": "sgd", "lr": 1e38}, epochs=1, batch_size=70)
    with pytest.raises(ModelError, match="NaN or infinite logits"):
        train(network(), coloured(70, 0), coloured(30, 1), chosen, seed=0)


def test_too_little_memory_says_what_to_lower():
    class Hungry(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, images: Tensor) -> Tensor:
            raise torch.OutOfMemoryError("tried to allocate 2 EiB")

    with pytest.raises(JobError, match="cpu has too little memory for training with batch_size 16; lower it"):
        train(Hungry(), coloured(70, 0), None, settings(), seed=0)


def test_a_loss_that_does_not_go_with_the_labels_is_refused():
    multi_hot = ResidentSplit(torch.zeros(4, 3, 4, 4), torch.zeros(4, 3))
    with pytest.raises(UserInputError, match="multi-label"):
        train(network(), multi_hot, None, settings(), seed=0)


def test_augmentation_changes_training_images_alone():
    seen: dict[bool, list[Tensor]] = {True: [], False: []}

    class Watcher(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(3))

        def forward(self, images: Tensor) -> Tensor:
            seen[self.training].append(images)
            return self.weight.expand(len(images), 3)

    train_split, validation_split = coloured(40, 0), coloured(20, 1)
    flip = {"horizontal_flip": True}
    train(Watcher(), train_split, validation_split, settings(epochs=1, augmentation=flip), seed=0)
    assert torch.equal(torch.cat(seen[False]), validation_split.images)
    trained_on = torch.cat(seen[True])
    as_they_are = (trained_on[:, None] == train_split.images[None]).flatten(2).all(2)
    mirrored = (trained_on[:, None] == train_split.images.flip(-1)[None]).flatten(2).all(2)
    assert (as_they_are | mirrored).sum(0).tolist() == [1] * 40  # each image once, as it is or mirrored
    assert 5 < int(mirrored.sum()) < 35


def test_results_are_plain_and_frozen():
    trained = train(network(), coloured(20, 0), None, settings(epochs=1), seed=0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        trained.best_epoch = 2
