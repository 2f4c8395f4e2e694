"""Area constraint without a sort: value and gradient are those of sorting."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from roarline.imaging.area_constraint import area_penalty, with_area

AREAS = [0.05, 0.3, 0.5, 0.99]


def by_sorting(masks, areas):
    pixels = masks.shape[1]
    zeros = torch.tensor([int(pixels * (1 - area)) for area in areas])
    steps = (torch.arange(pixels) >= zeros[:, None]).to(masks)
    return (masks.sort(dim=1).values - steps).square().mean(dim=1)


def random_masks(ties, seed=0):
    masks = torch.rand(len(AREAS), 400, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return ((masks * ties).round() / ties if ties else masks).requires_grad_()


@pytest.mark.parametrize("ties", [0, 1, 5])
@given(st.integers(0, 2**31))
def test_equals_sorting(ties, seed):
    """``sort`` breaks ties as torch's sort does, in value and gradient; without ties ``share`` is the same."""
    masks = random_masks(ties, seed)
    expected = by_sorting(masks, AREAS)
    (slope,) = torch.autograd.grad(expected.sum(), masks)
    for rule in ("sort", "share"):
        found = area_penalty(masks, AREAS, rule)
        torch.testing.assert_close(found, expected)
        if rule == "sort" or not ties:
            torch.testing.assert_close(torch.autograd.grad(found.sum(), masks)[0], slope)


def test_equal_values_share_one_gradient_with_the_same_sum():
    """Sorting gives values equal to the one at the step different gradients, by where they stand."""
    masks = random_masks(ties=4)
    shared, sorted_ = (
        torch.autograd.grad(area_penalty(masks, AREAS, rule).sum(), masks)[0] for rule in ("share", "sort")
    )
    torch.testing.assert_close(shared.sum(dim=1), sorted_.sum(dim=1))
    for row, slopes in zip(masks, shared, strict=True):
        for value in row.unique():
            assert slopes[row == value].unique().numel() == 1
    assert any(
        slopes[row == value].unique().numel() > 1
        for row, slopes in zip(masks, sorted_, strict=True)
        for value in row.unique()
    )


def test_a_binary_mask_of_the_asked_area_costs_nothing_and_does_not_move():
    masks = torch.zeros(1, 100, dtype=torch.float64)
    masks[0, 30:60] = 1
    masks.requires_grad_()
    penalty = area_penalty(masks, [0.3])
    assert penalty.item() == 0
    assert torch.autograd.grad(penalty.sum(), masks)[0].abs().max() == 0
    torch.testing.assert_close(area_penalty(masks, [0.5]), torch.tensor([0.2], dtype=torch.float64))


def blurry_masks(seed, count, spread, lift):
    """Sums of a few random waves, from almost flat to almost black and white."""
    drawn = torch.randn(count, 1, 6, 5, generator=torch.Generator().manual_seed(seed))
    waves = torch.nn.functional.interpolate(drawn, size=(30, 25), mode="bicubic")[:, 0]
    return torch.sigmoid(spread * (waves + lift))


@given(st.integers(0, 2**31), st.sampled_from([0.05, 1.0, 4.0]), st.floats(-0.5, 0.5))
def test_area_is_exact_in_both_readings_and_the_order_is_kept(seed, spread, lift):
    areas = [0.02, 0.1, 0.3, 0.4, 0.7, 0.98]
    masks = blurry_masks(seed, len(areas), spread, lift)
    found = with_area(masks, areas)
    ones = [750 - int(750 * (1 - area)) for area in areas]
    assert found.min() >= 0
    assert found.max() <= 1
    tied = 0.01 * 750  # float32 of a sigmoid ties where it is almost 1
    for mask, result, count in zip(masks.flatten(1), found.flatten(1), ones, strict=True):
        assert abs(int((result > 0.5).sum()) - count) <= tied
        assert abs(float(result.sum()) - count) <= tied
        ordered = result[mask.argsort()]
        assert (ordered.diff() >= -1e-6).all()


def test_a_mask_whose_area_is_right_is_not_changed():
    """Black and white; or its soft edge symmetric about the level."""
    masks = torch.zeros(2, 1, 100)
    masks[0, 0, 60:] = 1
    masks[1, 0] = (0.5 + (torch.arange(100) - 49.5) / 20).clamp(0, 1)
    torch.testing.assert_close(with_area(masks, [0.4, 0.5]), masks, rtol=0, atol=1e-5)


def test_a_flat_mask_is_its_area_everywhere_and_0_and_1_stay():
    torch.testing.assert_close(with_area(torch.full((1, 4, 5), 0.7), [0.3]), torch.full((1, 4, 5), 0.3))
    mask = torch.tensor([0.0] * 50 + [0.2] * 5 + [0.9] * 25 + [1.0] * 20)[None, None]
    found = with_area(mask, [0.45])[0, 0]
    assert found[:50].abs().max() == 0
    assert (found[-20:] == 1).all()
