"""Networks as one: the logits and gradients of each alone, nothing from one to another, refusal where that can't be."""

import copy

import pytest
import torch
from torch import Tensor, nn

from roarline.errors import ModelError
from roarline.models.build import build
from roarline.models.stacking import StackedNetworks

SIZE = (8, 8)
# float64: sums of some hundred products in another order.
CLOSE = {"rtol": 1e-9, "atol": 1e-11}


class Separable(nn.Module):
    """What small networks are made of beside plain convolutions: a depthwise one, gates, dropout, two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.spread = nn.Conv2d(3, 8, 1, bias=True)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.norm = nn.BatchNorm2d(8, affine=False)
        self.pool = nn.MaxPool2d(2)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.Sigmoid())
        self.first = nn.Linear(8 * 16, 12)
        self.last = nn.Linear(12, 3, bias=False)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.norm(self.depthwise(self.spread(x))))
        x = (x * self.gate(x)).flatten(1)
        return self.last(self.dropout(torch.relu(self.first(x))))


class Concatenating(nn.Module):
    """Channels of two layers side by side: in a stack they would lie between those of other networks."""

    def __init__(self, num_classes: int = 4) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)
        self.mix = nn.Conv2d(8, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(torch.cat([self.one(x), self.two(x)], 1)).mean((2, 3))


class Normalised(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(144, 3))


def networks(make, count=3) -> list[nn.Module]:
    made = []
    for seed in range(count):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            made.append(make().double())
    return made


def make_small() -> nn.Module:
    return build("small_cnn", {"width": 4}, 5, input_size=None, seed=int(torch.randint(9, ())))


def make_resnet() -> nn.Module:
    return build("narrow_resnet8", {"width": 4, "pooling": "max"}, 5, input_size=None, seed=int(torch.randint(9, ())))


def images_of(count: int, batch: int = 6) -> list[Tensor]:
    shape = (count, batch, 3, *SIZE)
    return list(torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(100)))


@pytest.mark.parametrize("make", [make_small, make_resnet, Separable])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_logits_gradients_and_running_statistics_are_those_of_each_network(make, memory_format):
    singles = networks(make)
    for network in singles:
        for module in network.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
    stack = StackedNetworks(singles, SIZE).to(memory_format=memory_format)
    own = images_of(3)
    logits = stack(torch.cat(own, 1).contiguous(memory_format=memory_format))
    logits.square().sum().backward()
    gradients = dict(stack.together.named_parameters())
    for place, (network, images) in enumerate(zip(singles, own, strict=True)):
        expected = network(images)
        expected.square().sum().backward()
        torch.testing.assert_close(logits[:, place], expected, **CLOSE)
        for name, parameter in network.named_parameters():
            torch.testing.assert_close(stack.part(gradients[name].grad, place), parameter.grad, **CLOSE)
        for name, value in network.state_dict().items():
            steps = 1 if name.endswith("num_batches_tracked") else value
            torch.testing.assert_close(stack.state_of(place)[name], torch.as_tensor(steps), **CLOSE)


def test_a_stack_starts_from_the_states_of_its_networks_and_leaves_them_alone():
    singles = networks(make_resnet)
    for network in singles:
        network(images_of(1)[0])  # running statistics that differ
    before = [copy.deepcopy(network.state_dict()) for network in singles]
    stack = StackedNetworks(singles, SIZE)
    stack(torch.cat(images_of(3), 1)).sum().backward()
    for place, (network, state) in enumerate(zip(singles, before, strict=True)):
        assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
        fresh = StackedNetworks(singles, SIZE).state_of(place)
        assert all(torch.equal(value, state[name]) for name, value in fresh.items())
    assert all(parameter.grad is None for network in singles for parameter in network.parameters())


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("make", [make_small, Separable])
def test_a_network_of_nan_spoils_no_other(make, memory_format):
    stack = StackedNetworks(networks(make), SIZE).to(memory_format=memory_format).eval()
    images = torch.cat(images_of(3), 1).contiguous(memory_format=memory_format)
    before = stack(images)
    with torch.no_grad():
        for parameter in stack.parameters():
            stack.part(parameter, 1).fill_(torch.nan)
    stack.zero_grad()
    after = stack(images)
    assert bool(after[:, 1].isnan().all())
    assert torch.equal(after[:, [0, 2]], before[:, [0, 2]])
    after.sum().backward()
    for parameter in stack.parameters():
        assert bool(stack.part(parameter.grad, 0).isfinite().all())
        assert bool(stack.part(parameter.grad, 2).isfinite().all())


@pytest.mark.parametrize(("make", "said"), [(Concatenating, "other logits"), (Normalised, "a GroupNorm can't")])
def test_what_can_not_be_stacked_is_refused_with_what_to_do(make, said):
    with pytest.raises(ModelError, match=f"{said}.*engine: single"):
        StackedNetworks(networks(make), SIZE)


def test_dropout_draws_for_each_network():
    stack = StackedNetworks(networks(lambda: nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(192, 3)), 2), SIZE)
    with torch.no_grad():
        for parameter in stack.parameters():
            stack.part(parameter, 1).copy_(stack.part(parameter, 0))
    same = images_of(1)[0]
    logits = stack.train()(torch.cat([same, same], 1))
    assert not torch.equal(logits[:, 0], logits[:, 1])
