"""What Real-Time Saliency puts in place of masked pixels."""

from __future__ import annotations

import pytest
import torch

from roarline.training.alternative_images import alternative_images, blurred_images
from tests.golden_cases import case


def draw(compat, images, seed=0):
    return alternative_images(images, torch.Generator().manual_seed(seed), compat)


def test_the_original_blur_equals_nn_explainers():
    arrays, _ = case("s0_rtsal")
    blurred = blurred_images(torch.from_numpy(arrays["in_image"]), "original")
    expected = torch.from_numpy(arrays["in_alt_blur"])
    torch.testing.assert_close(blurred, expected, rtol=1e-4, atol=1e-5)  # both in float32: the golden README's


def test_the_corrected_blur_leaves_a_flat_image_flat():
    flat = torch.full((1, 3, 20, 20), 2.0)
    torch.testing.assert_close(blurred_images(flat), flat)
    assert blurred_images(flat, "original")[0, 0, 0, 0] < 1  # zeros outside darken the corner


@pytest.mark.parametrize(("compat", "mean", "std"), [("corrected", 0.0, 0.11), ("original", 0.11, 1.0)])
def test_noise_has_its_mean_and_spread(compat, mean, std):
    images = torch.zeros(64, 3, 40, 40)  # the blurred copy of nothing is nothing
    noisy = [part for seed in range(8) for part in draw(compat, images, seed) if part.any()]
    offsets = torch.stack([part.mean(dim=(1, 2)) for part in noisy])
    spread = torch.stack([part.std(dim=(1, 2)) for part in noisy]).mean()
    # 4 standard errors of a mean of at least 60 images × 3 uniform offsets of ±0.33, plus those of the pixel noise
    assert offsets.mean().item() == pytest.approx(mean, abs=4 * 0.19 / (3 * len(noisy)) ** 0.5)
    assert spread.item() == pytest.approx(std, rel=0.02)
    assert (offsets - mean).abs().max() <= 0.33 + 6 * std / 40


def test_each_image_has_a_draw_of_its_own_but_in_the_original():
    images = torch.zeros(200, 3, 4, 4)
    share = [draw("corrected", images).flatten(1).any(dim=1).float().mean().item()]
    assert share[0] == pytest.approx(0.5, abs=4 * 0.5 / 200**0.5)
    whole = {draw("original", images, seed).flatten(1).any(dim=1).float().mean().item() for seed in range(12)}
    assert whole == {0.0, 1.0}


def test_the_same_generator_gives_the_same_images_and_no_gradient():
    images = torch.randn(4, 3, 8, 8, requires_grad=True)
    assert torch.equal(draw("corrected", images), draw("corrected", images))
    assert not draw("corrected", images).requires_grad
