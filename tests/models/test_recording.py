"""Recording layers: the same activations and gradients as autograd gives, from the layer on, hooks removed."""

import pytest
import torch
from torch import nn

from roarline.errors import ModelError
from roarline.models.layouts import channel_dimensions
from roarline.models.recording import recording


class Network(nn.Module):
    """A ReLU in place and called twice, a skip connection, mean, linear."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.relu, self.pool = nn.ReLU(inplace=True), nn.MaxPool2d(2)
        self.linear, self.unused = nn.Linear(6, 4), nn.Conv2d(6, 6, 1)

    def forward(self, images):
        x = self.pool(self.relu(self.conv1(images)))
        self.unused(x)
        y = self.conv2(x)
        y = self.relu(y)
        y = y + x
        return self.linear(y.mean((2, 3)))


@pytest.fixture
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Network().double().requires_grad_(False)


IMAGES = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def by_hand(model):
    """Activations and gradients of conv1, conv2 and the last ReLU, without in-place operations."""
    image = IMAGES.clone().requires_grad_()
    one = model.conv1(image)
    x = nn.functional.max_pool2d(torch.relu(one), 2)
    two = model.conv2(x)
    last = torch.relu(two)
    score = model.linear((last + x).mean((2, 3)))[:, 1].sum()
    tensors = {"conv1": one, "conv2": two, "relu": last}
    gradients = torch.autograd.grad(score, list(tensors.values()))
    return {name: (tensor.detach(), grad) for (name, tensor), grad in zip(tensors.items(), gradients, strict=True)}


@pytest.mark.parametrize("layers", [["conv1"], ["conv2"], ["relu"], ["conv1", "conv2"], ["relu", "conv1"]])
def test_equals_autograd_through_the_whole_network(model, layers):
    expected = by_hand(model)
    with recording(model, layers, IMAGES) as recorded, torch.enable_grad():
        gradients = recorded.gradients(model(IMAGES)[:, 1].sum())
    for name, activations, gradient in zip(layers, recorded.activations, gradients, strict=True):
        torch.testing.assert_close(activations, expected[name][0])
        torch.testing.assert_close(gradient, expected[name][1])


def test_nothing_before_the_layer_is_recorded(model):
    channel_dimensions(model, (3, 8, 8))  # which looks once at an image of its own
    seen = []
    model.conv2.register_forward_pre_hook(lambda module, args: seen.append(args[0].requires_grad))
    with recording(model, "conv2", IMAGES) as recorded, torch.enable_grad():
        logits = model(IMAGES)
    assert seen == [False]
    assert logits.requires_grad
    assert recorded.outputs[0].is_leaf


def test_without_gradients_nothing_is_recorded_at_all(model):
    with recording(model, "conv1", IMAGES, gradients=False) as recorded, torch.enable_grad():
        assert not model(IMAGES).requires_grad
    torch.testing.assert_close(recorded.activations[0], by_hand(model)["conv1"][0])


def test_a_layer_of_any_shape_where_asked(model):
    with recording(model, "linear", IMAGES, spatial=False) as recorded, torch.enable_grad():
        logits = model(IMAGES)
        (gradient,) = recorded.gradients(logits[:, 2].sum())
    assert recorded.activations[0].shape == (3, 4)
    assert torch.equal(gradient, torch.tensor([0.0, 0, 1, 0], dtype=torch.float64).expand(3, 4))


def test_a_layer_without_places_is_refused(model):
    expected = pytest.raises(ModelError, match=r"'linear' gives shape \[3, 4\], expected spatial maps")
    with expected, recording(model, "linear", IMAGES):
        model(IMAGES)


def test_a_layer_that_is_not_called_is_refused(model):
    model.spare = nn.Conv2d(3, 3, 1)
    with recording(model, "spare", IMAGES) as recorded:
        model(IMAGES)
        with pytest.raises(ModelError, match="'spare' is not called"):
            _ = recorded.activations


def test_a_layer_on_which_the_logits_do_not_depend_is_refused(model):
    expected = pytest.raises(ModelError, match="'unused': the logits do not depend")
    with expected, recording(model, "unused", IMAGES) as recorded, torch.enable_grad():
        recorded.gradients(model(IMAGES).sum() + model.conv1.weight.requires_grad_().sum())


def test_hooks_are_removed_after_an_error_too(model):
    with pytest.raises(KeyError), recording(model, ["conv1", "conv2"], IMAGES):
        raise KeyError
    assert not any(module._forward_hooks for module in model.modules())
