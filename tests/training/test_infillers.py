"""Infillers: the original's blur and combinations, what each side is told, functions of one's own."""

import pytest
import torch

from roarline.errors import MethodError, UserInputError
from roarline.training.infillers import keep, make_infiller
from tests.golden_cases import case

ARRAYS, PARAMS = case("s3_infill")
# float32 sums of up to 80 · 80 products, in another order
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def array(name):
    return torch.from_numpy(ARRAYS[name])


def doubled(images, kept, factor=2.0):
    return images * factor


def too_small(images, kept):
    return images[:, :, 1:]


@pytest.mark.parametrize("side", ["in", "out"])
def test_equals_the_original(side):
    images, mask = array("in_x"), array("in_mask")
    kept = mask if side == "in" else 1 - mask
    blur = make_infiller("blur", sigma_px=PARAMS["sigma"])
    torch.testing.assert_close(keep(images, kept), array(f"out_masked_{side}"), **CLOSE)
    torch.testing.assert_close(blur(images, kept), array("out_blur"), **CLOSE)
    torch.testing.assert_close(keep(images, kept, blur), array(f"out_infilled_{side}"), **CLOSE)


@pytest.mark.parametrize("name", ["none", "mean", "blur"])
def test_what_is_wholly_kept_stays(name):
    images = array("in_x")
    infiller = make_infiller(name)
    torch.testing.assert_close(keep(images, torch.ones(2, 1, 40, 40), infiller), images)
    gone = keep(images, torch.zeros(2, 1, 40, 40), infiller)
    expected = {"none": torch.zeros_like(images), "mean": images.mean((2, 3), keepdim=True).expand_as(images)}
    torch.testing.assert_close(gone, expected[name] if name in expected else array("out_blur"), **CLOSE)


def test_b3_3_an_infiller_is_told_what_its_own_side_keeps_and_is_multiplied_once():
    images, mask, told = array("in_x"), array("in_mask"), []

    def ones(images, kept):
        told.append(kept)
        return torch.ones_like(images)

    inside, outside = keep(images, mask, ones), keep(images, 1 - mask, ones)
    assert torch.equal(told[0], mask)
    assert torch.equal(told[1], 1 - mask)
    torch.testing.assert_close(inside, images * mask + (1 - mask))
    torch.testing.assert_close(outside, images * (1 - mask) + mask)


def test_the_mask_has_a_gradient_through_what_it_shows_and_hides_alone():
    images, mask = array("in_x"), array("in_mask").requires_grad_()
    infiller = make_infiller("tests.training.test_infillers.doubled", params={"factor": 3.0})
    keep(images, mask, infiller).sum().backward()
    torch.testing.assert_close(mask.grad, (images - 3 * images).sum(1, keepdim=True), **CLOSE)


def test_a_function_of_ones_own_is_checked():
    images, mask = array("in_x"), array("in_mask")
    with pytest.raises(MethodError, match=r"too_small' gave \[2, 3, 39, 40\], expected a tensor \[2, 3, 40, 40\]"):
        keep(images, mask, make_infiller("tests.training.test_infillers.too_small"))
    with pytest.raises(UserInputError, match="nonsense"):
        make_infiller("nonsense")
