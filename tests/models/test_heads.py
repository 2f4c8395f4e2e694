"""Heads and backbones, a new head, and the maximum over all places instead of the mean."""

from pathlib import Path

import pytest
import torch
from torch import nn

from roarline.errors import ModelError, UserInputError
from roarline.models.build import build
from roarline.models.heads import backbone, freeze_backbone, head_name

SIZE = (32, 32)


def made(arch: str, **params: object) -> nn.Module:
    return build(arch, params, 3, input_size=SIZE, seed=0).eval()


@pytest.mark.parametrize(
    ("arch", "head"),
    [("torchvision:resnet18", "fc"), ("torchvision:mobilenet_v3_small", "classifier"), ("small_cnn", "linear")],
)
def test_only_the_head_is_trained_once_the_backbone_is_frozen(arch, head):
    model = made(arch)
    assert head_name(model) == head
    freeze_backbone(model)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert trained == [name for name, _ in model.named_parameters() if name.startswith(head + ".")] != []
    parts = backbone(model)
    assert model.get_submodule(head) not in parts
    assert len(parts) == len(list(model.children())) - 1


def test_a_network_without_a_usual_head_is_refused():
    with pytest.raises(ModelError, match=r"Sequential has no head named fc, .* its children: 0, 1"):
        head_name(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))


def test_a_new_head_keeps_its_random_values_though_the_weights_would_fit(tmp_path: Path):
    other = build("small_cnn", {"width": 4}, 3, input_size=None, seed=1)
    file = tmp_path / "weights.pth"
    torch.save(other.state_dict(), file)
    loaded = build("small_cnn", {"width": 4}, 3, input_size=None, weights_file=file, seed=0)
    fresh = build("small_cnn", {"width": 4}, 3, input_size=None, weights_file=file, seed=0, new_head=True)
    random = build("small_cnn", {"width": 4}, 3, input_size=None, seed=0)
    assert torch.equal(loaded.linear.weight, other.linear.weight)
    assert torch.equal(fresh.linear.weight, random.linear.weight)
    assert torch.equal(fresh.conv1.weight, other.conv1.weight)


@pytest.mark.parametrize(
    ("arch", "layer", "head"),
    [("torchvision:resnet18", "layer4", "fc"), ("resnet8", "layer3", "linear"), ("small_cnn", "relu3", "linear")],
)
def test_with_pooling_max_the_logits_are_those_of_the_largest_features(arch, layer, head):
    mean, most = made(arch), made(arch, pooling="max")
    most.load_state_dict(mean.state_dict())  # the weights are the same ones
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for model, reduce in ((mean, lambda x: x.mean((2, 3))), (most, lambda x: x.amax((2, 3)))):
        seen = {}
        hook = model.get_submodule(layer).register_forward_hook(lambda m, i, o, seen=seen: seen.update(features=o))
        with torch.no_grad():
            logits = model(images)
            torch.testing.assert_close(logits, model.get_submodule(head)(reduce(seen["features"])))
        hook.remove()


def test_pooling_max_gives_its_gradient_to_one_place_a_channel():
    model = made("resnet8", pooling="max")
    seen = {}

    def keep(module: nn.Module, inputs: object, output: torch.Tensor) -> None:
        output.retain_grad()
        seen["features"] = output

    model.layer3.register_forward_hook(keep)
    model(torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)))[0, 0].backward()
    assert int((seen["features"].grad != 0).sum((2, 3)).max()) == 1


@pytest.mark.parametrize("arch", ["torchvision:alexnet", "torchvision:densenet121"])
def test_a_network_whose_last_pooling_is_not_known_is_refused(arch):
    with pytest.raises(ModelError, match="can't have pooling: max"):
        build(arch, {"pooling": "max"}, 3, input_size=None, seed=0)


def test_another_pooling_is_refused():
    with pytest.raises(ModelError, match="pooling is 'median', expected mean or max"):
        build("torchvision:resnet18", {"pooling": "median"}, 3, input_size=None, seed=0)
    with pytest.raises(UserInputError, match="pooling"):
        build("small_cnn", {"pooling": "median"}, 3, input_size=None, seed=0)
