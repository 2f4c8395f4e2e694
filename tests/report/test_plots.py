"""Figures: complete, without global state, the same bytes for the same numbers."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import matplotlib
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from roarline.report import plots
from roarline.report.palette import line_styles
from roarline.report.panels import Level, Line, Panel
from roarline.report.plots import draw

_LINES = tuple(
    Line(f"method_{index}", (0.1, 0.5, 0.9), (0.9, 0.5, 0.1), (0.8, 0.4, 0.0), (1.0, 0.6, 0.2)) for index in range(3)
)
_PANEL = Panel("p", "Title with $ and _", "x (%)", "y (%)", _LINES, (Level("nothing removed", 0.95, 0.9, 1.0),))
_STYLES = line_styles([(line.name, False) for line in _LINES])


def _settings() -> dict[str, object]:
    # Asking for the backend would make matplotlib choose one, and import pyplot for it.
    return {name: matplotlib.rcParams[name] for name in matplotlib.rcParams if name != "backend"}


def test_a_figure_is_one_svg_with_every_line_in_its_colour():
    svg = draw([_PANEL], _STYLES)["p"].decode()
    root = ElementTree.fromstring(svg)
    assert root.tag.endswith("svg")
    for style in _STYLES.values():
        assert style.colour.lower() in svg.lower()
    assert "<image" not in svg


@pytest.mark.parametrize("letters", [1, 8, 18, 24, 28, 34])
def test_a_legend_never_leaves_the_figure(monkeypatch, letters):
    """Nor has it fewer columns than fit: with one more it would leave it."""
    drawn: list[Figure] = []
    monkeypatch.setattr(plots, "as_svg", lambda figure: drawn.append(figure) or b"")
    lines = tuple(Line(f"{'m' * letters}{index}", (0.1,), (0.9,), (None,), (None,)) for index in range(8))
    level = Level("always the most frequent class (10.0 %)", 0.1)
    draw([Panel("p", "t", "x", "y", lines, (level,))], line_styles([(line.name, False) for line in lines]))
    (figure,) = drawn
    legend = figure.legends[0].get_window_extent(FigureCanvasAgg(figure).get_renderer())
    assert legend.x0 >= figure.bbox.x0
    assert legend.x1 <= figure.bbox.x1
    columns = len({round(text.get_window_extent().x0) for text in figure.legends[0].get_texts()})
    assert columns == 3 or legend.width * (columns + 1) / columns > 0.9 * figure.bbox.width


def test_equal_numbers_give_equal_bytes():
    assert draw([_PANEL], _STYLES) == draw([_PANEL], _STYLES)


def test_no_global_state_is_touched_whatever_the_users_style():
    before = _settings()
    plain = draw([_PANEL], _STYLES)
    assert _settings() == before
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red"}):
        assert draw([_PANEL], _STYLES) == plain


def test_pyplot_is_not_needed():
    code = """
import sys
from roarline.report.palette import line_styles
from roarline.report.panels import Line, Panel
from roarline.report.plots import draw
draw([Panel("p", "t", "x", "y", (Line("m", (0.0,), (1.0,), (None,), (None,)),))], line_styles([("m", False)]))
sys.exit("matplotlib.pyplot" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_single_point_shows_its_interval_even_one_that_leaves_it_out():
    def drawn(low: float | None, high: float | None) -> bytes:
        return draw([Panel("p", "t", "x", "y", (Line("method_0", (0.5,), (0.5,), (low,), (high,)),))], _STYLES)["p"]

    assert len(drawn(0.4, 0.6)) > len(drawn(None, None))
    assert len(drawn(0.55, 0.6)) > len(drawn(None, None))


def test_lines_of_one_point_and_of_equal_values_can_be_drawn():
    point = Panel("point", "t", "x", "y", (Line("method_0", (0.5,), (0.5,), (None,), (None,)),), group="g")
    flat = Panel("flat", "t", "x", "y", (Line("method_1", (0.0, 1.0), (0.5, 0.5), (0.5, 0.5), (0.5, 0.5)),), group="g")
    assert set(draw([point, flat], _STYLES)) == {"point", "flat"}
