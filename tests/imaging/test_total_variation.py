"""Total variation: the originals' arrays, by hand, derivatives."""

from pathlib import Path

import numpy as np
import pytest
import torch

from roarline.imaging.total_variation import (
    bilateral_total_variation,
    isotropic_total_variation,
    reflected_total_variation,
    resize_mask,
    total_variation,
)
from tests.golden_cases import case

GOLDEN = Path(__file__).parent.parent / "golden"


def load(name):
    return dict(np.load(GOLDEN / f"{name}.npz", allow_pickle=False))


@pytest.mark.parametrize("exponent", [1, 2, 3])
def test_equals_the_seeds(exponent):
    case = load("s1_tv")
    found = total_variation(torch.from_numpy(case["in_mask"])[:, 0], exponent)
    np.testing.assert_allclose(found.numpy()[0], case[f"out_tv_beta{exponent}"], rtol=1e-5)


def test_gradient_equals_the_seeds():
    case = load("s1_tv")
    masks = torch.from_numpy(case["in_mask"])[:, 0].requires_grad_()
    (gradient,) = torch.autograd.grad(total_variation(masks, 3).sum(), masks)
    np.testing.assert_allclose(gradient.numpy(), case["out_tv3_grad"][:, 0], rtol=1e-4, atol=1e-6)


def test_bilateral_equals_the_originals_with_its_uneven_weights():
    """1e-5: single float32 evaluations."""
    case = load("s0_igos_btv")
    images = torch.from_numpy(case["in_image"])
    masks = torch.from_numpy(case["in_mask"])[:, 0].requires_grad_()
    found = bilateral_total_variation(images, masks, vertical="square_of_mean")
    (gradient,) = torch.autograd.grad(found.sum(), masks)
    np.testing.assert_allclose(found.detach().numpy(), case["out_btv"], rtol=1e-5)
    np.testing.assert_allclose(gradient.numpy(), case["out_btv_grad"][:, 0], rtol=1e-4, atol=1e-6)
    wider = bilateral_total_variation(images, masks.detach(), 3.0, 1.0, vertical="square_of_mean")
    np.testing.assert_allclose(wider.numpy(), case["out_btv_beta3_sigma1"], rtol=1e-5)
    np.testing.assert_allclose(total_variation(masks.detach(), 2).numpy(), case["out_tv"], rtol=1e-5)
    np.testing.assert_allclose(resize_mask(masks, (24, 24)).detach().numpy()[:, None], case["out_up_mask"], rtol=1e-5)


def test_corrected_bilateral_weighs_both_axes_alike():
    """Transposing image and mask changes nothing; with the original's weights it does, by 2 parts in 10,000."""
    case = load("s0_igos_btv")
    images, masks = torch.from_numpy(case["in_image"]), torch.from_numpy(case["in_mask"])[:, 0]
    turned = images.transpose(2, 3), masks.transpose(1, 2)
    torch.testing.assert_close(bilateral_total_variation(images, masks), bilateral_total_variation(*turned))
    uneven = bilateral_total_variation(images, masks, vertical="square_of_mean")
    assert (uneven - bilateral_total_variation(*turned, vertical="square_of_mean")).abs().min() > 1e-5


def test_isotropic_by_hand():
    """One corner cell at 3 with neighbours at 0: below it 3 and to its right 3 make (9 + 9)^(3/2); borders count 0."""
    masks = torch.zeros(1, 4, 4, dtype=torch.float64)
    masks[0, 0, 0] = 3
    assert isotropic_total_variation(masks, 3).item() == pytest.approx(18**1.5)
    masks = torch.zeros(1, 4, 4, dtype=torch.float64)
    masks[0, 2, 1] = 2  # itself (4 + 4), the one above it 4, the one to its left 4
    assert isotropic_total_variation(masks, 2).item() == pytest.approx(8 + 4 + 4)


@pytest.mark.parametrize("exponent", [1.0, 2.0, 3.0])
def test_isotropic_derivative_is_that_of_finite_differences_and_0_where_the_mask_is_level(exponent):
    masks = torch.rand(2, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda m: isotropic_total_variation(m, exponent), (masks,))
    level = torch.ones(1, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.grad(isotropic_total_variation(level, exponent).sum(), level)[0].abs().max() == 0


class TestReflected:
    @pytest.mark.parametrize(("name", "mask", "exponent"), [
        ("tv_target", "target_mask", 1.0), ("tv_nontarget", "nontarget_mask", 1.0), ("tv2_target", "target_mask", 2.0),
    ])  # fmt: skip
    def test_equals_nn_explainers(self, name, mask, exponent):
        arrays, _ = case("s0_masks_tv_entropy")
        masks = torch.from_numpy(arrays[f"out_{mask}"]).requires_grad_()
        loss = reflected_total_variation(masks, exponent)
        torch.testing.assert_close(loss.detach(), torch.as_tensor(arrays[f"out_{name}"]), rtol=1e-7, atol=0)
        if f"out_{name}_grad" in arrays:
            loss.backward()
            expected = torch.from_numpy(arrays[f"out_{name}_grad"])
            torch.testing.assert_close(masks.grad, expected, rtol=1e-7, atol=1e-12)

    def test_counts_differences_at_the_last_column_twice(self):
        mask = torch.zeros(1, 4, 5)
        mask[:, :, -1] = 1
        assert reflected_total_variation(mask).item() == pytest.approx(2 * 4 / 20)
        assert reflected_total_variation(mask.flip(2)).item() == pytest.approx(4 / 20)
