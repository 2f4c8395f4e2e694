"""deeplift: completeness to rounding, parity with captum where captum is right, and where captum is not."""

import contextlib

import captum.attr
import pytest
import torch
from torch import nn
from torch.nn import functional

from roarline.attribution.deeplift import deeplift
from roarline.attribution.gradient import input_x_gradient
from roarline.errors import MethodError
from tests.attribution.networks import NAMES, network

TARGETS = torch.tensor([1, 3])
REFUSED = ["convnext_tiny", "swin_t", "vit_b_16"]

ACTIVATIONS = {
    "relu": nn.ReLU(), "relu in place": nn.ReLU(inplace=True), "relu6": nn.ReLU6(), "hardtanh": nn.Hardtanh(-0.5, 0.7),
    "gelu": nn.GELU(), "silu": nn.SiLU(inplace=True), "sigmoid": nn.Sigmoid(), "tanh": nn.Tanh(), "elu": nn.ELU(),
    "leaky": nn.LeakyReLU(0.2), "hardswish": nn.Hardswish(), "hardsigmoid": nn.Hardsigmoid(), "softplus": nn.Softplus(),
    "mish": nn.Mish(), "selu": nn.SELU(), "celu": nn.CELU(), "prelu": nn.PReLU(), "softmax": nn.Softmax(1),
    "functional": functional.relu, "torch": torch.tanh, "method": lambda x: x.clamp(min=0.1), "square": lambda x: x**2,
    "exp of minus": lambda x: (-x.tanh()).exp_(), "reciprocal": lambda x: 1 / (x.abs() + 1),
    "product": lambda x: x * torch.sigmoid(x), "gate": lambda x: x * x.mean((2, 3), keepdim=True).sigmoid(),
    "max pool, overlapping": lambda x: functional.max_pool2d(x, 3, 2, 1), "max pool": nn.MaxPool2d(2),
    "adaptive max pool": nn.AdaptiveMaxPool2d(3),
}  # fmt: skip


class Reusing(nn.Module):
    """One activation, called twice."""

    def __init__(self, activation):
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 6, 3, padding=1)
        self.last = nn.Linear(6, 5)
        self.activation = activation

    def forward(self, images):
        x = self.activation(self.first(images))
        return self.last(self.activation(self.second(x)).mean((2, 3)))


def captums(model, images, targets, baseline):
    leaf = images.clone().requires_grad_()
    explainer = captum.attr.DeepLift(model)
    return explainer.attribute(leaf, torch.full_like(images, baseline), target=targets).detach()


def difference(model, images, targets, baseline):
    with torch.no_grad():
        difference = model(images) - model(torch.full_like(images, baseline))
    return difference.gather(1, targets[:, None])[:, 0]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_contributions_sum_to_the_difference_of_the_logits(activation, images, targets, generator):
    model = Reusing(ACTIVATIONS[activation]).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0, 0.4, generator=generator)
    images[0, :, :4] = 0.3  # where the image is its baseline
    maps = deeplift(model.requires_grad_(False), images, targets, baseline=0.3)
    expected = difference(model, images, targets, 0.3)
    assert expected.abs().min() > 1e-4
    # The derivative stands in where |Δx| < 1.5e-8, and softmax may change there.
    torch.testing.assert_close(maps.sum((1, 2, 3)), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in REFUSED])
def test_on_architectures_contributions_sum_to_the_difference(name):
    model, images = network(name)
    maps = deeplift(model, images, TARGETS, baseline=0.2)
    torch.testing.assert_close(maps.sum((1, 2, 3)), difference(model, images, TARGETS, 0.2), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", REFUSED)
def test_layer_normalisation_and_attention_are_refused_or_pass_the_plain_gradient(name):
    """With which the sum is another one."""
    model, images = network(name)
    with pytest.raises(MethodError, match=r"deeplift: the network calls layer_norm, .* without_rule: gradient"):
        deeplift(model, images, TARGETS, baseline=0.2)
    maps = deeplift(model, images, TARGETS, baseline=0.2, without_rule="gradient")
    assert maps.isfinite().all()
    assert not torch.allclose(maps.sum((1, 2, 3)), difference(model, images, TARGETS, 0.2), rtol=1e-2)


NORM = nn.LayerNorm([3, 8, 8]).double()


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (NORM, "layer_norm"), (lambda x: functional.group_norm(x, 1), "group_norm"), (lambda x: x @ x, "matmul"),
        (lambda x: x / x.mean(), "div"), (lambda x: torch.ones(1).div(x.exp()), "div"), (lambda x: x.amax(1), "amax"),
        (lambda x: functional.scaled_dot_product_attention(x, x, x), "scaled_dot_product_attention"),
        (lambda x: functional.batch_norm(x, None, None, training=True), "batch_norm"),
    ],
)  # fmt: skip
def test_a_function_without_a_rule_is_refused(function, name, images, targets):
    class Net(nn.Module):
        def forward(self, images):
            return function(images).flatten(1)

    with pytest.raises(MethodError, match=f"deeplift: the network calls {name}, for which the method has no rule"):
        deeplift(Net(), images, targets)


def test_unknown_without_rule_is_refused(linear, images, targets):
    with pytest.raises(MethodError, match="without_rule 'warn', expected refuse or gradient"):
        deeplift(linear, images, targets, without_rule="warn")


def test_by_hand():
    """logit = relu(x₁ - 1) + relu(x₂) at (3, -1) from (0, 0): the multipliers are 2 / 3 and 0."""

    class Net(nn.Module):
        def forward(self, images):
            return torch.relu(images.flatten(1) - torch.tensor([1.0, 0.0])).sum(1, keepdim=True)

    maps = deeplift(Net(), torch.tensor([[[[3.0, -1.0]]]]), torch.tensor([0]))
    torch.testing.assert_close(maps.flatten(), torch.tensor([2.0, 0.0]))


def test_of_a_linear_network_is_weight_times_distance_from_the_baseline(linear, images, targets):
    weights = linear.layer.weight[targets].reshape(images.shape).detach()
    torch.testing.assert_close(deeplift(linear, images, targets, baseline=0.5), (images - 0.5) * weights)


def test_at_the_baseline_multipliers_are_derivatives(convnet, images, targets):
    """A baseline of 1e-9 less: every Δx is so small that Δy / Δx is the derivative."""
    images = torch.ones_like(images) * 0.4
    maps = deeplift(convnet.eval(), images, targets, baseline=0.4 - 1e-9)
    torch.testing.assert_close(maps / 1e-9, input_x_gradient(convnet, images, targets) / 0.4, rtol=1e-5, atol=1e-6)


class Pattern(nn.Module):
    """Adds a fixed image, so that the maxima of a constant baseline are no ties that rounding decides."""

    def __init__(self):
        super().__init__()
        self.register_buffer("pattern", torch.randn(1, 3, 8, 8))

    def forward(self, images):
        return images + self.pattern


def sequential(activation, *first):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            Pattern(), nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), *first, nn.Conv2d(6, 8, 1), activation(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
        ).double().eval()  # fmt: skip


@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks")  # captum's own
@pytest.mark.parametrize("activation", [nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Sigmoid, nn.ELU, nn.Softplus])
def test_equals_captums_on_a_plain_network(activation, images, targets):
    for first in ([nn.MaxPool2d(2)], [activation(), nn.AvgPool2d(2)]):
        model = sequential(activation, *first)
        torch.testing.assert_close(deeplift(model, images, targets, baseline=0.2), captums(model, images, targets, 0.2))


@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks")  # captum's own
@pytest.mark.parametrize("first", [[nn.MaxPool2d(3, 2, 1)], [nn.ReLU(), nn.MaxPool2d(2)]], ids=["overlap", "behind"])
def test_captum_loses_contributions_in_overlapping_windows_and_in_pools_behind_an_activation(first, images, targets):
    """So that its sum is not the difference, which is what makes ours the right one."""
    model = sequential(nn.ReLU, *first)
    expected = difference(model, images, targets, 0.0)
    assert not torch.allclose(captums(model, images, targets, 0.0).sum((1, 2, 3)), expected, rtol=1e-3)
    torch.testing.assert_close(deeplift(model, images, targets).sum((1, 2, 3)), expected)


@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks")  # captum's own
def test_captum_is_wrong_or_fails_on_a_module_used_twice_and_passes_over_functional_ones(images, targets):
    for activation in (nn.ReLU(), functional.relu):
        model = Reusing(activation).double().eval()
        expected = difference(model, images, targets, 0.0)
        with contextlib.suppress(RuntimeError):
            assert not torch.allclose(captums(model, images, targets, 0.0).sum((1, 2, 3)), expected, rtol=1e-3)
        torch.testing.assert_close(deeplift(model, images, targets).sum((1, 2, 3)), expected)


def test_images_in_windows_meet_their_baseline(images, targets):
    """A network that moves parts of an image into the batch, as Swin does."""

    class Windows(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3 * 16, 5)

        def forward(self, images):
            parts = images.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).flatten(0, 2).flatten(1)
            return functional.gelu(self.linear(parts)).unflatten(0, (-1, 4)).sum(1)

    model = Windows().double()
    maps = deeplift(model, images, targets, baseline=0.1)
    torch.testing.assert_close(maps.sum((1, 2, 3)), difference(model, images, targets, 0.1))


@pytest.mark.parametrize(
    "function",
    [
        lambda x, relu: x.sigmoid() * relu(x), lambda x, relu: relu(x + 1), lambda x, relu: relu(x.tanh()),
        lambda x, relu: relu(functional.max_pool2d(x, 2)), lambda x, relu: relu(x.flatten(1)).view_as(x),
    ],
)  # fmt: skip
def test_a_relu_in_place_loses_nothing_that_others_need(function, images, targets):
    """Where the network overwrites a value, its memory is used again in the backward pass, if nobody reads it."""
    model = Reusing(lambda x: function(x, functional.relu)).double().requires_grad_(False)
    expected = deeplift(model, images, targets)
    model.activation = lambda x: function(x, functional.relu_)
    torch.testing.assert_close(deeplift(model, images, targets), expected, rtol=0, atol=0)


def test_float32_and_channels_last():
    """Completeness to 1e-4 of the logits' size, float32's rounding through some 50 layers."""
    model, images = network("mobilenet_v2")
    expected = difference(model, images, TARGETS, 0.2).float()
    model, images = model.float().to(memory_format=torch.channels_last), images.float()
    maps = deeplift(model, images.to(memory_format=torch.channels_last), TARGETS, baseline=0.2)
    torch.testing.assert_close(maps.sum((1, 2, 3)), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_a_network_that_takes_another_way_for_the_baseline_is_refused(images, targets):
    class Fickle(nn.Module):
        def forward(self, images):
            x = images.flatten(1)
            return torch.relu(x) if images.abs().sum() > 0 else torch.tanh(x)

    with pytest.raises(MethodError, match="calls tanh for the baseline where it calls relu"):
        deeplift(Fickle(), images, targets)
