"""Colours, line styles and colour maps that readers with any colour vision can tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import cycle, islice

import matplotlib
import numpy as np

# Okabe and Ito's palette without its yellow, which is too pale for a line on white; blue and vermillion first.
_METHOD_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A4E9E")
_METHOD_DASHES = ("solid", (0, (6, 2)), (0, (3, 1, 1, 1)))
_METHOD_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h")
_BASELINE_COLOURS = ("#000000", "#5F5F5F", "#8C8C8C", "#A87B4F")
_BASELINE_DASHES = ((0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)), (0, (2, 2)), (0, (8, 2)))
_BASELINE_MARKERS = ("x", "+", "1", "2")

LEVELS = 257
"""Entries of a colour table; odd, so that 0 has an entry of its own in the middle of the diverging one."""
DIVERGING, SEQUENTIAL = "RdBu_r", "viridis"


@dataclass(frozen=True)
class LineStyle:
    """How one method is drawn in every figure: colour, dashes and marker, so that no two rest on colour alone."""

    colour: str
    dashes: str | tuple[float, tuple[float, ...]]
    marker: str


def line_styles(methods: Sequence[tuple[str, bool]]) -> dict[str, LineStyle]:
    """Give each method a style of its own.

    Args:
        methods: (name, is it a baseline), in the order of the configuration. Baselines are grey and broken.

    Returns:
        Name to style; colour, dashes and marker repeat only after more methods than the product of their counts.
    """
    styles: dict[str, LineStyle] = {}
    for baseline in (False, True):
        names = [name for name, is_baseline in methods if is_baseline == baseline]
        colours = _BASELINE_COLOURS if baseline else _METHOD_COLOURS
        dashes = _BASELINE_DASHES if baseline else _METHOD_DASHES
        markers = list(islice(cycle(_BASELINE_MARKERS if baseline else _METHOD_MARKERS), len(names)))
        for index, name in enumerate(names):
            turn, place = divmod(index, len(colours))
            dash = dashes[place % len(dashes)] if baseline else dashes[turn % len(dashes)]
            styles[name] = LineStyle(colours[place], dash, markers[index])
    return styles


@cache
def colour_table(*, signed: bool) -> np.ndarray:
    """The colours of a heat map, uint8 [257, 3].

    Args:
        signed: True: blue (negative) over white (0, entry 128) to red (positive). False: dark (0) to yellow.
    """
    colours = matplotlib.colormaps[DIVERGING if signed else SEQUENTIAL].resampled(LEVELS)
    table: np.ndarray = np.rint(colours(np.linspace(0, 1, LEVELS))[:, :3] * 255).astype(np.uint8)
    table.setflags(write=False)
    return table


def css_gradient(*, signed: bool) -> str:
    """The colour table as a CSS ``linear-gradient`` from left to right, for a legend."""
    stops = colour_table(signed=signed)[:: (LEVELS - 1) // 16]
    return "linear-gradient(to right," + ",".join("#" + bytes(stop).hex() for stop in stops) + ")"


def diverging_colour(value: float) -> tuple[str, str]:
    """The colour of a value in [-1, 1], red (−1) over white (0) to blue (1), and that of words upon it."""
    table = colour_table(signed=True)[::-1]
    colour = table[round((value + 1) / 2 * (LEVELS - 1))]
    # Relative luminance as WCAG 2.1 has it; where black and white are alike upon it, both have a contrast of 4.58.
    share = colour / 255.0
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    dark = float(linear @ (0.2126, 0.7152, 0.0722)) < 0.179
    return "#" + bytes(colour).hex(), "#ffffff" if dark else "#000000"
