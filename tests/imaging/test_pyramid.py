"""Perturbation pyramid: the original's arrays, derivative, flip, several images."""

from pathlib import Path

import numpy as np
import pytest
import torch

from roarline.imaging.pyramid import Pyramid, perturbation_levels

GOLDEN = Path(__file__).parent.parent / "golden"
FIRST = torch.zeros(3, dtype=torch.long)


@pytest.fixture(scope="module")
def case():
    return dict(np.load(GOLDEN / "s6_perturbation.npz", allow_pickle=False))


@pytest.mark.parametrize("kind", ["blur", "fade"])
def test_equals_torchrays_levels_and_perturbed_images(case, kind):
    """1e-5: single float32 evaluations, summed in another order."""
    levels = perturbation_levels(torch.from_numpy(case["in_image"]), 8, kind)
    np.testing.assert_allclose(levels[0].numpy(), case[f"out_{kind}_pyramid"], rtol=1e-4, atol=1e-5)
    perturbed = Pyramid.of(levels)(torch.from_numpy(case["in_mask"])[:, 0], FIRST)
    np.testing.assert_allclose(perturbed.numpy(), case[f"out_{kind}_applied"], rtol=1e-4, atol=1e-5)


def random_pyramid(images=2):
    return torch.randn(images, 4, 3, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_masks_of_one_and_zero_give_the_image_and_the_strongest_perturbation():
    levels = random_pyramid()
    masks = torch.stack([torch.ones(5, 6), torch.zeros(5, 6)]).double()
    for image in (0, 1):
        kept, gone = Pyramid.of(levels)(masks, torch.tensor([image, image]))
        torch.testing.assert_close(kept, levels[image, -1])
        torch.testing.assert_close(gone, levels[image, 0])


def test_between_two_levels_it_is_linear_and_each_mask_finds_its_own_image():
    levels = random_pyramid()
    masks = torch.full((3, 5, 6), (1 + 0.25) / 3, dtype=torch.float64)  # a quarter of the way from level 1 to 2
    perturbed = Pyramid.of(levels)(masks, torch.tensor([1, 0, 1]))
    for row, image in enumerate([1, 0, 1]):
        torch.testing.assert_close(perturbed[row], 0.75 * levels[image, 1] + 0.25 * levels[image, 2])


@pytest.mark.parametrize("flip", [False, True])
def test_flip_mirrors_the_result_and_the_derivative_is_that_of_finite_differences(flip):
    pyramid, places = Pyramid.of(random_pyramid()), torch.tensor([0, 1])
    masks = torch.rand(2, 5, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = pyramid(masks, places)
    torch.testing.assert_close(pyramid(masks, places, flip=flip), expected.flip(3) if flip else expected)
    assert torch.autograd.gradcheck(lambda m: pyramid(m, places, flip=flip), (masks.requires_grad_(),))
