"""Areas, gain and deviation: what mathematics says, and RISE's own formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from roarline.evaluation.curves import area_under_curve, relative_deviation, symmetric_relevance_gain

CURVES = st.lists(st.floats(0, 1, width=32), min_size=2, max_size=40)


def rise_auc(scores: np.ndarray) -> float:
    """``auc`` of RISE's evaluation code: both end points count half, divided by the number of steps."""
    return float((scores.sum() - scores[0] / 2 - scores[-1] / 2) / (len(scores) - 1))


@given(CURVES)
def test_on_equal_steps_the_area_is_what_rise_computes(scores: list[float]) -> None:
    fractions = torch.linspace(0, 1, len(scores), dtype=torch.float64)
    ours = area_under_curve(fractions, torch.tensor(scores))
    assert ours.dtype == torch.float64
    assert ours.item() == pytest.approx(rise_auc(np.array(scores, dtype=np.float64)), abs=1e-6)


@given(st.floats(0, 1), st.lists(st.integers(0, 1000), min_size=2, max_size=9, unique=True))
def test_a_flat_curve_has_its_height_as_area_whatever_the_range(height: float, thousandths: list[int]) -> None:
    fractions = torch.tensor(sorted(thousandths), dtype=torch.float64) / 1000
    scores = torch.full_like(fractions, height)
    assert area_under_curve(fractions, scores).item() == pytest.approx(height, abs=1e-12)


def test_a_straight_line_on_unequal_steps_has_the_mean_of_its_ends() -> None:
    fractions = torch.tensor([0.2, 0.25, 0.7, 0.9])
    assert area_under_curve(fractions, 1 - fractions).item() == pytest.approx((0.8 + 0.1) / 2)


def test_rows_are_independent() -> None:
    fractions, scores = torch.tensor([0.0, 0.5, 1.0]), torch.rand(4, 3)
    rows = torch.stack([area_under_curve(fractions, row) for row in scores])
    assert torch.equal(area_under_curve(fractions, scores), rows)


def test_gain_is_zero_for_equal_curves_and_changes_sign_with_them() -> None:
    fractions, one, two = torch.linspace(0, 1, 5), torch.rand(3, 5), torch.rand(3, 5)
    assert torch.equal(symmetric_relevance_gain(fractions, one, one), torch.zeros(3, dtype=torch.float64))
    gain = symmetric_relevance_gain(fractions, one, two)
    assert torch.equal(gain, -symmetric_relevance_gain(fractions, two, one))
    assert torch.equal(gain, area_under_curve(fractions, one) - area_under_curve(fractions, two))


def test_deviation_counts_up_and_down_alike() -> None:
    before = torch.tensor([[0.5], [0.25]])
    deviation = relative_deviation(before, torch.tensor([[0.25, 0.75, 0.5], [0.0, 0.5, 1.0]]))
    assert deviation.tolist() == [[50.0, 50.0, 0.0], [100.0, 100.0, 300.0]]


def test_deviation_from_nothing_is_not_finite() -> None:
    assert not torch.isfinite(relative_deviation(torch.tensor(0.0), torch.tensor([0.0, 0.1]))).any()


@pytest.mark.parametrize("fractions", [[0.0, 0.5], [0.0, 0.0, 1.0], [0.0, 0.7, 0.5]])
def test_fractions_that_do_not_fit_are_refused(fractions: list[float]) -> None:
    with pytest.raises(ValueError, match="fractions"):
        area_under_curve(torch.tensor(fractions), torch.zeros(3))


def test_one_point_has_no_area() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        area_under_curve(torch.tensor([0.5]), torch.zeros(1))
