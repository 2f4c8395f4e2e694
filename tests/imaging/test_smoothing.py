"""Gaussian blur against scipy's, and what mathematics says of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from roarline.imaging.smoothing import gaussian_blur

SCIPY_MODE = {"reflect": "mirror", "replicate": "nearest", "zero": "constant"}


@pytest.mark.parametrize("padding", ["reflect", "replicate", "zero"])
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
    for padding in ("reflect", "replicate"):
        torch.testing.assert_close(gaussian_blur(image, sigma, padding), image)  # type: ignore[arg-type]


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
