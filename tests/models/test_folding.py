"""Folded batch normalisation: the same function, and only where nobody else reads what is folded."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor, nn

from roarline.models.build import build
from roarline.models.folding import fold_batch_norms


def stirred(model: nn.Module) -> nn.Module:
    """In eval mode, with running statistics and scales that are not those of a new network."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, low, high in (
                (module.running_mean, -0.2, 0.2), (module.running_var, 0.5, 1.5), (module.weight, -0.3, 1.5),
                (module.bias, -0.2, 0.2),
            ):  # fmt: skip
                values.data.copy_(torch.rand(values.shape, generator=generator) * (high - low) + low)
    return model.eval().requires_grad_(False)


def count(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenet_v2", "densenet121", "vgg11_bn", "efficientnet_b0", "convnext_tiny"]
)
def test_outputs_and_gradients_are_those_of_the_network_itself(name: str) -> None:
    torch.manual_seed(0)
    model = stirred(torchvision.models.get_model(name, weights=None)).double()
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    folded = fold_batch_norms(model, (3, 64, 64))

    def of(network: nn.Module) -> tuple[Tensor, Tensor]:
        leaf = images.clone().requires_grad_()
        logits = network(leaf)
        return logits.detach(), torch.autograd.grad(logits[:, 3].sum(), leaf)[0]

    for ours, theirs in zip(of(folded), of(model), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(("name", "left"), [("resnet18", 0), ("mobilenet_v2", 0), ("vgg11_bn", 0), ("densenet121", 62)])
def test_only_normalisations_right_behind_a_convolution_are_folded(name: str, left: int) -> None:
    """DenseNet normalises before its convolutions; of its 121 half follow one inside a layer."""
    folded = fold_batch_norms(torchvision.models.get_model(name, weights=None).eval(), (3, 64, 64))
    assert count(folded) == left


def test_our_own_networks_have_none_left() -> None:
    for arch in ("resnet8", "small_cnn"):
        model = build(arch, {}, 10, input_size=(16, 16), seed=0).eval()
        assert count(fold_batch_norms(model, (3, 16, 16))) == 0


@pytest.mark.parametrize(("layer", "left"), [("layer4.1.conv2", 1), ("layer4.1.bn2", 0), ("layer1", 15), ("conv1", 20)])
def test_a_layers_output_and_what_follows_it_stay_as_they_are(layer: str, left: int) -> None:
    """A ResNet-18 has 20 normalisations: 1 before the first stage, 4 in it, 5 in each of the others."""
    model = stirred(torchvision.models.resnet18(weights=None))
    folded = fold_batch_norms(model, (3, 64, 64), before=[layer])
    assert count(folded) == left
    seen: list[Tensor] = []
    for network in (model, folded):
        handle = network.get_submodule(layer).register_forward_hook(lambda *call: seen.append(call[2]))
        network(torch.ones(1, 3, 64, 64))
        handle.remove()
    torch.testing.assert_close(*seen, rtol=1e-4, atol=1e-5)  # float32 through up to 20 layers
    assert not any(module._forward_hooks for module in model.modules())


class Reader(nn.Module):
    """Reads the convolution's output twice, or uses a module twice."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.conv, self.norm, self.other = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if self.kind == "a sum":
            return (self.norm(y) + y).mean(dim=(2, 3))
        if self.kind == "convolved twice":
            return self.norm(self.conv(y)).mean(dim=(2, 3))
        if self.kind == "normalised twice":
            return self.norm(torch.relu(self.norm(y))).mean(dim=(2, 3))
        if self.kind == "in place":
            return self.norm(y.add_(1)).mean(dim=(2, 3))
        return (self.norm(y) * self.other(y)).mean(dim=(2, 3))


@pytest.mark.parametrize("kind", ["a sum", "convolved twice", "normalised twice", "two norms", "in place"])
def test_what_others_read_is_not_folded(kind: str) -> None:
    model = stirred(Reader(kind))
    assert fold_batch_norms(model, (3, 4, 4)) is model


def test_a_network_in_training_mode_or_with_hooks_is_not_folded() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten())
    assert fold_batch_norms(plain.train(), (3, 4, 4)) is plain
    plain.eval()[0].register_forward_hook(lambda module, args, output: output * 2)
    assert fold_batch_norms(plain, (3, 4, 4)) is plain
