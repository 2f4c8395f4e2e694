"""Fills: their colours in normalised space."""

from __future__ import annotations

import pytest
import torch

from roarline.imaging.fills import BLUR_SIGMA_FRACTION, fill_image
from roarline.imaging.smoothing import gaussian_blur

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def test_mean_of_the_normalisation_itself_is_zero() -> None:
    fill = fill_image(torch.rand(2, 3, 8, 8), "mean", MEAN, STD, fill_mean=MEAN)
    assert fill.shape == (1, 3, 1, 1)
    assert torch.equal(fill, torch.zeros(1, 3, 1, 1))


def test_mean_is_the_training_splits_colour_not_the_normalisations() -> None:
    fill = fill_image(torch.rand(2, 3, 8, 8), "mean", MEAN, STD, fill_mean=[0.3])
    torch.testing.assert_close(
        fill.flatten() * torch.tensor(STD) + torch.tensor(MEAN), torch.full((3,), 0.3), rtol=0, atol=1e-6
    )


def test_original_roar_bug_one_fill_for_every_split() -> None:
    """peers.md: the original fills training images with floor(mean · 255) / 255, test images with 0 once normalised.

    Here the value has no split and is not rounded to 8 bits: back in [0, 1] it is the mean to float precision.
    """
    fill = fill_image(torch.rand(1, 3, 4, 4), "mean", MEAN, STD, fill_mean=[0.4914, 0.4822, 0.4465])
    back = fill.double().flatten() * torch.tensor(STD).double() + torch.tensor(MEAN).double()
    assert (back - torch.tensor([0.4914, 0.4822, 0.4465]).double()).abs().max() < 1e-7


def test_zero_is_black() -> None:
    images = (torch.zeros(1, 3, 4, 4) - torch.tensor(MEAN).reshape(1, 3, 1, 1)) / torch.tensor(STD).reshape(1, 3, 1, 1)
    torch.testing.assert_close(
        fill_image(images, "zero", MEAN, STD, fill_mean=MEAN).expand(1, 3, 4, 4), images, rtol=1e-6, atol=0
    )


def test_blur_is_of_each_image_at_the_stated_width() -> None:
    images = torch.rand(2, 3, 20, 30, generator=torch.Generator().manual_seed(0))
    fill = fill_image(images, "blur", MEAN, STD, fill_mean=MEAN)
    torch.testing.assert_close(fill, gaussian_blur(images, BLUR_SIGMA_FRACTION * 20))


def test_one_number_serves_all_channels_and_two_are_refused() -> None:
    images = torch.rand(1, 3, 4, 4)
    assert torch.equal(
        fill_image(images, "mean", [0.5], [0.25], fill_mean=[0.75]).expand(1, 3, 1, 1), torch.ones(1, 3, 1, 1)
    )
    with pytest.raises(ValueError, match="std has 2 numbers"):
        fill_image(images, "mean", MEAN, [0.1, 0.2], fill_mean=MEAN)
    with pytest.raises(ValueError, match="expected mean, zero, blur, uniform_noise or a constant"):
        fill_image(images, "grey", MEAN, STD, fill_mean=MEAN)


@pytest.mark.parametrize("value", [[0.5], [0.1, 0.6, 1.0]])
def test_a_constant_is_its_colour(value: list[float]) -> None:
    fill = fill_image(torch.rand(2, 3, 8, 8), {"kind": "constant", "value": value}, MEAN, STD, fill_mean=[0.3])
    back = fill.double().expand(1, 3, 1, 1).flatten() * torch.tensor(STD).double() + torch.tensor(MEAN).double()
    torch.testing.assert_close(back, torch.tensor(value).double().expand(3), rtol=0, atol=1e-7)


def test_uniform_noise_is_of_the_rows_seed_and_fills_the_pixel_range() -> None:
    images, seeds = torch.rand(3, 3, 32, 32), torch.tensor([5, 6, 5])
    fill = fill_image(images, "uniform_noise", MEAN, STD, fill_mean=MEAN, seeds_B=seeds)
    assert torch.equal(fill[0], fill[2])
    assert not torch.equal(fill[0], fill[1])
    back = fill * torch.tensor(STD).reshape(1, 3, 1, 1) + torch.tensor(MEAN).reshape(1, 3, 1, 1)
    assert -1e-6 < back.min() < 0.01 < 0.99 < back.max() < 1 + 1e-6
    with pytest.raises(ValueError, match="uniform_noise needs one seed for each of 3 images"):
        fill_image(images, "uniform_noise", MEAN, STD, fill_mean=MEAN, seeds_B=seeds[:2])
