"""Bands of mean curves: against scipy's interval of a mean, and with several rows an image."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from roarline.report.bands import mean_line

_FRACTIONS = np.array([0.0, 0.5, 1.0])


def test_with_one_row_an_image_it_is_the_students_interval_of_a_mean(rng: np.random.Generator):
    curves = rng.random((30, 3))
    line = mean_line("m", _FRACTIONS, curves, [str(i) for i in range(30)], 0.9)
    assert line is not None
    interval = stats.t.interval(0.9, 29, loc=curves.mean(axis=0), scale=stats.sem(curves, axis=0))
    np.testing.assert_allclose(line.y, curves.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose([line.low, line.high], interval, rtol=1e-9)
    assert line.x == (0.0, 0.5, 1.0)


def test_rows_of_one_image_count_once(rng: np.random.Generator):
    curves = rng.random((20, 3))
    once = mean_line("m", _FRACTIONS, curves, [str(i) for i in range(20)], 0.95)
    thrice = mean_line("m", _FRACTIONS, np.repeat(curves, 3, axis=0), [str(i // 3) for i in range(60)], 0.95)
    assert once is not None
    assert thrice is not None
    np.testing.assert_allclose(thrice.low, once.low, rtol=1e-9)
    np.testing.assert_allclose(thrice.high, once.high, rtol=1e-9)


def test_failed_rows_are_left_out(rng: np.random.Generator):
    curves = rng.random((10, 3))
    with_failure = np.concatenate([curves, [[np.nan, 0.5, 0.5]]])
    names = [str(i) for i in range(11)]
    assert mean_line("m", _FRACTIONS, with_failure, names, 0.95) == mean_line("m", _FRACTIONS, curves, names[:10], 0.95)


def test_one_image_has_no_interval_and_none_no_line():
    line = mean_line("m", _FRACTIONS, np.array([[1.0, 0.5, 0.0]]), ["a"], 0.95)
    assert line is not None
    assert (line.y, line.low, line.high) == ((1.0, 0.5, 0.0), (None,) * 3, (None,) * 3)
    assert mean_line("m", _FRACTIONS, np.full((2, 3), np.nan), ["a", "b"], 0.95) is None


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2]])
def test_the_order_of_rows_does_not_matter(order: list[int]):
    curves = np.array([[1, 0.5, 0], [0.5, 0.25, 0], [1, 1, 1], [0, 0, 0]])
    names = np.array(["a", "b", "c", "d"])
    line = mean_line("m", _FRACTIONS, curves[order], names[order].tolist(), 0.95)
    assert line is not None
    assert line.y == (0.625, 0.4375, 0.25)
