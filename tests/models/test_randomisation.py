"""Layers in the order of their use, and random weights in their place."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from roarline.models.build import build
from roarline.models.randomisation import WHOLE, Layer, RandomWeights, layers_by_use
from roarline.seeds import derive_seed


def small_cnn() -> nn.Module:
    return build("small_cnn", {"width": 4}, 3, input_size=(16, 16), seed=1).eval()


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def changed(before: dict[str, torch.Tensor], model: nn.Module) -> set[str]:
    return {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}


def seed_of(module: str) -> int:
    return derive_seed(0, "test", module)


class Backwards(nn.Module):
    """Its layers are declared in another order than they are used; one is used twice, one has no reset."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(4, 2)
        self.block = nn.ModuleDict({"b": nn.Conv2d(4, 4, 1), "a": nn.Conv2d(3, 4, 1)})
        self.scale = nn.Parameter(torch.rand(1, 4, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.block["b"](self.block["a"](x)) * self.scale
        logits: torch.Tensor = self.last(self.block["b"](x).mean((2, 3)))
        return logits


class Attention(nn.Module):
    """One attention module, whose inner projection is never called as a module, with a norm before it."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.norm = nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.norm(self.patches(x).flatten(2).transpose(1, 2))
        logits: torch.Tensor = self.head(self.attention(tokens, tokens, tokens)[0].mean(1))
        return logits


def test_scales_and_shifts_belong_to_the_layer_before_them() -> None:
    assert layers_by_use(small_cnn(), (3, 16, 16)) == [
        Layer("conv1", ("conv1", "bn1")),
        Layer("conv2", ("conv2", "bn2")),
        Layer("conv3", ("conv3", "bn3")),
        Layer("linear", ("linear",)),
    ]


def test_layers_stand_in_the_order_of_their_first_call() -> None:
    names = [layer.name for layer in layers_by_use(Backwards(), (3, 8, 8))]
    assert names == [WHOLE, "block.a", "block.b", "last"]


def test_layers_of_one_block_are_one_where_the_depth_says_so() -> None:
    model = build("resnet8", {}, 10, input_size=(32, 32), seed=0)
    blocks = layers_by_use(model, (3, 32, 32), depth=1)
    every = layers_by_use(model, (3, 32, 32))
    assert len(blocks) < len(every)
    assert [m for layer in blocks for m in layer.modules] == [m for layer in every for m in layer.modules]
    assert all(len(layer.name.split(".")) == 1 for layer in blocks)


def test_every_parameter_belongs_to_exactly_one_layer() -> None:
    for model, shape in ((small_cnn(), (3, 16, 16)), (Backwards(), (3, 8, 8)), (Attention(), (3, 8, 8))):
        modules = [name for layer in layers_by_use(model, shape) for name in layer.modules]
        expected = [name for name, module in model.named_modules() if list(module.parameters(recurse=False))]
        assert sorted(modules) == sorted(expected)


def test_parts_that_are_never_called_count_where_what_holds_them_is() -> None:
    names = [layer.name for layer in layers_by_use(Attention(), (3, 8, 8))]
    assert names == ["patches", "attention", "attention.out_proj", "head"]


def test_learned_weights_are_back_after_an_exception_too() -> None:
    model = small_cnn()
    with torch.no_grad():
        model.bn1.running_mean.fill_(0.3)  # type: ignore[union-attr, operator]
    before, layers = state(model), layers_by_use(model, (3, 16, 16))
    weights = RandomWeights(model, layers, seed_of)
    with pytest.raises(KeyError), weights.restoring():
        for layer in layers:
            weights.randomise(layer)
        assert changed(before, model) >= {"conv1.weight", "linear.weight", "linear.bias", "bn1.running_mean"}
        raise KeyError
    assert changed(before, model) == set()


def test_one_layer_changes_alone_and_goes_back_alone() -> None:
    model = small_cnn()
    before, layers = state(model), layers_by_use(model, (3, 16, 16))
    weights = RandomWeights(model, layers, seed_of)
    with weights.restoring():
        weights.randomise(layers[1])
        assert changed(before, model) == {"conv2.weight"}  # an untrained batch norm is reset to what it was
        weights.restore(layers[1])
        assert changed(before, model) == set()


def test_draws_depend_on_seed_and_layer_and_not_on_the_order_of_layers() -> None:
    first, second = small_cnn(), small_cnn()
    layers = layers_by_use(first, (3, 16, 16))
    one, other = RandomWeights(first, layers, seed_of), RandomWeights(second, layers, seed_of)
    with one.restoring(), other.restoring():
        for layer in layers:
            one.randomise(layer)
        for layer in reversed(layers):
            other.randomise(layer)
        assert changed(state(first), second) == set()
    again = RandomWeights(second, layers, lambda module: seed_of(module) + 1)
    with one.restoring(), again.restoring():
        one.randomise(layers[0])
        again.randomise(layers[0])
        assert not torch.equal(first.conv1.weight, second.conv1.weight)  # type: ignore[arg-type]


def test_quantus_two_layers_of_one_shape_get_different_weights() -> None:
    """Quantus resets every layer with the same seed, so that equal layers get equal weights."""
    model = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1), nn.Flatten(), nn.Linear(192, 2))
    layers = layers_by_use(model, (3, 8, 8))
    weights = RandomWeights(model, layers, seed_of)
    with weights.restoring():
        for layer in layers:
            weights.randomise(layer)
        assert not torch.equal(model[0].weight, model[1].weight)  # type: ignore[arg-type]


def test_what_cannot_reset_itself_is_permuted() -> None:
    model = Attention()
    before, layers = state(model), layers_by_use(model, (3, 8, 8))
    weights = RandomWeights(model, layers, seed_of)
    with weights.restoring():
        weights.randomise(layers[1])
        assert changed(before, model) == {"attention.in_proj_weight"}  # its bias is 0 everywhere
        after = model.attention.in_proj_weight
        assert sorted(after.flatten().tolist()) == sorted(before["attention.in_proj_weight"].flatten().tolist())


def test_the_global_generator_is_left_alone() -> None:
    model = small_cnn()
    layers = layers_by_use(model, (3, 16, 16))
    torch.manual_seed(4)
    expected = torch.rand(1)
    torch.manual_seed(4)
    weights = RandomWeights(model, layers, seed_of)
    with weights.restoring():
        weights.randomise(layers[0])
    assert torch.equal(torch.rand(1), expected)
