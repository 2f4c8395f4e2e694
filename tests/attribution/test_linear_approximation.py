"""linear_approximation: a class activation map by hand, TorchRay's arrays, the gradient at a layer under it."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from roarline.attribution.linear_approximation import linear_approximation
from roarline.errors import ModelError
from roarline.imaging.cam import resize_map
from roarline.models.recording import recording


def test_before_global_mean_and_linear_it_is_the_class_activation_map_over_the_cells(convnet, images, targets):
    """The logit is Σ_c w_c · mean(A_c) + b: each cell's gradient is w_c / (h · w)."""
    convnet.eval()
    activations = convnet.conv2(convnet.pool(convnet.relu(convnet.norm(convnet.conv1(images))))).relu()
    small = torch.einsum("bchw,bc->bhw", activations, convnet.linear.weight[targets]).detach() / 16
    expected = functional.interpolate(small[:, None], size=(8, 8), mode="bilinear", align_corners=False)[:, 0]
    assert (expected < 0).any()  # it is signed
    torch.testing.assert_close(linear_approximation(convnet, images, targets, layer="relu"), expected)


@pytest.mark.parametrize("row", [0, 1])
@pytest.mark.parametrize(("layer", "array"), [("relu2", "out_linear_approx"), ("pool1", "out_linear_approx_pool1")])
def test_equals_torchrays(backprop_case, row, layer, array):
    """Theirs is the map of the layer's size, here resized."""
    maps = linear_approximation(backprop_case.model, backprop_case.images, backprop_case.targets[row], layer=layer)
    expected = resize_map(torch.from_numpy(backprop_case.arrays[array][row])[:, 0], (32, 32))
    np.testing.assert_allclose(maps.numpy(), expected.numpy(), rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("row", [0, 1])
def test_gradient_at_a_layer_equals_torchrays(backprop_case, row):
    """Reduced as there: the largest of the channels' absolute values."""
    targets = backprop_case.targets[row][:, None]
    with recording(backprop_case.model, "relu2", backprop_case.images) as recorded:
        (gradients,) = recorded.gradients(backprop_case.model(backprop_case.images).gather(1, targets).sum())
    expected = backprop_case.arrays["out_gradient_relu2"][row]
    np.testing.assert_allclose(gradients.abs().amax(1, keepdim=True).numpy(), expected, rtol=1e-7, atol=1e-12)


def test_predicted_class_and_auto_layer(convnet, images):
    predicted = convnet.eval()(images).argmax(dim=1)
    torch.testing.assert_close(
        linear_approximation(convnet, images, torch.full((4,), -1)),
        linear_approximation(convnet, images, predicted, layer="relu"),
        rtol=0,
        atol=0,
    )


def test_layer_without_places_is_refused(convnet, images, targets):
    with pytest.raises(ModelError, match="layer 'linear' gives shape"):
        linear_approximation(convnet.eval(), images, targets, layer="linear")
