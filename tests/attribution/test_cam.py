"""gradcam: class activation map by hand, parity with captum, TorchRay's and the original ROAR code's arrays."""

import json
from pathlib import Path

import captum.attr
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from roarline.attribution.cam import gradcam
from roarline.errors import ModelError
from roarline.models.cifar_resnet import resnet8
from tests.golden_recipes import recipe_tensor

GOLDEN = Path(__file__).parent.parent / "golden" / "s4_resnet8.npz"


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


def test_at_a_module_called_twice_it_reads_the_last_call_as_the_original_does():
    golden = dict(np.load(GOLDEN, allow_pickle=False))
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
