"""gradcam: class activation map by hand, parity with captum and with arrays of four originals."""

import json
from collections import OrderedDict
from pathlib import Path

import captum.attr
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from roarline.attribution.cam import gradcam
from roarline.errors import ModelError
from roarline.imaging.cam import grad_cam
from roarline.models.cifar_resnet import resnet8
from roarline.models.recording import recording
from tests.golden_recipes import recipe_tensor

GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.mark.parametrize("weights", ["pooled", "elementwise"])
def test_before_global_mean_and_linear_it_is_the_class_activation_map(convnet, images, targets, weights):
    """The logit is Σ_c w_c · mean(A_c) + b, so that every cell's gradient is w_c / (h · w), pooled or not."""
    convnet.eval()
    activations = convnet.conv2(convnet.pool(convnet.relu(convnet.norm(convnet.conv1(images)))))
    expected = torch.einsum("bchw,bc->bhw", activations.relu(), convnet.linear.weight[targets]).detach() / 16
    maps = gradcam(convnet, images, targets, layer="relu", relu=False, weights=weights)
    expected = functional.interpolate(expected[:, None], size=(8, 8), mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(maps, expected)


@pytest.mark.parametrize(("layer", "relu"), [("pool", True), ("conv2", False)])
def test_equals_captums(convnet, images, targets, layer, relu):
    convnet.eval()
    explainer = captum.attr.LayerGradCam(convnet, getattr(convnet, layer))
    small = explainer.attribute(images, target=targets, relu_attributions=relu)
    expected = captum.attr.LayerAttribution.interpolate(small, (8, 8), interpolate_mode="bilinear")[:, 0].detach()
    torch.testing.assert_close(gradcam(convnet, images, targets, layer=layer, relu=relu), expected)


@pytest.mark.parametrize("row", [0, 1])
def test_resized_map_equals_torchrays(backprop_case, row):
    maps = gradcam(backprop_case.model, backprop_case.images, backprop_case.targets[row], layer="relu2")
    expected = backprop_case.arrays["out_grad_cam_resized"][row][:, 0]
    np.testing.assert_allclose(maps.numpy(), expected, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize(("layer", "stored"), [("relu2", "out_grad_cam"), ("pool1", "out_grad_cam_pool1")])
@pytest.mark.parametrize("row", [0, 1])
def test_map_at_the_layers_size_equals_torchrays(backprop_case, layer, stored, row):
    maps = maps_at(backprop_case.model, layer, backprop_case.images, backprop_case.targets[row], "pooled")
    np.testing.assert_allclose(maps.clamp(min=0), backprop_case.arrays[stored][row][:, 0], rtol=1e-7, atol=1e-12)


def maps_at(model, layer, images, targets, weights):
    """[B, h, w], signed, not resized."""
    with recording(model, layer, images) as recorded, torch.enable_grad():
        gradients = recorded.gradients(model(images).gather(1, targets[:, None]).sum())
    return grad_cam(recorded.activations[0], gradients[0], weights)


@pytest.mark.parametrize(
    ("case", "pool", "inputs", "stored", "weights"),
    [
        ("gap", nn.AdaptiveAvgPool2d(1), "in_images", "out_gradcam", "elementwise"),
        ("gmp", nn.AdaptiveMaxPool2d(1), "in_images", "out_gradcam", "elementwise"),
        ("alexnet", nn.AdaptiveAvgPool2d(1), "in_images", "out_gradcam_summed", "summed"),
    ],
)
def test_elementwise_and_summed_equal_those_of_consistent_interpretations(case, pool, inputs, stored, weights):
    """The original scales each map to sum 1 and adds 1e-8 twice; here the same is done to ours."""
    arrays = dict(np.load(GOLDEN / f"s2_gc_loss_{case}.npz", allow_pickle=False))
    model = nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(3, 8, 3, padding=1), relu1=nn.ReLU(), pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(8, 16, 3, padding=1), relu2=nn.ReLU(), pool=pool, flat=nn.Flatten(), fc=nn.Linear(16, 5),
        )
    ).double()  # fmt: skip
    model.load_state_dict(
        {name: torch.from_numpy(arrays[f"w_{name.replace('.', '_')}"]) for name in model.state_dict()}
    )
    images, targets = torch.from_numpy(arrays[inputs]), torch.from_numpy(arrays["in_targets"])
    maps = maps_at(model.eval(), "relu2", images, targets, weights).clamp(min=0)
    scaled = maps / (maps.sum(dim=(1, 2), keepdim=True) + 1e-8) + 1e-8
    np.testing.assert_allclose(scaled, arrays[stored], rtol=1e-7, atol=1e-12)


def test_at_a_module_called_twice_it_reads_the_last_call_as_the_original_does():
    golden = dict(np.load(GOLDEN / "s4_resnet8.npz", allow_pickle=False))
    params = json.loads(str(golden["params"]))
    model = resnet8(10).double().eval()
    state = model.state_dict()
    for position, name in enumerate(params["keys"]):
        state[name] = recipe_tensor(tuple(state[name].shape), name, position, params["seed"])
    model.load_state_dict(state)
    images = torch.from_numpy(golden["in_images"]).double()
    maps = gradcam(model, images, torch.full((3,), -1), layer="layer3.0.relu")
    expected = golden["out_gradcam"]
    np.testing.assert_array_equal(expected[:, 0], expected[:, 1])  # the original repeats the map for each channel
    np.testing.assert_allclose(maps.numpy(), expected[:, 0], rtol=1e-7, atol=1e-10)


def test_a_layer_whose_output_is_overwritten_in_place_is_read_before(images, targets):
    """A ReLU in place after the layer would otherwise change the activations, and fail on a leaf."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)]
    model = nn.Sequential(*layers).double()
    in_place = gradcam(model, images, targets, layer="0", relu=False)
    model[1] = nn.ReLU(inplace=False)
    torch.testing.assert_close(in_place, gradcam(model, images, targets, layer="0", relu=False), rtol=0, atol=0)


def test_images_may_be_oblong(convnet, targets):
    images = torch.zeros(4, 3, 8, 12, dtype=torch.float64)
    assert gradcam(convnet.eval(), images, targets, layer="conv2").shape == (4, 8, 12)


def test_unknown_layer_lists_those_with_spatial_maps(convnet, images, targets):
    with pytest.raises(ModelError, match=r"no layer 'conv3'.*conv1"):
        gradcam(convnet, images, targets, layer="conv3")


def test_layer_without_places_is_refused(convnet, images, targets):
    with pytest.raises(ModelError, match=r"layer 'linear' gives shape \[4, 5\]"):
        gradcam(convnet.eval(), images, targets, layer="linear")


def test_layer_that_is_not_called_is_refused(convnet, images, targets):
    convnet.spare = nn.Conv2d(3, 3, 1)
    with pytest.raises(ModelError, match="not called"):
        gradcam(convnet.eval(), images, targets, layer="spare")
