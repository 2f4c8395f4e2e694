"""Running a network from a layer on: the same logits as with that layer's output replaced in a whole pass."""

import pytest
import torch
from torch import nn

from roarline.errors import ModelError
from roarline.models.cifar_resnet import resnet8
from roarline.models.layers import find_layer
from roarline.models.replay import Replay
from tests.models.test_auto_layer import TimmLikeViT, swin, vit

IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def replaced(model, layer, image, outputs):
    """Logits of a whole pass over copies of one image, the layer's last output replaced by a hook."""
    module, calls = find_layer(model, layer), []
    counting = module.register_forward_hook(lambda called, args, output: calls.append(1))
    model(IMAGES[:1])
    counting.remove()
    left = len(calls)

    def replace(called, args, output):
        nonlocal left
        left -= 1
        return outputs.clone() if left == 0 else output

    handle = module.register_forward_hook(replace)
    logits = model(IMAGES[image].expand(len(outputs), -1, -1, -1))
    handle.remove()
    return logits


def in_place(skip):
    """Convolutions, a ReLU in place, and code that adds in place to what one of two branches gave."""

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
            self.norm, self.relu = nn.BatchNorm2d(4), nn.ReLU(inplace=True)
            self.side, self.linear = nn.Conv2d(4, 4, 1), nn.Linear(4, 5)

        def forward(self, images):
            x = self.relu(self.norm(self.one(images)))
            y = self.two(x)
            if skip:
                y += self.side(x)
            return self.linear(self.relu(y).mean((2, 3)))

    return Network()


CASES = [
    (resnet8, (5,), "layer3", True),
    (resnet8, (5,), "layer3.0.relu", True),  # called twice: only its last output is replaced
    (resnet8, (5,), "layer2.0.conv1", True),
    (vit, (), "encoder.layers.encoder_layer_1.ln_1", True),
    (vit, (), "encoder.layers.encoder_layer_1.ln_2", True),  # behind an attention, which gives a tuple
    (TimmLikeViT, (1, "token"), "blocks.1.norm1", True),
    (swin, (), "features.1", True),
    (in_place, (False,), "two", True),  # norm's output is overwritten, but by a module that is not run again
    (in_place, (False,), "norm", True),  # its own output is overwritten afterwards
    (in_place, (True,), "side", False),  # the code that runs again writes into two's output
    (in_place, (True,), "two", True),
]


@pytest.mark.parametrize(("build", "arguments", "layer", "remembers"), CASES)
def test_equals_a_whole_pass_with_that_output_replaced(build, arguments, layer, remembers):
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model = build(*arguments).eval()
        replay = Replay(model, layer, IMAGES)
        torch.testing.assert_close(replay.logits_BK, model(IMAGES))
        altered = replay.output[1] * torch.tensor([0.0, 0.5, 1.0, -2.0]).reshape(4, *[1] * (replay.output.ndim - 1))
        expected = replaced(model, layer, 1, altered)
        torch.testing.assert_close(replay.logits(1, altered.clone()), expected)
        torch.testing.assert_close(expected[2], replay.logits_BK[1])  # unchanged: one would see a wrong image here
        assert replay.remembers == remembers


def test_only_what_follows_the_layer_is_run():
    model, run = resnet8(5).eval(), []
    replay = Replay(model, "layer2", IMAGES)
    for name, module in model.named_modules():
        if not list(module.children()):
            original = module.forward
            module.forward = lambda *args, name=name, original=original: run.append(name) or original(*args)
    replay.logits(0, replay.output[:1].clone())
    assert run
    assert {name.partition(".")[0] for name in run} == {"layer3", "linear"}


def test_everything_is_put_back_after_an_error_too():
    model = resnet8(5).eval()
    replay = Replay(model, "layer3", IMAGES)
    with pytest.raises(RuntimeError):
        replay.logits(0, torch.zeros(2, 1, 4, 4))
    assert not any("forward" in vars(module) for module in model.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_forward_of_ones_own_comes_back():
    model = resnet8(5).eval()
    own = model.layer1.forward
    model.layer1.forward = own
    replay = Replay(model, "layer3", IMAGES)
    replay.logits(0, replay.output[:1])
    assert vars(model.layer1)["forward"] is own


class Fickle(nn.Module):
    """Calls its first two modules in an order that depends on the image."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.last = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, images):
        first, second = (self.one, self.two) if len(images) > 2 else (self.two, self.one)
        return self.last(second(first(images))).mean((2, 3))


def test_a_network_that_runs_otherwise_the_second_time_is_refused():
    replay = Replay(Fickle(), "last", IMAGES)
    with pytest.raises(ModelError, match="in another order"):
        replay.logits(0, replay.output[:1])


def test_a_layer_that_is_not_called_is_refused():
    model = Fickle()
    model.spare = nn.Conv2d(3, 3, 1)
    with pytest.raises(ModelError, match="'spare' is not called"):
        Replay(model, "spare", IMAGES)
