"""Mask generator: the original's arrays, the definition written out, derivatives, windows, sizes of any kind."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from roarline.imaging.mask_generator import MaskGenerator
from roarline.imaging.unfolded_masks import UnfoldedMasks

GOLDEN = Path(__file__).parent.parent / "golden"
ORIGINALS = {"smooth_max": "softmax", "sum": "sum", "sigmoid": "sigmoid"}


@pytest.fixture(scope="module")
def case():
    return dict(np.load(GOLDEN / "s6_mask_generator.npz", allow_pickle=False))


@pytest.fixture(scope="module")
def grids(case):
    return torch.from_numpy(case["in_param"])[:, 0]


def published(combine="smooth_max"):
    return MaskGenerator(32, 32, step_px=4, sigma_px=8, combine=combine)


@pytest.mark.parametrize("combine", ORIGINALS)
def test_equals_torchrays_masks_with_and_without_margin(case, grids, combine):
    """2e-6: the same sums of up to 49 float32 numbers in another order."""
    generator = published(combine)
    name = ORIGINALS[combine]
    for padded, kind in ((False, "cropped"), (True, "full")):
        masks = generator(grids, padded=padded).numpy()
        np.testing.assert_allclose(masks, case[f"out_{name}_{kind}"][:, 0], rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("padded", [False, True])
def test_equals_torchrays_gradient(case, grids, padded):
    generator, leaf = published(), grids.clone().requires_grad_()
    masks = generator(leaf, padded=padded)
    masks = generator.visible(masks) if padded else masks
    (gradient,) = torch.autograd.grad(masks.square().sum(), leaf)
    np.testing.assert_allclose(gradient.numpy(), case["out_softmax_grad"][:, 0], rtol=1e-4, atol=1e-3)


def test_geometry_is_that_of_the_original(case):
    params = json.loads(str(case["params"]))
    generator = published()
    axis = generator.rows
    assert list(generator.grid) == params["shape_in"]
    assert [axis.padding, axis.radius, axis.margin] == [params["padding"], params["radius"], params["margin"]]
    assert [axis.cells, axis.full_length] == [params["shape_mid"][0], params["shape_out"][0]]
    axis = MaskGenerator(224, 224).rows  # by hand, from the spec of the published settings
    assert (axis.padding, axis.radius, axis.grid, axis.cells, axis.full_length) == (7, 4, 32, 38, 260)


sides = st.integers(3, 17)


@settings(max_examples=25)
@given(sides, sides, st.integers(1, 4), st.integers(1, 3), st.integers(0, 2**31))
def test_equals_the_definition_written_out_for_any_size(height, width, step, sigma_steps, seed):
    sizes = {"step_px": step, "sigma_px": float(step * sigma_steps)}
    ours, definition = MaskGenerator(height, width, **sizes), UnfoldedMasks(height, width, **sizes)
    generator = torch.Generator().manual_seed(seed)
    grids = torch.rand(2, *ours.grid, generator=generator, dtype=torch.float64).requires_grad_()
    masks, expected = ours(grids, padded=True), definition(grids, padded=True)
    torch.testing.assert_close(masks, expected, rtol=1e-6, atol=1e-6)  # its weights are float32
    torch.testing.assert_close(ours(grids), definition.visible(expected), rtol=1e-6, atol=1e-6)
    direction = torch.randn(expected.shape, generator=generator, dtype=torch.float64)
    found, wanted = (torch.autograd.grad((m * direction).sum(), grids)[0] for m in (masks, expected))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sigma", [1.0, 2.5, 6.0])
def test_derivative_is_that_of_finite_differences_also_where_the_margin_is_no_whole_cell(sigma):
    generator = MaskGenerator(9, 7, step_px=4, sigma_px=sigma)
    grids = torch.rand(1, *generator.grid, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert generator(grids).shape == (1, 9, 7)
    assert torch.autograd.gradcheck(generator, (grids.requires_grad_(),))


@pytest.mark.parametrize("combine", ORIGINALS)
@pytest.mark.parametrize(("step", "sigma"), [(4, 6.0), (4, 2.0), (3, 2.5)])
def test_visible_mask_is_the_padded_one_without_its_margin(combine, step, sigma):
    generator = MaskGenerator(13, 10, step_px=step, sigma_px=sigma, combine=combine)
    grids = torch.rand(2, *generator.grid, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(generator(grids), generator.visible(generator(grids, padded=True)))


def test_parameters_of_zero_give_a_mask_of_zero_and_masks_do_not_see_each_other():
    generator = MaskGenerator(20, 20, step_px=4, sigma_px=8)
    grids = torch.rand(3, *generator.grid, generator=torch.Generator().manual_seed(0))
    grids[1] = 0
    masks = generator(grids)
    assert masks[1].abs().max() == 0
    torch.testing.assert_close(masks[2:], generator(grids[2:]))


def test_one_parameter_makes_a_bump_at_its_own_place():
    """Not transposed, not shifted: grid point (1, 3) is the pixel (4, 12); what lies within sigma / 2 weighs 1."""
    generator = MaskGenerator(20, 24, step_px=4, sigma_px=4)
    grid = torch.zeros(1, *generator.grid)
    grid[0, 1, 3] = 1
    mask = generator(grid)[0]
    assert divmod(int(mask.argmax()), 24) in [(y, x) for y in range(2, 7) for x in range(10, 15)]
    torch.testing.assert_close(mask[4 - 3 : 4 + 4], mask[4 - 3 : 4 + 4].flip(0))
    torch.testing.assert_close(mask[:, 12 - 6 : 12 + 7], mask[:, 12 - 6 : 12 + 7].flip(1))
