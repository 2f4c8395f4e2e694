"""The probe's inputs are standardised exactly; the original's 8-bit images lose the grey levels that they lost."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from roarline.imaging.ranking import rank_pixels
from roarline.imaging.removal import removal_mask
from roarline.training.retraining_inputs import cut_to_8_bits, mask_inputs


@given(st.integers(1, 34), st.integers(0, 2**20))
def test_mask_inputs_have_mean_0_and_standard_deviation_1(count, seed):
    maps = torch.rand(4, 5, 7, generator=torch.Generator().manual_seed(seed))
    removed = removal_mask(rank_pixels(maps, [1, 2, 3, 4]), count)
    inputs = mask_inputs(removed, count)
    assert inputs.shape == (4, 1, 5, 7)
    torch.testing.assert_close(inputs.mean((1, 2, 3)), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(inputs.std((1, 2, 3), unbiased=False), torch.ones(4), atol=1e-5, rtol=0)
    assert torch.equal(inputs[:, 0] > 0, removed)


@pytest.mark.parametrize("everything", [False, True])
def test_a_constant_mask_becomes_zero(everything):
    removed = torch.full((2, 3, 3), everything)
    assert torch.equal(mask_inputs(removed, 9 if everything else 0), torch.zeros(2, 1, 3, 3))


def test_8_bit_images_lose_one_level_where_the_original_lost_one():
    """Spec S4.6 B4.5: with CIFAR-10's statistics 72 to 94 of the 256 grey levels come back one darker."""
    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    centre, scale = torch.tensor(mean).reshape(3, 1, 1), torch.tensor(std).reshape(3, 1, 1)
    levels = torch.arange(256.0).reshape(1, 16, 16).expand(3, 16, 16)
    images = ((levels / 255 - centre) / scale)[None]
    lost = levels - ((cut_to_8_bits(images, mean, std)[0] * scale + centre) * 255).round()
    assert set(lost.unique().tolist()) == {0.0, 1.0}
    changed = sorted(lost.sum((1, 2)).tolist())
    assert (changed[0], changed[-1]) == (72, 94)
