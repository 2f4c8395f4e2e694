"""Channel dimensions read off the network: as the shapes say where those are clear, and where they are not."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional

from roarline.attribution.cam import gradcam
from roarline.attribution.cam_ablation import ablation_cam
from roarline.errors import ModelError
from roarline.models.grids import channel_dimension
from roarline.models.layouts import channel_dimensions
from roarline.models.recording import recording
from tests.attribution.networks import NAMES, network

SWINS = ["swin_t", "swin_v2_t"]


def outputs_of(model, images):
    """Of all layers, at their last call."""
    found = {}
    handles = [
        module.register_forward_hook(lambda module, args, output, name=name: found.update({name: output}))
        for name, module in model.named_modules() if name
    ]  # fmt: skip
    with torch.no_grad():
        model(images)
    for handle in handles:
        handle.remove()
    return {name: output for name, output in found.items() if isinstance(output, torch.Tensor)}


@pytest.mark.parametrize("name", SWINS)
def test_swins_layers_with_as_many_channels_as_rows_and_columns(name):
    """At 32 px the layers are [1, 8, 8, 8], where the shape says nothing; at 64 × 96 px it is clear."""
    model, _ = network(name)
    shapes = outputs_of(model, torch.zeros(1, 3, 32, 32, dtype=torch.float64))
    assert shapes["features.1"].shape == (1, 8, 8, 8)
    oblong = outputs_of(model, torch.zeros(1, 3, 64, 96, dtype=torch.float64))
    expected = {
        layer: channel_dimension(layer, output, (64, 96)) for layer, output in oblong.items()
        if output.ndim == 4 and output.shape[2] > 1
    }  # fmt: skip
    assert set(expected.values()) == {1, 3}
    found = channel_dimensions(model, (3, 32, 32))
    assert {layer: found.get(layer) for layer in expected} == expected


@pytest.mark.parametrize("layer", ["features.0", "features.0.0", "features.1", "features.1.0.attn", "features.1.0.mlp"])
def test_activations_and_gradients_of_swin_have_their_channels_first(layer):
    model, images = network("swin_t")
    with recording(model, layer, images) as recorded, torch.enable_grad():
        gradients = recorded.gradients(model(images)[:, 0].sum())[0]
    raw = recorded.outputs[0].detach()
    assert raw.shape == (2, 8, 8, 8)
    last = layer != "features.0.0"
    torch.testing.assert_close(recorded.activations[0], raw.permute(0, 3, 1, 2) if last else raw, rtol=0, atol=0)
    ours = (gradients * recorded.activations[0]).sum((1, 2, 3))
    (plain,) = torch.autograd.grad(model_from(model, layer, images, raw)[:, 0].sum(), raw.requires_grad_())
    torch.testing.assert_close(ours, (plain * raw).sum((1, 2, 3)).detach())


def model_from(model, layer, images, output):
    """The logits where a layer gives ``output``."""
    handle = model.get_submodule(layer).register_forward_hook(lambda module, args, _: output.requires_grad_())
    with torch.enable_grad():
        logits = model(images)
    handle.remove()
    return logits


@pytest.mark.parametrize(
    "method", [partial(gradcam, layer="norm"), partial(ablation_cam, layer="norm", image_index=[0])]
)
def test_cams_of_swin_lie_where_the_object_is(method):
    """A linear read-out of one channel-last layer: the map of a square in one corner is high there alone."""

    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.cut, self.norm = nn.Conv2d(3, 8, 4, 4, bias=False), nn.LayerNorm(8)
            self.head = nn.Linear(8, 2)

        def forward(self, images):
            x = self.norm(self.cut(images).permute(0, 2, 3, 1))
            return self.head(x.mean((1, 2)))

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Last().eval().requires_grad_(False)
    images = torch.zeros(1, 3, 32, 32)
    images[:, :, :8, 24:] = 3.0
    target = (model(images) - model(images * 0))[0].argmax()[None]
    cells = method(model, images, target)[0, 2::4, 2::4].clone()
    inside = cells[:2, 6:].clone()
    cells[:3, 5:] = 0  # with the neighbours, which resizing mixes with it
    torch.testing.assert_close(cells, torch.zeros_like(cells), rtol=0, atol=1e-6)
    assert inside.min() > 1e-3


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("convnext_tiny", "vit_b_16")])
def test_networks_of_convolutions_have_channels_first(name):
    model, _ = network(name)
    assert set(channel_dimensions(model, (3, 48, 48)).values()) == {1}


def test_convnext_has_them_last_inside_its_blocks():
    model, _ = network("convnext_tiny")
    found = channel_dimensions(model, (3, 32, 32))
    inside = [found[f"features.1.0.block.{index}"] for index in range(7)]
    assert inside == [1, 3, 3, 3, 3, 3, 1]
    assert found["features.0"] == found["features.1"] == found["features.3"] == 1


def test_a_map_that_does_not_keep_the_images_proportions_stays_a_map():
    """[1, 16, 16, 4] of a square image: by its shape alone the first 16 would be taken for rows."""
    model = nn.Sequential(nn.Conv2d(3, 16, 3, (1, 4), 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3))
    images = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with recording(model.eval(), "0", images, gradients=False) as recorded:
        model(images)
    assert recorded.activations[0].shape == (1, 16, 16, 4)
    assert torch.equal(recorded.activations[0], recorded.outputs[0])


class Mixing(nn.Module):
    """Channels last, and then a matrix product of which nobody knows what its dimensions are."""

    def __init__(self):
        super().__init__()
        self.norm, self.mix, self.head = nn.LayerNorm(8), nn.Bilinear(1, 1, 1), nn.Linear(8, 3)
        self.mix.forward = lambda x: x @ x

    def forward(self, images):
        x = self.norm(functional.avg_pool2d(images.expand(-1, 8, -1, -1), 4).permute(0, 2, 3, 1))
        return self.head(self.mix(x).flatten(2).mean(1)[:, :8])


def test_a_layer_that_may_be_either_is_refused():
    model, images = Mixing().eval(), torch.randn(2, 1, 32, 32)
    with pytest.raises(ModelError, match=r"'mix' gives shape .* which may be"), recording(model, "mix", images):
        model(images)


def test_read_once_and_nothing_is_left_behind():
    model, calls = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2)), []
    model.train()
    handle = model[0].register_forward_hook(lambda module, args, output: calls.append(module.training))
    assert channel_dimensions(model, (3, 8, 8)) == channel_dimensions(model, (3, 8, 8)) == {"0": 1}
    assert calls == [False]
    assert model[0].training
    handle.remove()
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_of_compiled_networks_too():
    model = torch.compile(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2)))
    assert channel_dimensions(model, (3, 8, 8)) == {"_orig_mod.0": 1}
