"""Gaussian and median blur against scipy's and the originals' arrays, and what mathematics says of them."""

from __future__ import annotations

from math import ceil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from roarline.imaging.smoothing import gaussian_blur, median_blur

GOLDEN = Path(__file__).parent.parent / "golden"
SCIPY_MODE = {"reflect": "mirror", "symmetric": "reflect", "replicate": "nearest", "zero": "constant"}


@pytest.mark.parametrize("padding", SCIPY_MODE)
@pytest.mark.parametrize("sigma", [0.3, 0.8, 2.0, 11.0])
@pytest.mark.parametrize("shape", [(9, 14), (1, 5), (2, 2)])
def test_parity_with_scipy(padding: str, sigma: float, shape: tuple[int, int]) -> None:
    images = np.random.default_rng(0).normal(size=(2, 3, *shape))
    expected = ndimage.gaussian_filter(images, (0, 0, sigma, sigma), mode=SCIPY_MODE[padding], truncate=4.0)
    # float64 on both sides: the order of summation is all that differs.
    np.testing.assert_allclose(gaussian_blur(torch.from_numpy(images), sigma, padding).numpy(), expected, atol=1e-12)


@given(st.floats(0.1, 20), st.floats(-3, 3))
def test_a_constant_stays_constant(sigma: float, value: float) -> None:
    image = torch.full((1, 6, 7), value, dtype=torch.float64)
    for padding in ("reflect", "symmetric", "replicate"):
        torch.testing.assert_close(gaussian_blur(image, sigma, padding), image)  # type: ignore[arg-type]


@given(st.floats(0.1, 20), st.integers(0, 2**31))
def test_symmetric_padding_keeps_the_mean(sigma: float, seed: int) -> None:
    images = torch.rand(2, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    blurred = gaussian_blur(images, sigma, "symmetric")
    torch.testing.assert_close(blurred.mean(dim=(1, 2)), images.mean(dim=(1, 2)))


def test_zero_width_copies_and_the_argument_stays() -> None:
    image = torch.rand(2, 4, 4)
    copy = gaussian_blur(image, 0.0)
    assert torch.equal(copy, image)
    copy += 1
    assert not torch.equal(copy, image)


@pytest.mark.parametrize("sigma", [-1.0, float("nan"), float("inf")])
def test_a_width_that_is_none_is_refused(sigma: float) -> None:
    with pytest.raises(ValueError, match="sigma_px"):
        gaussian_blur(torch.rand(1, 3, 3), sigma)


@pytest.mark.parametrize(("padding", "name"), [("zero", "constant"), ("replicate",) * 2, ("reflect",) * 2])
@pytest.mark.parametrize("sigma", [0.0, 1.5, 4.0])
def test_equals_torchrays_imsmooth_whose_kernel_ends_at_the_next_pixel(padding: str, name: str, sigma: float) -> None:
    """1e-5: float32, summed in another order."""
    case = np.load(GOLDEN / "s6_smooth_misc.npz", allow_pickle=False)
    found = gaussian_blur(torch.from_numpy(case["in_image"]), sigma, padding, radius_px=ceil(4 * sigma))
    np.testing.assert_allclose(
        found.numpy(), case[f"out_imsmooth_{f'{sigma:.1f}'.replace('.', 'p')}_{name}"], atol=1e-5
    )


@pytest.mark.parametrize("side", [1, 3, 5, 11])
@pytest.mark.parametrize("shape", [(9, 14), (4, 3), (1, 5)])
def test_median_equals_scipys(side: int, shape: tuple[int, int]) -> None:
    images = np.random.default_rng(0).normal(size=(2, 3, *shape))
    expected = ndimage.median_filter(images, size=(1, 1, side, side), mode="nearest")
    np.testing.assert_array_equal(median_blur(torch.from_numpy(images), side).numpy(), expected)


def test_median_of_large_images_is_made_in_strips_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.rand(2, 12, 10, generator=torch.Generator().manual_seed(0))
    at_once = median_blur(images, 5)
    monkeypatch.setattr("roarline.imaging.smoothing._MEDIAN_VALUES", 5 * 5 * 10 * 5)
    assert torch.equal(median_blur(images, 5), at_once)


def test_blurs_of_the_seed_are_the_same_in_normalised_space() -> None:
    """cv2's median of bytes and its Gaussian of 11 px, both before normalisation, on the image after it."""
    case = np.load(GOLDEN / "s1_mp_default.npz", allow_pickle=False)
    image = torch.from_numpy(case["out_x"])
    np.testing.assert_allclose(median_blur(image, 11).numpy(), case["out_x_blur"], atol=1e-6)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = gaussian_blur(image, 5.0, radius_px=5)[0] * std[:, None, None] + mean[:, None, None]
    bgr = case["out_blur_gauss"].transpose(2, 0, 1)
    np.testing.assert_allclose(pixels.flip(0).numpy(), bgr, atol=1e-6)


@pytest.mark.parametrize("side", [0, -3, 4])
def test_a_window_without_a_centre_is_refused(side: int) -> None:
    with pytest.raises(ValueError, match="odd"):
        median_blur(torch.zeros(1, 3, 3), side)


def test_a_blur_first_made_without_gradients_lets_them_pass_later() -> None:
    """Its matrix is kept from call to call."""
    with torch.inference_mode():
        gaussian_blur(torch.ones(1, 7, 9), 1.375)
    image = torch.ones(1, 7, 9, requires_grad=True)
    gaussian_blur(image, 1.375, "zero").sum().backward()
    gaussian_blur(image, 1.375).sum().backward()
    assert image.grad is not None
