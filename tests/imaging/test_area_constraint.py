"""Area constraint without a sort: value and gradient are those of sorting."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from roarline.imaging.area_constraint import area_penalty

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
