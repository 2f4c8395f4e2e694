"""lrp: conservation of relevance, input × gradient without biases, rules by hand, parity with captum, refusals."""

import captum.attr
import pytest
import torch
from torch import nn
from torch.nn import functional

from roarline.attribution.gradient import input_x_gradient
from roarline.attribution.lrp import lrp
from roarline.errors import MethodError
from tests.attribution.networks import NAMES, network

TARGETS = torch.tensor([1, 3])
REFUSED = {"convnext_tiny", "vit_b_16"}
RELU_NETWORKS = [name for name in NAMES if name not in REFUSED | {"efficientnet_b0", "mobilenet_v2"}]
COMPOSITES = ["epsilon_plus", "epsilon_alpha2_beta1"]
FIRST = ["flat", "w2", "box"]


def relevance(model, images, targets, **params):
    return lrp(model, images, targets, **{"mean": [0.5], "std": [0.25], "epsilon": 1e-12} | params)


def logits_of(model, images, targets):
    with torch.no_grad():
        return model(images).gather(1, targets[:, None])[:, 0]


@pytest.mark.parametrize("name", RELU_NETWORKS)
def test_epsilon_without_biases_is_input_times_gradient(name):
    """ε = 1e-12 leaves a part in 1e9 of ReLU networks' relevance, whose smallest sums are about 1e-3."""
    model, images = network(name, biases=False)
    maps, expected = relevance(model, images, TARGETS, rule="epsilon"), input_x_gradient(model, images, TARGETS)
    torch.testing.assert_close(maps, expected, rtol=1e-6, atol=1e-8 * float(expected.abs().max()))


@pytest.mark.parametrize("rule", ["epsilon", *COMPOSITES])
def test_epsilon_of_0_ends_also_where_others_look_at_the_logits(rule):
    """As extraction does. Of LRP-ε it is the limit; the other rules stabilise with 1e-30."""
    model, images = network("vgg11_bn", biases=False)
    expected = relevance(model, images, TARGETS, rule=rule)
    seen = []
    handle = model.register_forward_hook(lambda module, args, logits: seen.append(logits.argmax(1)))
    maps = relevance(model, images, TARGETS, rule=rule, epsilon=0.0)
    handle.remove()
    assert len(seen) == 1
    torch.testing.assert_close(maps, expected, rtol=1e-6, atol=1e-8 * float(expected.abs().max()))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in REFUSED])
def test_epsilon_keeps_relevance_where_there_are_no_biases(name):
    """Through SiLU, ReLU6 and the gates of EfficientNet as well."""
    model, images = network(name, biases=False)
    maps = relevance(model, images, TARGETS, rule="epsilon")
    torch.testing.assert_close(maps.sum((1, 2, 3)), logits_of(model, images, TARGETS), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("first_rule", FIRST)
@pytest.mark.parametrize("name", ["resnet18", "vgg11_bn"])
def test_epsilon_plus_keeps_relevance_where_linear_layers_have_no_bias(name, first_rule):
    """Biases of convolutions and batch normalisation take none: every unit has some input that excites it."""
    model, images = network(name)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
    images = images.clamp(-2, 2)
    maps = relevance(model, images, TARGETS, first_rule=first_rule)
    torch.testing.assert_close(maps.sum((1, 2, 3)), logits_of(model, images, TARGETS), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("rule", ["epsilon", *COMPOSITES])
@pytest.mark.parametrize("name", NAMES)
def test_on_architectures_finite_or_refused(name, rule):
    model, images = network(name)
    if name in REFUSED:
        with pytest.raises(MethodError, match="calls layer_norm, for which the method has no rule"):
            relevance(model, images, TARGETS, rule=rule)
        return
    maps = relevance(model, images, TARGETS, rule=rule, epsilon=1e-6)
    assert maps.isfinite().all()
    assert maps.abs().amax((1, 2, 3)).min() > 0


class OneLayer(nn.Module):
    """relu(w · x + b) of three values: the relevance is that of one layer."""

    def __init__(self, weights, bias, call=functional.linear):
        super().__init__()
        self.weight, self.bias = torch.tensor([weights]), torch.tensor([bias])
        self.before = nn.Identity()

    def forward(self, images):
        return functional.conv2d(self.before(images), self.weight.reshape(1, 3, 1, 1), self.bias).relu().flatten(1)


def of_one_layer(x, rule, **params):
    """w = (2, -1, 1), b = 1."""
    model = OneLayer([2.0, -1.0, 1.0], 1.0)
    return relevance(model, torch.tensor(x).reshape(1, 3, 1, 1), torch.tensor([0]), rule=rule, **params).flatten()


def test_rules_of_the_first_layer_by_hand():
    """x = (1, 2, 3), y = 2 - 2 + 3 + 1 = 4: ε 4 · (2, -2, 3) / 4; ♭ 4 / 3 each; w² 4 · (4, 1, 1) / 6."""
    x = [1.0, 2.0, 3.0]
    torch.testing.assert_close(of_one_layer(x, "epsilon"), torch.tensor([2.0, -2.0, 3.0]))
    torch.testing.assert_close(of_one_layer(x, "epsilon_plus"), torch.tensor([4 / 3] * 3))
    torch.testing.assert_close(of_one_layer(x, "epsilon_plus", first_rule="w2"), torch.tensor([8.0, 2.0, 2.0]) / 3)


def test_box_rule_by_hand():
    """Pixels, mean 0.5 and std 0.25, lie in [-2, 2]: x w - l w⁺ - h w⁻ = (2+4, -1+2, 1+2) at x = 1; y = 3."""
    maps = of_one_layer([1.0, 1.0, 1.0], "epsilon_plus", first_rule="box")
    torch.testing.assert_close(maps, torch.tensor([6.0, 1.0, 3.0]) * 3 / 10)


class TwoLayers(nn.Module):
    """A first layer that hands its inputs through, then a second: x → x · 1 → relu(w · x + b)."""

    def __init__(self, relu):
        super().__init__()
        self.relu = relu
        self.first, self.second = torch.eye(3).reshape(3, 3, 1, 1), torch.tensor([2.0, -1.0, 1.0]).reshape(1, 3, 1, 1)

    def forward(self, images):
        x = functional.conv2d(images, self.first)
        x = functional.relu(x) if self.relu else x
        return functional.conv2d(x, self.second, torch.tensor([1.0])).relu().flatten(1)


@pytest.mark.parametrize(
    ("rule", "relu", "x", "expected"),
    [
        # y = 4; excitatory parts 2 and 3 of 5; inhibitory -2 of -2.
        ("epsilon_plus", True, [1.0, 2.0, 3.0], [4 * 2 / 5, 0.0, 4 * 3 / 5]),
        ("epsilon_alpha2_beta1", True, [1.0, 2.0, 3.0], [8 * 2 / 5, -4.0, 8 * 3 / 5]),
        # x₂ = -2, y = 2 + 2 - 3 + 1 = 2, with x₃ = -3: excitatory 2 and 2 of 4; inhibitory -3 of -3.
        ("epsilon_plus", False, [1.0, -2.0, -3.0], [1.0, 1.0, 0.0]),
        ("epsilon_alpha2_beta1", False, [1.0, -2.0, -3.0], [2.0, 2.0, -2.0]),
    ],
)
def test_alpha_beta_rules_by_hand(rule, relu, x, expected):
    """The identity before has one input a unit, so that w² hands relevance on as it is; inputs may be negative."""
    maps = relevance(
        TwoLayers(relu), torch.tensor(x).reshape(1, 3, 1, 1), torch.tensor([0]), rule=rule, first_rule="w2"
    )
    torch.testing.assert_close(maps.flatten(), torch.tensor(expected))


@pytest.mark.parametrize("rule", ["epsilon", *COMPOSITES])
def test_batch_normalisation_is_folded_into_its_convolution(rule, images, targets, generator):
    def build(*layers):
        return nn.Sequential(*layers, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)).double().eval()

    conv, norm = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)
    for tensor in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(tensor, generator=generator)
    apart = build(nn.Conv2d(3, 3, 3), nn.ReLU(), conv, norm)
    together = build(apart[0], apart[1], nn.utils.fuse_conv_bn_eval(conv.eval(), norm.eval()))
    together[-1] = apart[-1]
    torch.testing.assert_close(
        relevance(apart, images, targets, rule=rule), relevance(together, images, targets, rule=rule)
    )


class Plain(nn.Module):
    """captum has no rule for ``nn.Flatten``."""

    def __init__(self, pool):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), pool, nn.Conv2d(6, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        )
        self.last = nn.Linear(8, 5)

    def forward(self, images):
        return self.last(self.body(images).flatten(1))


@pytest.mark.parametrize("pool", [nn.MaxPool2d(2), nn.AvgPool2d(2)])
def test_epsilon_equals_captums_on_a_plain_network(pool, images, targets, generator):
    """captum stabilises pooling too, with 1e-9 of values about 0.1."""
    model = Plain(pool).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0, 0.5, generator=generator)
    expected = captum.attr.LRP(model).attribute(images.clone().requires_grad_(), target=targets).detach()
    maps = relevance(model, images, targets, rule="epsilon", epsilon=1e-9)
    torch.testing.assert_close(maps, expected, rtol=1e-5, atol=1e-7 * float(expected.abs().max()))


def test_functional_sums_and_activations_are_those_of_modules(images, targets):
    """captum hooks modules, and passes over a ResNet's sums."""
    model, images = network("resnet18", biases=False)
    assert any(isinstance(module, nn.ReLU) for module in model.modules())
    maps = relevance(model, images, TARGETS, rule="epsilon")
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.forward = lambda x: functional.relu_(x)
    torch.testing.assert_close(relevance(model, images, TARGETS, rule="epsilon"), maps, rtol=0, atol=0)


def test_normalisation_inside_the_network_takes_no_relevance(images, targets):
    """With rules for the first layer relevance passes through it as it is."""

    class Normalising(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, images):
            return self.model((images - 0.3) / 0.7)

    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
    ).double()
    expected = relevance(model, images, targets)
    torch.testing.assert_close(relevance(Normalising(model), images * 0.7 + 0.3, targets), expected)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x.exp(), "calls exp,"), (lambda x: x * x.mean((2, 3), keepdim=True), "calls mul,"),
        (lambda x: x.softmax(1), "calls softmax,"),
    ],
)  # fmt: skip
def test_a_function_without_a_rule_is_refused(function, message, images, targets):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 5, 3)

        def forward(self, images):
            return function(self.conv(images)).mean((2, 3))

    with pytest.raises(MethodError, match=message):
        relevance(Net().double(), images, targets)


class Between(nn.Module):
    """Something between two convolutions and activations."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.first, self.second, self.last = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 5, bias=False)

    def forward(self, images):
        return self.last(self.second(self.function(self.first(images))).relu().mean((2, 3)))


def written(x):
    x[:, 0] = x[:, 1].relu()
    return x.relu()


def lowered(x):
    x = x.relu()
    x[:, 0] = -1.0
    return x


@pytest.mark.parametrize("rule", ["epsilon", *COMPOSITES])
def test_what_is_written_into_a_tensor_is_as_good_as_put_together(rule, images, targets):
    put_together = Between(lambda x: torch.cat([x[:, 1:2].relu(), x[:, 1:]], dim=1).relu()).double()
    expected = relevance(put_together, images, targets, rule=rule)
    put_together.function = written
    torch.testing.assert_close(relevance(put_together, images, targets, rule=rule), expected)


@pytest.mark.parametrize("rule", ["epsilon", *COMPOSITES])
def test_a_relu_in_place_loses_nothing_that_others_need(rule, images, targets):
    model = Between(lambda x: x * 2 + functional.relu(x)).double()
    expected = relevance(model, images, targets, rule=rule)

    def overwriting(x):
        double = x * 2
        return double + functional.relu_(x)

    model.function = overwriting
    torch.testing.assert_close(relevance(model, images, targets, rule=rule), expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    "function",
    [lowered, lambda x: functional.pad(x.relu()[:, 1:], (0, 0, 0, 0, 1, 0), value=-1.0), lambda x: x.relu() - 1,
     lambda x: torch.cat([torch.full_like(x[:, :1], -1), x[:, 1:].relu()], dim=1), lambda x: x.relu() + (-1.0)],
)  # fmt: skip
def test_constants_below_0_behind_a_relu_count_as_negative_inputs(function, images, targets):
    """The same values behind a function that says nothing of their sign must get the same relevance."""
    model = Between(function).double()
    maps = relevance(model, images, targets)
    model.function = lambda x: function(x).chunk(1, dim=1)[0]  # chunk gives a list, whose parts are not looked at
    torch.testing.assert_close(maps, relevance(model, images, targets))


@pytest.mark.parametrize("rule", ["epsilon", *COMPOSITES])
def test_what_is_overwritten_through_a_view_and_needed_is_refused(rule, images, targets):
    def function(x):
        x = x.relu()
        x[:, 0].mul_(2)
        return x

    with pytest.raises(MethodError, match="lrp: the network writes into a part of a tensor"):
        relevance(Between(function).double(), images, targets, rule=rule)


def test_a_network_of_gates_alone_is_refused(images, targets):
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 5), nn.Sigmoid(), nn.Linear(5, 5)).double()
    with pytest.raises(MethodError, match="no relevance reaches the image"):
        relevance(model, images, targets)


def test_unknown_rule_is_refused(convnet, images, targets):
    with pytest.raises(MethodError, match="expected epsilon, epsilon_plus, epsilon_alpha2_beta1; flat, w2, box"):
        relevance(convnet, images, targets, rule="gamma")
