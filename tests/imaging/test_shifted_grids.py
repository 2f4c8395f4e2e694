"""RISE's masks: parity with the original code's arrays, weighted sums against the masks themselves, draws."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from roarline.imaging.shifted_grids import ShiftedGrids, draw_shifted_grids, enlargement_matrix

GOLDEN = Path(__file__).parent.parent / "golden"
ENLARGEMENTS = ["exact", "whole_px"]


def drawn(count, cells, size, enlargement="exact", seed=0, p=0.5):
    return draw_shifted_grids(count, cells, p, size, torch.Generator().manual_seed(seed), enlargement)


def test_equals_the_original_codes_masks():
    """r_rise_original.npz; 1e-6: skimage enlarges in float32."""
    arrays = np.load(GOLDEN / "r_rise_original.npz", allow_pickle=False)
    grids = torch.from_numpy(arrays["in_uniform"] < 0.5).double()
    masks = ShiftedGrids(grids, torch.from_numpy(arrays["in_shifts"]), (28, 28)).masks(slice(None))
    torch.testing.assert_close(masks, torch.from_numpy(arrays["out_masks"]).double(), rtol=0, atol=1e-6)


def test_enlarges_as_torchray_does():
    """s6_rise.npz, 7 cells to 37 px; 2e-6: the original enlarges a padded grid in float32."""
    arrays = np.load(GOLDEN / "s6_rise.npz", allow_pickle=False)
    matrix = enlargement_matrix(37, 7, math.ceil(37 / 7))
    enlarged = matrix @ torch.from_numpy(arrays["in_grid"]).double() @ matrix.T
    torch.testing.assert_close(enlarged, torch.from_numpy(arrays["out_grid_upsampled"]).double(), rtol=0, atol=2e-6)


def test_whole_px_equals_enlarging_a_mirrored_grid_by_a_whole_factor_and_cutting_it():
    """Spec S6.2 at 224 px: pad 7 to 9 cells, enlarge to 9 · 37 px, cut 256 from px 37, then 224 from the shift."""
    masks = drawn(5, 7, (224, 224), "whole_px")
    padded = torch.nn.functional.pad(masks.grids_Nss[:, None], (1, 1, 1, 1), mode="reflect")
    enlarged = torch.nn.functional.interpolate(padded, size=(333, 333), mode="bilinear", align_corners=False)
    canvas = enlarged[:, 0, 37 : 37 + 256, 37 : 37 + 256]
    expected = [
        image[row : row + 224, column : column + 224]
        for image, (row, column) in zip(canvas, masks.shifts_N2.tolist(), strict=True)
    ]
    # 1e-5: float32 coordinates of up to 333 px.
    torch.testing.assert_close(masks.masks(slice(None)), torch.stack(expected), rtol=0, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(1, 20), width=st.integers(1, 20), cells=st.integers(1, 8), count=st.integers(1, 9),
    enlargement=st.sampled_from(ENLARGEMENTS), seed=st.integers(0, 2**32),
)  # fmt: skip
def test_a_weighted_sum_is_the_sum_of_weighted_masks(height, width, cells, count, enlargement, seed):
    grids = drawn(count, cells, (height, width), enlargement, seed)
    grids = ShiftedGrids(grids.grids_Nss.double(), grids.shifts_N2, grids.size, enlargement)
    weights = torch.randn(3, count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    expected = torch.einsum("rn,nhw->rhw", weights, grids.masks(slice(None)))
    torch.testing.assert_close(grids.weighted_sum(weights), expected)


def test_weighted_sums_of_many_maps_are_made_in_parts_that_change_nothing():
    grids, weights = drawn(6, 3, (9, 9)), torch.randn(150, 6, generator=torch.Generator().manual_seed(1))
    one_by_one = torch.cat([grids.weighted_sum(weights[row : row + 1]) for row in range(150)])
    torch.testing.assert_close(grids.weighted_sum(weights), one_by_one)


@pytest.mark.parametrize("enlargement", ENLARGEMENTS)
@pytest.mark.parametrize("size", [(8, 8), (13, 7), (224, 96)])
def test_masks_lie_between_0_and_1_and_a_full_grid_lets_all_through(size, enlargement):
    masks = drawn(20, 7, size, enlargement).masks(slice(None))
    assert masks.shape == (20, *size)
    assert masks.min() >= 0
    assert masks.max() <= 1 + 1e-6  # rows of the enlargement sum to 1 up to rounding
    full = drawn(3, 7, size, enlargement, p=1.1).masks(slice(None))
    torch.testing.assert_close(full, torch.ones(3, *size))


def test_each_axis_is_shifted_by_less_than_its_own_cell():
    """TorchRay draws the shifts of both axes from the cell size of the rows."""
    shifts = drawn(4000, 7, (70, 28)).shifts_N2
    assert set(shifts[:, 0].tolist()) == set(range(10))
    assert set(shifts[:, 1].tolist()) == set(range(4))


def test_p_is_the_share_of_cells_that_are_kept():
    share = drawn(4000, 7, (14, 14), p=0.3).grids_Nss.mean()
    assert abs(share - 0.3) < 5 * math.sqrt(0.3 * 0.7 / (4000 * 49))  # five standard errors


def test_more_masks_begin_with_the_same_grids_whatever_is_asked_of_them_at_once():
    grids = drawn(10, 5, (20, 20))
    torch.testing.assert_close(
        torch.cat([grids.masks(slice(0, 3)), grids.masks(slice(3, 10))]), grids.masks(slice(None))
    )
    assert torch.equal(drawn(10, 5, (20, 20)).masks(slice(None)), grids.masks(slice(None)))
    assert not torch.equal(drawn(10, 5, (20, 20), seed=1).grids_Nss, grids.grids_Nss)
