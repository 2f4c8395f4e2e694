"""Training with consistency: its terms, its validation, what it draws; and frozen backbones."""

import pytest
import torch
from torch import nn

from roarline.config.training import Consistency, TrainCls
from roarline.models.build import build
from roarline.models.recording import recording
from roarline.training.batches import ResidentSplit
from roarline.training.classification import Classification
from roarline.training.composites import Companions, composites
from roarline.training.consistency import ConsistentClassification
from roarline.training.consistency_losses import class_maps, consistency_loss
from roarline.training.loop import fit
from roarline.training.objectives import Batch


def settings(**changes: object) -> TrainCls:
    words = {"epochs": 2, "batch_size": 8, "optimizer": {"name": "adam", "lr": 0.01}, "consistency": {"weight": 5}}
    return TrainCls.model_validate(words | changes)


def images(count: int, *, several: bool = False) -> ResidentSplit:
    generator = torch.Generator().manual_seed(count)
    labels = (torch.rand(count, 3, generator=generator) < 0.4).float() if several else torch.arange(count) % 3
    return ResidentSplit(torch.randn(count, 3, 8, 8, generator=generator), labels)


def objective_of(chosen: TrainCls, train: ResidentSplit, **params: object) -> ConsistentClassification:
    model = build("small_cnn", {"width": 4, **params}, 3, input_size=(8, 8), seed=0)
    plain = Classification(model, chosen, multi_label=train.labels.ndim == 2)
    return ConsistentClassification(plain, chosen.consistency or Consistency(), train, None, seed=0)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("change", [{}, {"channels_last": True, "precision": "bfloat16"}])
def test_terms_are_logged_one_by_one_and_validated(several, change):
    train, validation = images(24, several=several), images(12, several=several)
    chosen = settings(loss="binary_cross_entropy" if several else "cross_entropy", **change)
    trained = fit(objective_of(chosen, train), train, validation, chosen, seed=0)
    for row in trained.curve:
        for split in ("train", "validation"):
            terms = row[f"{split}_classification"], row[f"{split}_consistency"]
            assert row[f"{split}_loss"] == pytest.approx(sum(terms), rel=1e-6)
            assert 0 < terms[1] <= 5 * 2 / 64 * 1.01  # 8 × 8 cells of a composite; bfloat16 keeps 8 bits
            assert f"{split}_accuracy" in row


def test_the_training_loss_is_that_of_its_images_in_their_composites():
    """With one batch, no step behind it and the draws made again, the term is computed by hand."""
    train = images(9)
    chosen = settings(batch_size=9, epochs=1)
    objective = objective_of(chosen, train)
    order_free = torch.arange(9)
    negatives = objective.draw_companions(torch.Generator().manual_seed(4))
    drawn = Companions(train.labels).draw(torch.Generator().manual_seed(4))
    assert torch.equal(negatives, drawn.negatives_N3)
    model = objective.trained.train()
    with torch.no_grad():
        logits, found = objective._compare(train.images, train.images[negatives.flatten()], drawn, order_free)
    four = composites(train.images, train.images[drawn.negatives_N3], drawn.quadrants_N)

    def maps(inputs):
        with torch.enable_grad(), recording(model, objective.layer, inputs, keep_graph=True) as recorded:
            scores = model(inputs).gather(1, train.labels[:, None])[:, 0]
            return class_maps(recorded.outputs[0], scores)

    expected = consistency_loss(maps(train.images), maps(four), drawn.quadrants_N, (8, 8))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(logits, model(train.images))


@pytest.mark.parametrize("compat", ["corrected", "original"])
def test_compat_and_weight_are_those_of_the_settings(compat):
    """9 px give 5 × 5 cells, and 9 × 9 a composite: maps that don't tile, where the two differ most."""
    generator = torch.Generator().manual_seed(1)
    train = ResidentSplit(torch.randn(6, 3, 9, 9, generator=generator), torch.arange(6) % 3)
    chosen = settings(batch_size=6, consistency={"weight": 7, "compat": compat})
    objective = objective_of(chosen, train)
    order = torch.arange(6)
    beside = train.images[objective.draw_companions(torch.Generator().manual_seed(4)).flatten()]
    objective.trained.eval()
    term = objective.losses(Batch(train.images, train.labels, order, (0,), beside))["consistency"]
    four = composites(train.images, beside.reshape(6, 3, 3, 9, 9), objective.drawn.quadrants_N)
    (_, one), (_, of_four) = (objective._maps(inputs, train.labels) for inputs in (train.images, four))
    expected = {
        how: 7 * consistency_loss(one, of_four, objective.drawn.quadrants_N, (9, 9), how).mean().item()
        for how in ("corrected", "original")
    }
    assert expected["corrected"] != pytest.approx(expected["original"], rel=0.1)
    assert term.item() == pytest.approx(expected[compat], rel=1e-5)


class ChannelsLast(nn.Module):
    """Its last layer with places puts the channels last, as Swin's does."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.linear = nn.Conv2d(3, 5, 3, stride=2, padding=1), nn.LayerNorm(5), nn.Linear(5, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.norm(self.conv(images).permute(0, 2, 3, 1))
        return self.linear(features.square().mean((1, 2)))


def test_maps_of_a_layer_with_its_channels_last_are_sums_over_channels():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = ChannelsLast()
    train, chosen = images(6), settings(consistency={"weight": 5, "layer": "norm"})
    objective = ConsistentClassification(
        Classification(model, chosen, multi_label=False), chosen.consistency, train, None, seed=0
    )
    _, maps = objective._maps(train.images, train.labels)
    features = model.norm(model.conv(train.images).permute(0, 2, 3, 1))
    # d(logit)/d(feature) = weight · 2 · feature / 16 places
    expected = (features.square() * model.linear.weight[train.labels][:, None, None] / 8).sum(-1).relu()
    assert maps.shape == (6, 4, 4)
    torch.testing.assert_close(maps, expected)


def test_an_image_that_shows_nothing_adds_nothing():
    train = images(24, several=True)
    train.labels[0] = 0
    objective = objective_of(settings(loss="binary_cross_entropy"), train)
    negatives = objective.draw_companions(torch.Generator().manual_seed(0))
    beside = train.images[negatives.flatten()]
    _, found = objective._compare(train.images, beside, objective.drawn, torch.arange(24))
    shows = train.labels.any(1)
    assert float(found.detach()[~shows].abs().max()) == 0
    assert bool((found.detach()[shows] > 0).all())


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_consistency_training_makes_maps_more_consistent(pooling):
    train, chosen = images(24), settings(epochs=15, consistency={"weight": 50}, batch_size=12)
    objective = objective_of(chosen, train, pooling=pooling)
    before = objective.validate(train)["consistency"]
    fit(objective, train, None, chosen, seed=0)
    assert objective.validate(train)["consistency"] < 0.8 * before


def test_training_twice_gives_the_same_bits_whatever_the_accumulation_draws():
    train = images(24)
    results = []
    for parts in (1, 1, 2):
        chosen = settings(gradient_accumulation=parts)
        objective = objective_of(chosen, train)
        fit(objective, train, None, chosen, seed=0)
        results.append((objective.drawn.negatives_N3, [v.clone() for v in objective.trained.state_dict().values()]))
    (first, weights), (_, again), (other, _) = results
    assert all(torch.equal(a, b) for a, b in zip(weights, again, strict=True))
    assert torch.equal(first, other)


def frozen_training(compat: str) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    chosen = settings(consistency=None, frozen_backbone={"compat": compat})
    model = build("small_cnn", {"width": 4}, 3, input_size=(8, 8), seed=0)
    model.requires_grad_(False)
    model.linear.requires_grad_(True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    objective = Classification(model, chosen, multi_label=False)
    fit(objective, images(24), None, chosen, seed=0)
    return model, before


def test_b0_3_a_frozen_backbone_stays_as_it_was_batch_norm_and_all():
    model, before = frozen_training("corrected")
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"linear.weight", "linear.bias"}


def test_b0_3_as_published_the_statistics_of_batch_norm_drift():
    model, before = frozen_training("original")
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    statistics = {f"bn{i}.{name}" for i in (1, 2, 3) for name in ("running_mean", "running_var", "num_batches_tracked")}
    assert changed == {"linear.weight", "linear.bias"} | statistics
