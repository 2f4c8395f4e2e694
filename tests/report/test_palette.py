"""Colours: the diverging table is symmetric, and no two methods look alike."""

from __future__ import annotations

import numpy as np
import pytest

from roarline.report.palette import LEVELS, colour_table, css_gradient, line_styles


def _luminance(table: np.ndarray) -> np.ndarray:
    return table @ np.array([0.2126, 0.7152, 0.0722])


def test_the_diverging_table_is_lightest_at_zero_and_darkens_to_both_ends():
    light = _luminance(colour_table(signed=True).astype(float))
    middle = (LEVELS - 1) // 2
    assert light.argmax() == middle
    assert (np.diff(light[: middle + 1]) > -3).all()
    assert (np.diff(light[middle:]) < 3).all()
    # Equal magnitudes look equally strong: lightness at -v and +v is close, of a range of 0 to 255.
    assert np.abs(light - light[::-1]).max() < 40


def test_the_diverging_table_goes_from_blue_over_near_white_to_red():
    table = colour_table(signed=True).astype(int)
    assert table[0][2] > table[0][0]
    assert table[-1][0] > table[-1][2]
    assert table[(LEVELS - 1) // 2].min() > 240


def test_the_sequential_table_gets_lighter_all_the_way():
    # In greyscale, or to eyes that see no colour at all, more is still more.
    assert (np.diff(_luminance(colour_table(signed=False).astype(float))) > -0.5).all()


@pytest.mark.parametrize("count", [1, 7, 15, 21])
def test_methods_differ_by_more_than_colour(count: int):
    styles = line_styles([(f"m{i}", False) for i in range(count)] + [(f"b{i}", True) for i in range(4)])
    assert len(styles) == count + 4
    assert len({(style.colour, style.dashes, style.marker) for style in styles.values()}) == count + 4
    without_colour = [(style.dashes, style.marker) for style in list(styles.values())[:11]]
    assert len(set(without_colour)) == len(without_colour)


def test_a_style_depends_on_the_methods_place_among_its_kind_only():
    alone = line_styles([("a", False), ("b", False)])
    assert line_styles([("a", False), ("random", True), ("b", False)])["b"] == alone["b"]


def test_the_gradient_has_the_tables_ends():
    gradient = css_gradient(signed=True)
    table = colour_table(signed=True)
    assert gradient.startswith(f"linear-gradient(to right,#{bytes(table[0]).hex()}")
    assert gradient.endswith(f"#{bytes(table[-1]).hex()})")
