"""gradient and input_x_gradient: analytic on a linear network, parity with captum and with TorchRay's arrays."""

import math

import captum.attr
import numpy as np
import pytest
import torch

from roarline.attribution.gradient import gradient, input_x_gradient
from roarline.imaging.cam import resize_map
from roarline.imaging.reduction import reduce_channels
from roarline.imaging.smoothing import gaussian_blur
from tests.attribution.optimised import golden, tiny_net


def test_gradient_of_a_linear_network_is_its_weight(linear, images, targets):
    weights = linear.layer.weight[targets].reshape(images.shape)
    torch.testing.assert_close(gradient(linear, images, targets), weights.detach())


def test_input_x_gradient_of_a_linear_network_sums_to_logit_minus_bias(linear, images, targets):
    maps = input_x_gradient(linear, images, targets)
    logits = linear(images).gather(1, targets[:, None])[:, 0].detach()
    torch.testing.assert_close(maps.sum(dim=(1, 2, 3)), logits - linear.layer.bias[targets].detach())


def test_target_of_minus_one_is_the_predicted_class(convnet, images):
    convnet.eval()
    predicted = convnet(images).argmax(dim=1)
    torch.testing.assert_close(
        gradient(convnet, images, torch.full((4,), -1)), gradient(convnet, images, predicted), rtol=0, atol=0
    )


def test_gradient_equals_captums_saliency(convnet, images, targets):
    leaf = images.clone().requires_grad_()
    expected = captum.attr.Saliency(convnet.eval()).attribute(leaf, target=targets, abs=False)
    torch.testing.assert_close(gradient(convnet, images, targets), expected)


def test_input_x_gradient_equals_captums(convnet, images, targets):
    leaf = images.clone().requires_grad_()
    expected = captum.attr.InputXGradient(convnet.eval()).attribute(leaf, target=targets)
    torch.testing.assert_close(input_x_gradient(convnet, images, targets), expected.detach())


@pytest.mark.parametrize("row", [0, 1])
def test_gradient_equals_torchrays(backprop_case, row):
    model, images, targets = backprop_case.model, backprop_case.images, backprop_case.targets[row]
    maps = gradient(model, images, targets).abs().amax(dim=1, keepdim=True)
    np.testing.assert_allclose(maps.numpy(), backprop_case.arrays["out_gradient"][row], rtol=1e-7, atol=1e-12)


def test_smoothed_and_resized_gradients_equal_torchrays():
    """Its ``smooth`` is a share of the longer side, with the border repeated. Single float32 passes, as README says."""
    case = golden("s6_smooth_misc")
    images = torch.from_numpy(case["in_image"])
    maps = reduce_channels(gradient(tiny_net(case), images, torch.from_numpy(case["in_target"])), "max_abs")
    sigma = 0.05 * max(images.shape[2:])
    smoothed = gaussian_blur(maps, sigma, "replicate", radius_px=math.ceil(4 * sigma))
    np.testing.assert_allclose(smoothed.numpy(), case["out_gradient_smooth"][:, 0], rtol=1e-4, atol=1e-5)
    resized = resize_map(maps, (12, 20))
    np.testing.assert_allclose(resized.numpy(), case["out_gradient_resized"][:, 0], rtol=1e-4, atol=1e-5)


def test_no_gradient_is_left_on_the_images(convnet, images, targets):
    gradient(convnet.eval(), images, targets)
    assert not images.requires_grad
    assert images.grad is None
