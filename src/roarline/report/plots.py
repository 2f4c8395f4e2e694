"""Figures of the page, drawn with matplotlib's object interface as SVG; no global state, no display."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath
from matplotlib.ticker import FuncFormatter, MaxNLocator

from roarline.report.palette import LineStyle
from roarline.report.panels import Line, Panel

WIDTH_IN, _AXES_HEIGHT_IN, _LEGEND_ROW_IN = 5.4, 3.25, 0.215
_TOP_IN, _BOTTOM_IN, _LEFT_IN, _RIGHT_IN = 0.38, 0.5, 0.68, 0.12
INK, SOFT = "#1f2328", "#6b7280"
_LEGEND_PT, _LEGEND_HANDLE, _LEGEND_GAP = 9.0, 3.2, 1.4
"""Letters in points; a line's sample and the space between columns in letters' heights."""
_STYLE = {
    "font.family": ["DejaVu Sans"],
    "font.size": 10.0,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.titlesize": 11.0,
    "axes.titleweight": "bold",
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e5e7eb",
    "grid.linewidth": 0.7,
    "xtick.color": INK,
    "ytick.color": INK,
    "lines.linewidth": 1.8,
    "lines.markersize": 5.0,
    "legend.frameon": False,
    "legend.fontsize": _LEGEND_PT,
    "text.parse_math": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "roarline",
}
_LEVEL_DASHES = ((0, (7, 3)), (0, (1, 2)))
_MANY_POINTS = 15
_MOST_TICKS, _TICK_LETTERS, _TICK_LETTER_IN = 24, 18, 0.068


def draw(panels: Sequence[Panel], styles: Mapping[str, LineStyle]) -> dict[str, bytes]:
    """Draw each panel as one SVG file with its legend below the axes, where it hides no data.

    Args:
        panels: What to draw.
        styles: Name of a line to its style.

    Returns:
        Name of the panel to SVG.
    """
    with figure_style():
        return {panel.name: _draw_one(panel, styles, _y_range(panel, panels)) for panel in panels}


@contextmanager
def figure_style() -> Iterator[None]:
    """matplotlib's own defaults and ours, whatever the user's matplotlibrc says."""
    # The backend is not touched: naming it would make matplotlib import one that shows windows.
    defaults = {name: value for name, value in matplotlib.rcParamsDefault.items() if "backend" not in name}
    style: dict[Any, Any] = {**defaults, **_STYLE}
    with matplotlib.rc_context(style):
        yield


def _draw_one(panel: Panel, styles: Mapping[str, LineStyle], y_range: tuple[float, float] | None) -> bytes:
    names = [line.name for line in panel.lines] + [level.label for level in panel.levels]
    columns = _legend_columns(names)
    legend_in = _LEGEND_ROW_IN * -(-len(names) // columns) + 0.08 + _TICK_LETTER_IN * _longest(panel.x_ticks)
    height_in = _TOP_IN + _AXES_HEIGHT_IN + _BOTTOM_IN + legend_in
    figure = Figure(figsize=(WIDTH_IN, height_in), facecolor="white")
    axes = figure.add_axes(
        (
            _LEFT_IN / WIDTH_IN,
            (_BOTTOM_IN + legend_in) / height_in,
            1 - (_LEFT_IN + _RIGHT_IN) / WIDTH_IN,
            _AXES_HEIGHT_IN / height_in,
        )
    )
    _add_levels(axes, panel)
    for index, line in enumerate(panel.lines):
        _add_line(axes, line, styles[line.name], len(panel.lines) - index)
    _set_axes(axes, panel, y_range)
    figure.legend(
        loc="lower center", ncols=columns, handlelength=_LEGEND_HANDLE, columnspacing=_LEGEND_GAP, borderaxespad=0.2
    )
    return as_svg(figure)


def _legend_columns(names: Sequence[str]) -> int:
    """As many as fit side by side, at most three; names go down a column first."""
    font = FontProperties(family="DejaVu Sans", size=_LEGEND_PT)
    widths = [TextPath((0, 0), name, prop=font).get_extents().width for name in names]
    for columns in (3, 2):
        widest = [max(column, default=0.0) for column in np.array_split(np.array(widths), columns)]
        beside = _LEGEND_PT * (columns * (_LEGEND_HANDLE + 0.8) + (columns - 1) * _LEGEND_GAP + 2)
        if (sum(widest) + beside) / 72 <= WIDTH_IN:
            return columns
    return 1


def as_svg(figure: Figure) -> bytes:
    """The figure as one SVG file; equal figures give equal bytes."""
    buffer = io.BytesIO()
    FigureCanvasSVG(figure)
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def _add_line(axes: Axes, line: Line, style: LineStyle, order: int) -> None:
    every = max(1, len(line.x) // _MANY_POINTS)
    low = [y if bound is None else bound for y, bound in zip(line.y, line.low, strict=True)]
    high = [y if bound is None else bound for y, bound in zip(line.y, line.high, strict=True)]
    if low != high and len(line.x) == 1:  # a band needs two points
        whiskers = [[max(0.0, line.y[0] - low[0])], [max(0.0, high[0] - line.y[0])]]
        axes.errorbar(line.x, line.y, yerr=whiskers, color=style.colour, capsize=4, linewidth=1.2, zorder=2)
    elif low != high:
        axes.fill_between(line.x, low, high, color=style.colour, alpha=0.15, linewidth=0, zorder=2 + order / 100)
    axes.plot(
        line.x, line.y, color=style.colour, linestyle=style.dashes, marker=style.marker, markevery=every,
        markerfacecolor="white" if style.marker not in "x+12" else style.colour, markeredgewidth=1.3,
        label=line.name, zorder=3 + order / 100,
    )  # fmt: skip


def _add_levels(axes: Axes, panel: Panel) -> None:
    for level, dashes in zip(panel.levels, _LEVEL_DASHES, strict=False):
        if level.low is not None and level.high is not None:
            axes.axhspan(level.low, level.high, color=SOFT, alpha=0.12, linewidth=0, zorder=1)
        axes.axhline(level.value, color=SOFT, linestyle=dashes, linewidth=1.2, label=level.label, zorder=1.5)


def _set_axes(axes: Axes, panel: Panel, y_range: tuple[float, float] | None) -> None:
    axes.set_title(panel.title, loc="left")
    axes.set_xlabel(panel.x_label)
    axes.set_ylabel(panel.y_label)
    if panel.x_range is not None:
        axes.set_xlim(panel.x_range[0] - 0.02, panel.x_range[1] + 0.02)
    elif panel.x_ticks:
        every = -(-len(panel.x_ticks) // _MOST_TICKS)
        places = range(1, len(panel.x_ticks) + 1, every)
        labels = [_shortened(panel.x_ticks[place - 1]) for place in places]
        axes.set_xticks(list(places), labels, rotation=90, fontsize=8)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if y_range is not None:
        axes.set_ylim(*y_range)
    for axis, is_percent in zip((axes.xaxis, axes.yaxis), panel.percent, strict=True):
        if is_percent:
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g}"))


def _shortened(name: str) -> str:
    """The end of a long name, by which layers differ."""
    return name if len(name) <= _TICK_LETTERS else f"…{name[1 - _TICK_LETTERS :]}"


def _longest(names: Sequence[str]) -> int:
    return max((len(_shortened(name)) for name in names), default=0)


def _y_range(panel: Panel, panels: Sequence[Panel]) -> tuple[float, float] | None:
    """One range for all panels of a group, so that they can be compared by eye; None where it is left to matplotlib."""
    if not panel.group:
        return None
    values = [
        value
        for other in panels
        if other.group == panel.group
        for line in other.lines
        for value in (*line.y, *line.low, *line.high)
        if value is not None
    ]
    values += [level.value for other in panels if other.group == panel.group for level in other.levels]
    low, high = min(values), max(values)
    margin = 0.04 * (high - low) or 0.05
    low, high = low - margin, high + margin
    if panel.percent[1]:
        low, high = max(low, -0.02), min(high, 1.02)
    return low, high
