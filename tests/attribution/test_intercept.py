"""Interception: every way to call a function is one call, writing in place is undone, nothing stays behind."""

import gc
import weakref

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from roarline.attribution.intercept import Interception, carry, refuse_closed_networks
from roarline.errors import MethodError


class Names(Interception):
    """Collects names of calls and changes nothing."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def handle(self, call):
        self.seen.append((call.name, call.in_place))
        return call()


class Lambda(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def in_place_unused(x: Tensor) -> Tensor:
    y = x * 1
    y.mul_(2)
    y += x
    y.relu_()
    return y


def in_place_in_list(x: Tensor) -> Tensor:
    y = x * 1
    functional.relu(y, inplace=True)
    return torch.cat([y, x], dim=1)


def items(x: Tensor) -> Tensor:
    y, z = x * 2, torch.zeros_like(x)
    y[:, 1:] = x[:, :2].relu()
    z[:, 0] = y[:, 1]
    z[x > 0] = 3.0
    return y * z


def into_a_part(x: Tensor) -> Tensor:
    y = x * 1
    y[:, :1].relu_()
    return y


@pytest.mark.parametrize(
    "function", [in_place_unused, in_place_in_list, items, into_a_part, lambda x: functional.relu_(x * 1)]
)
def test_result_and_gradient_are_those_of_the_network_that_writes_in_place(function):
    images = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    results = []
    for run in (Lambda(function), lambda x: Names().run(Lambda(function), x)):
        leaf = images.clone().requires_grad_()
        logits = run(leaf)
        results.append((logits, torch.autograd.grad(logits.square().sum(), leaf)[0]))
    for plain, seen in zip(*results, strict=True):
        torch.testing.assert_close(seen, plain, rtol=0, atol=0)


def test_what_is_overwritten_keeps_its_value():
    """Methods save it for their backward pass."""
    kept = []

    class Keep(Interception):
        def handle(self, call):
            if call.name == "relu":
                kept.append(call.input)
            return call()

    Keep().run(Lambda(lambda x: functional.relu(x * 1, inplace=True)), torch.tensor([-1.0, 2.0], requires_grad=True))
    assert kept[0].tolist() == [-1.0, 2.0]


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (nn.ReLU(), "relu"), (nn.ReLU(inplace=True), "relu"), (torch.relu, "relu"), (torch.relu_, "relu"),
        (Tensor.relu_, "relu"), (nn.ReLU6(), "hardtanh"), (functional.hardtanh_, "hardtanh"), (nn.SiLU(True), "silu"),
        (lambda x: x + x, "add"), (lambda x: 1 + x, "add"), (lambda x: x.add_(1), "add"), (nn.Sigmoid(), "sigmoid"),
        (nn.MaxPool2d(2), "max_pool2d"), (nn.AdaptiveMaxPool2d(1), "adaptive_max_pool2d"),
        (lambda x: functional.max_pool2d(x, 2, return_indices=True)[0], "max_pool2d"),
        (lambda x: x.clamp(min=0), "relu"), (lambda x: x.clamp_min_(0.0), "relu"), (nn.Threshold(0, 0, True), "relu"),
        (lambda x: x.clamp(0, 6), "clamp"), (lambda x: x.clamp(min=0.1), "clamp"), (lambda x: x.clamp(max=0), "clamp"),
        (lambda x: x.clamp(min=torch.zeros_like(x)), "clamp"), (nn.Threshold(0, 1), "threshold"),
    ],
)  # fmt: skip
def test_one_name_for_all_ways_to_call_a_function(function, name):
    names = Names()
    names.run(Lambda(lambda x: function(x * 1)), torch.ones(1, 1, 4, 4, requires_grad=True))
    assert name in [seen for seen, _ in names.seen]


def test_carry_gives_the_value_and_its_own_backward_pass():
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    y = carry(torch.tensor([5.0, 7.0]), [x], [x], lambda signal, x: (signal * x + 1,))
    assert y.tolist() == [5.0, 7.0]
    assert torch.autograd.grad((3 * y).sum(), x)[0].tolist() == [4.0, 7.0]


def test_a_tensor_that_stands_for_itself_ends():
    class Replacing(Interception):
        def handle(self, call):
            self._replace(call.input, call.input)
            return call()

    x = torch.ones(3, requires_grad=True)
    assert torch.equal(Replacing().run(Lambda(lambda x: x * 2 + 1), x), x * 2 + 1)


def test_a_graph_is_freed_with_its_logits():
    class Carrying(Interception):
        def handle(self, call):
            if call.name != "relu":
                return call()
            return carry(call().detach(), [call.input], [call.input], lambda signal, x: (signal * self.factor * x,))

        factor = 2

    leaf = torch.ones(3, requires_grad=True)
    mode = Carrying()
    logits = mode.run(Lambda(lambda x: functional.relu(x * 1, inplace=True)), leaf)
    watched = weakref.ref(logits)
    del logits, mode
    gc.collect()
    assert watched() is None


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_scripted_and_compiled_networks_are_refused():
    plain = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    refuse_closed_networks(plain, "m")
    for closed, kind in ((torch.jit.script(plain), "scripted"), (torch.compile(plain), "compiled")):
        with pytest.raises(MethodError, match=f"m: .* is {kind}"):
            refuse_closed_networks(closed, "m")
        with pytest.raises(MethodError, match=f"m: '?1'? is {kind}"):
            refuse_closed_networks(nn.Sequential(nn.ReLU(), closed), "m")
