"""CAM arithmetic on numbers that can be checked by hand."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from roarline.imaging.cam import (
    activation_masks,
    channel_cam,
    eigen_cam,
    grad_cam,
    grad_cam_plus_plus,
    layer_cam,
    most_varied_channels,
    resize_map,
    to_image,
    x_grad_cam,
)

ACTIVATIONS = torch.tensor([[[[1.0, 2.0]], [[3.0, -1.0]]]])  # [1, 2, 1, 2]
GRADIENTS = torch.tensor([[[[1.0, 3.0]], [[-1.0, -2.0]]]])


def drawn(seed):
    """Activations, 0 or more, and gradients, [2, 5, 3, 4] float64."""
    generator = torch.Generator().manual_seed(seed)
    activations, gradients = torch.randn(2, 2, 5, 3, 4, generator=generator, dtype=torch.float64)
    return activations.clamp(min=0), gradients


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ("pooled", [-2.5, 5.5]),  # 2 and -1.5: 2 · 1 - 1.5 · 3, 2 · 2 + 1.5
        ("summed", [-5.0, 11.0]),  # twice that: two cells
        ("elementwise", [-2.0, 8.0]),  # 1 · 1 - 1 · 3, 3 · 2 + 2
    ],
)
def test_grad_cam_weighs_by_the_mean_the_sum_or_each_cells_gradient(weights, expected):
    assert grad_cam(ACTIVATIONS, GRADIENTS, weights).tolist() == [[expected]]


def test_resize_aligns_pixel_centres():
    """Doubling a row of 0 and 1: output centres lie at -0.25, 0.25, 0.75, 1.25 of the input's, clamped at the ends."""
    torch.testing.assert_close(resize_map(torch.tensor([[[0.0, 1.0]]]), (1, 4)), torch.tensor([[[0, 0.25, 0.75, 1]]]))


@pytest.mark.parametrize("size", [(7, 5), (3, 3), (14, 10)])
def test_resize_keeps_a_constant(size):
    assert torch.allclose(resize_map(torch.full((2, 7, 5), 1.25), size), torch.full((2, *size), 1.25))


@given(arrays=st.integers(0, 2**31 - 1))
def test_grad_cam_plus_plus_equals_the_published_formula(arrays):
    """Equations 7 and 19, with derivatives g, g², g³; channel by channel in float64."""
    activations, gradients = drawn(arrays)
    expected = torch.zeros(2, 3, 4, dtype=torch.float64)
    for image, channel in itertools.product(range(2), range(5)):
        a, g = activations[image, channel], gradients[image, channel]
        alpha = g**2 / (2 * g**2 + a.sum() * g**3)
        expected[image] += (alpha * g.clamp(min=0)).sum() * a
    torch.testing.assert_close(grad_cam_plus_plus(activations, gradients), expected)


def test_grad_cam_plus_plus_of_small_gradients_is_not_decided_by_an_epsilon():
    """α tends to 1 / 2, up to g Σ A beside it (1e-5); with pytorch-grad-cam's 1e-6 beside 2 g² it would be 1e-6."""
    activations, gradients = drawn(0)
    half = channel_cam(activations, gradients.clamp(min=0).sum(dim=(2, 3)) / 2)
    torch.testing.assert_close(grad_cam_plus_plus(activations, 1e-6 * gradients) * 1e6, half, rtol=1e-4, atol=0)


def test_grad_cam_plus_plus_of_no_gradient_is_zero_and_not_nan():
    activations, gradients = drawn(0)
    assert torch.equal(grad_cam_plus_plus(activations, 0 * gradients), torch.zeros(2, 3, 4, dtype=torch.float64))


@given(arrays=st.integers(0, 2**31 - 1))
def test_layer_cam_counts_positive_gradients_cell_by_cell(arrays):
    activations, gradients = drawn(arrays)
    expected = sum(activations[:, c] * gradients[:, c] * (gradients[:, c] > 0) for c in range(5))
    torch.testing.assert_close(layer_cam(activations, gradients), expected)


@given(arrays=st.integers(0, 2**31 - 1))
def test_x_grad_cams_sum_is_that_of_activation_times_gradient(arrays):
    """Its axiom of conservation."""
    activations, gradients = drawn(arrays)
    expected = (activations * gradients).sum(dim=(1, 2, 3))
    torch.testing.assert_close(x_grad_cam(activations, gradients).sum(dim=(1, 2)), expected)


def test_x_grad_cam_of_a_channel_without_activation_is_finite():
    activations, gradients = drawn(0)
    activations[:, 2] = 0
    assert x_grad_cam(activations, gradients).isfinite().all()


@pytest.mark.parametrize("size", [(2, 3), (5, 6)])  # fewer and more cells than the 8 channels
@pytest.mark.parametrize("direction", [1, -1])
def test_eigen_cam_of_one_pattern_is_that_pattern(size, direction):
    """A rank of 1: pattern s in every channel, times c; the map is s times the length of c, with the sign of Σ c."""
    generator = torch.Generator().manual_seed(0)
    pattern = torch.randn(1, *size, generator=generator, dtype=torch.float64)
    channels = direction * torch.rand(1, 8, generator=generator, dtype=torch.float64)
    maps = eigen_cam(channels[:, :, None, None] * pattern[:, None])
    torch.testing.assert_close(maps, direction * channels.norm() * pattern)


@pytest.mark.parametrize("size", [(2, 3), (5, 6)])
@pytest.mark.parametrize("centre", [False, True])
def test_eigen_cam_is_the_projection_on_the_first_singular_vector_with_a_definite_sign(size, centre):
    activations = torch.randn(4, 8, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    maps = eigen_cam(activations, centre=centre)
    for image, one in enumerate(activations):
        cells = one.flatten(1).T.numpy()
        cells = cells - cells.mean(axis=0) if centre else cells
        projected = cells @ np.linalg.svd(cells)[2][0]
        if (projected * cells.mean(axis=1)).sum() < 0:
            projected = -projected
        np.testing.assert_allclose(maps[image].flatten(), projected, rtol=1e-9, atol=1e-9)


def test_eigen_cam_of_nothing_is_zero():
    assert torch.equal(eigen_cam(torch.zeros(1, 4, 2, 3)), torch.zeros(1, 2, 3))


def test_masks_go_from_0_to_1_at_the_images_size():
    masks = activation_masks(drawn(0)[0].flatten(0, 1), (9, 8))
    assert masks.shape == (10, 9, 8)
    assert masks.amin(dim=(1, 2)).tolist() == [0.0] * 10
    assert masks.amax(dim=(1, 2)).tolist() == [1.0] * 10


def test_the_channels_that_vary_most_and_never_a_constant_one():
    activations = torch.zeros(2, 4, 2, 2)
    activations[0, :, 0, 0] = torch.tensor([1.0, 3.0, 0.0, 2.0])
    activations[1] = 7
    assert most_varied_channels(activations).tolist() == [[True, True, False, True], [False] * 4]
    assert most_varied_channels(activations, 2).tolist() == [[False, True, False, True], [False] * 4]
    assert most_varied_channels(activations, 9).tolist() == most_varied_channels(activations).tolist()


def test_one_layers_map_is_only_clamped_and_resized():
    small = torch.tensor([[[-2.0, 4.0]]])
    assert to_image([small], (1, 2), relu=True).tolist() == [[[0.0, 4.0]]]
    assert to_image([small], (1, 2), relu=False).tolist() == [[[-2.0, 4.0]]]


@pytest.mark.parametrize(("fuse", "expected"), [("mean", [-0.25, 0.75]), ("max", [0.0, 1.0])])
def test_of_several_layers_each_is_scaled_by_its_largest_value(fuse, expected):
    """-2, 4 becomes -0.5, 1, and 0, 0.25 with -0.5 becomes 0, 0.5."""
    maps = [torch.tensor([[[-2.0, 4.0, 0.0]]]), torch.tensor([[[0.0, 0.25, -0.5]]])]
    assert to_image(maps, (1, 3), relu=False, fuse=fuse)[0, 0, :2].tolist() == expected


def test_a_layer_of_zeros_stays_zero_among_several():
    maps = [torch.zeros(1, 1, 2), torch.tensor([[[0.0, 8.0]]])]
    assert to_image(maps, (1, 2), relu=True).tolist() == [[[0.0, 0.5]]]
