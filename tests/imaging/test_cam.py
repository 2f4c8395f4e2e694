"""CAM arithmetic on numbers that can be checked by hand."""

import pytest
import torch

from roarline.imaging.cam import grad_cam, resize_map

ACTIVATIONS = torch.tensor([[[[1.0, 2.0]], [[3.0, -1.0]]]])  # [1, 2, 1, 2]
GRADIENTS = torch.tensor([[[[1.0, 3.0]], [[-1.0, -2.0]]]])


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
