"""Controls: what mathematics says of noise, a constant, a Gaussian and edges."""

import math

import pytest
import torch

from roarline.attribution.controls import centre_gaussian, constant, random, sobel

NO_MODEL = None  # controls don't look at the network


def test_random_is_uniform_and_fixed_by_the_rows_seed(images, targets):
    maps = random(NO_MODEL, images, targets, seeds=[1, 2, 3, 1])
    assert maps.shape == (4, 8, 8)
    assert maps.dtype == images.dtype
    assert torch.equal(maps[0], maps[3])
    assert not torch.equal(maps[0], maps[1])
    assert maps.min() >= 0
    assert maps.max() < 1
    large = random(NO_MODEL, torch.zeros(1, 3, 256, 256), targets[:1], seeds=[9])
    assert large.mean().item() == pytest.approx(0.5, abs=4 * math.sqrt(1 / 12) / 256)  # four standard errors
    assert large.var().item() == pytest.approx(1 / 12, rel=0.02)


def test_random_has_hardly_a_tie(targets):
    """float32 uniform numbers have 2^24 values, so that 4096 of them have about 4096² / 2 / 2^24 = 0.5 ties."""
    maps = random(NO_MODEL, torch.zeros(1, 3, 64, 64), targets[:1], seeds=[3])
    assert maps.unique().numel() > 4090


def test_constant_is_its_value_everywhere(images, targets):
    assert torch.equal(constant(NO_MODEL, images, targets, value=-2.5), torch.full((4, 8, 8), -2.5).double())


@pytest.mark.parametrize(("height", "width"), [(9, 9), (8, 12), (5, 31)])
def test_centre_gaussian_is_a_gaussian_of_the_distance_to_the_centre(height, width, targets):
    maps = centre_gaussian(NO_MODEL, torch.zeros(4, 3, height, width).double(), targets, sigma=0.5)
    torch.testing.assert_close(maps, maps.flip(1))
    torch.testing.assert_close(maps, maps.flip(2))
    deviation_px = 0.5 * min(height, width)
    corner = ((height - 1) / 2) ** 2 + ((width - 1) / 2) ** 2
    assert maps[0, 0, 0].item() == pytest.approx(math.exp(-corner / 2 / deviation_px**2))
    if height % 2 and width % 2:
        assert maps[0, height // 2, width // 2] == 1
    maps[0, 0, 0] = 7  # rows don't share memory
    assert maps[1, 0, 0] < 1


@pytest.mark.parametrize("axis", [2, 3])
def test_sobel_sees_a_ramp_along_either_axis_with_its_slope(axis, targets):
    """A ramp of slope s in each of 3 channels has the norm s · √3 inside; replicated borders halve it there."""
    ramp = torch.arange(8.0).double().reshape(-1, 1) if axis == 2 else torch.arange(8.0).double()
    maps = sobel(NO_MODEL, (0.5 * ramp).expand(4, 3, 8, 8), targets)
    torch.testing.assert_close(maps[:, 1:-1, 1:-1], torch.full((4, 6, 6), 0.5 * math.sqrt(3)).double())
    edge = maps[:, 0, 1:-1] if axis == 2 else maps[:, 1:-1, 0]
    torch.testing.assert_close(edge, torch.full((4, 6), 0.25 * math.sqrt(3)).double())


def test_sobel_of_a_flat_image_is_zero_to_the_border(targets):
    assert torch.equal(sobel(NO_MODEL, torch.full((4, 3, 6, 7), 3.0), targets), torch.zeros(4, 6, 7))
