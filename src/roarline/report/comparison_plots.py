"""Pictures of how far a ranking can be trusted: places with bars, alpha on a scale of words, places under changes."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from itertools import cycle

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator

from roarline.report.comparisons import Alpha, Comparisons, Placed, RankPlot, StabilityPlot
from roarline.report.formatting import plain
from roarline.report.plots import INK, SOFT, WIDTH_IN, as_svg, figure_style

ALPHA = "alpha"
_ROW_IN, _TOP_IN, _BOTTOM_IN = 0.25, 0.4, 0.52
_NAME_IN_PER_LETTER, _MOST_NAME_IN, _NAME_LINES = 0.079, 2.2, 2
_SMALLER = 0.82
"""Size of letters of names in two lines, as a share of others'."""
_ACCENT, _LINE = "#0072B2", "#e5e7eb"
_FACTOR_LOOKS = (
    ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"), ("#E69F00", "v"), ("#56B4E9", "P"), ("#7A4E9E", "X"),
    ("#5F5F5F", "<"), ("#000000", ">"),
)  # fmt: skip
_TENTATIVE, _RELIABLE = 2 / 3, 0.8
_ARROW = re.compile(r" (?=[↑↓]$)")


def draw_comparisons(comparisons: Comparisons) -> dict[str, bytes]:
    """Name of each picture to its SVG file."""
    with figure_style():
        found = {plot.name: _draw_ranks(plot) for plot in comparisons.ranks}
        if comparisons.alphas:
            found[ALPHA] = _draw_alphas(comparisons.alphas)
        factors = dict.fromkeys(factor for plot in comparisons.stability for factor, _ in plot.factors)
        looks = dict(zip(factors, cycle(_FACTOR_LOOKS), strict=False))
        return found | {plot.name: _draw_stability(plot, looks) for plot in comparisons.stability}


def shorten(name: str, letters: int) -> str:
    """A name that fits: its end is kept too, since names often differ there."""
    if len(name) <= letters:
        return name
    head = (letters - 1) * 2 // 3
    return f"{name[:head]}…{name[-(letters - 1 - head) :]}"


def _fitted(name: str, letters: int) -> str:
    """A name in one line, or in two of smaller letters; only a longer one is shortened."""
    if len(name) <= letters:
        return name
    lines = textwrap.wrap(_ARROW.sub("\N{NO-BREAK SPACE}", name), int(letters / _SMALLER))
    return "\n".join(lines) if len(lines) <= _NAME_LINES else shorten(name, letters)


def _draw_ranks(plot: RankPlot) -> bytes:
    bars = _side_by_side(plot.rows)
    right_in = 0.3 + 0.14 * (1 + max(lane for *_, lane in bars)) if bars else 0.15
    figure, axes = _rows_figure([row.method for row in plot.rows], [row.baseline for row in plot.rows], right_in, 0.0)
    _title(figure, plot.title)
    for index, row in enumerate(plot.rows):
        if row.low is not None and row.high is not None:
            axes.plot([row.low, row.high], [index, index], color=_ACCENT, linewidth=2.2, solid_capstyle="butt")
        axes.plot([row.place], [index], "o", color=_ACCENT, markersize=6, markerfacecolor="white", markeredgewidth=1.6)
    _place_axis(axes, len(plot.rows))
    label = f"Mean place over {plot.images:,} images" if plot.images is not None else "Place of the score"
    axes.set_xlabel(f"{label}; 1 is best")
    width_in = axes.get_position().width * figure.get_figwidth()
    for first, last, lane in bars:
        x = 1 + (0.16 + 0.14 * lane) / width_in
        axes.plot(
            [x, x], [first - 0.3, last + 0.3], color=INK, linewidth=3.2, solid_capstyle="round",
            transform=axes.get_yaxis_transform(), clip_on=False,
        )  # fmt: skip
    note = "black bar: not told apart" if bars else "all are told apart"
    figure.text(
        1 - 0.06 / WIDTH_IN, 1 - 0.1 / figure.get_figheight(), note, ha="right", va="top", fontsize=8, color=SOFT
    )
    return as_svg(figure)


def _side_by_side(rows: Sequence[Placed]) -> list[tuple[int, int, int]]:
    """(first row, last row, lane) of each bar; bars that share a row are in different lanes."""
    found: list[tuple[int, int, int]] = []
    for number in sorted({number for row in rows for number in row.bars}):
        joined = [index for index, row in enumerate(rows) if number in row.bars]
        taken = {lane for _, last, lane in found if last >= joined[0]}
        found.append((joined[0], joined[-1], next(lane for lane in range(len(found) + 1) if lane not in taken)))
    return found


def _draw_alphas(alphas: Sequence[Alpha]) -> bytes:
    rows = sorted(alphas, key=lambda row: -row.alpha)
    figure, axes = _rows_figure([row.title for row in rows], [False] * len(rows), 0.5, 0.05)
    low = min([-0.1, *(value for row in rows for value in (row.alpha, row.low) if value is not None)])
    axes.set_xlim(low - 0.04, 1.03)
    for start, end, shade in (
        (low - 0.04, 0.0, "#f6e3d8"),
        (_TENTATIVE, _RELIABLE, "#e3f0fc"),
        (_RELIABLE, 1.03, "#c3def7"),
    ):
        axes.axvspan(start, end, color=shade, linewidth=0, zorder=0)
    for value in (0.0, 1.0):
        axes.axvline(value, color=SOFT, linewidth=1.0, zorder=1)
    for index, row in enumerate(rows):
        if row.low is not None and row.high is not None:
            axes.plot(
                [row.low, row.high], [index, index], color=_ACCENT, linewidth=2.2, solid_capstyle="butt", zorder=2
            )
        axes.plot([row.alpha], [index], "o", color=_ACCENT, markersize=6.5, zorder=3)
        axes.text(1.02, index, plain(row.alpha, 2), transform=axes.get_yaxis_transform(), va="center", fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7))
    axes.set_xlabel("Krippendorff's α of the images' rankings")
    for x, words, align, level in (
        (0.0, "chance", "center", 1), (1.0, "perfect", "center", 1),
        (_RELIABLE - 0.01, "tentative", "right", 0), (_RELIABLE + 0.01, "reliable", "left", 0),
    ):  # fmt: skip
        axes.annotate(
            words, (x, 1), xycoords=axes.get_xaxis_transform(), xytext=(0, 3 + 11 * level), textcoords="offset points",
            ha=align, va="bottom", fontsize=8.5, color=INK,
        )  # fmt: skip
    return as_svg(figure)


def _draw_stability(plot: StabilityPlot, every: Mapping[str, tuple[str, str]]) -> bytes:
    """The picture; ``every`` factor of the page has its colour and marker."""
    looks = {factor: every[factor] for factor, _ in plot.factors}
    legend_rows = 1 + -(-len(looks) // 2)
    figure, axes = _rows_figure(
        [row.method for row in plot.rows], [row.baseline for row in plot.rows], 0.15, 0.0, 0.2 * legend_rows - 0.05
    )
    title = plot.title if plot.kendall_w is None else f"{plot.title} – concordance W = {plain(plot.kendall_w, 2)}"
    _title(figure, title)
    for index, row in enumerate(plot.rows):
        places = [row.base, *(place for _, place in row.places)]
        axes.plot(
            [min(places), max(places)], [index, index], color="#c9ced6", linewidth=7, solid_capstyle="round", zorder=1
        )
        axes.plot(
            [row.base], [index], "o", color=INK, markersize=8, markerfacecolor="white", markeredgewidth=1.6, zorder=2
        )
        for number, (factor, (colour, marker)) in enumerate(looks.items()):
            own = [place for name, place in row.places if name == factor]
            offset = 0.24 * ((number + 0.5) / len(looks) - 0.5)
            axes.plot(own, [index + offset] * len(own), marker, color=colour, markersize=4.2, zorder=3, alpha=0.85)
    _place_axis(axes, len(plot.rows))
    axes.set_xlabel("Place; 1 is best. Grey: all places taken")
    handles = [Line2D([], [], marker="o", color=INK, markerfacecolor="white", linestyle="", label="the test as it is")]
    handles += [
        Line2D([], [], marker=marker, color=colour, linestyle="", markersize=5, label=f"other {factor}{_tau(tau)}")
        for (factor, tau), (colour, marker) in zip(plot.factors, looks.values(), strict=True)
    ]
    figure.legend(
        handles=handles,
        loc="lower center",
        ncols=2,
        handlelength=1.2,
        columnspacing=1.2,
        borderaxespad=0.2,
        fontsize=8.5,
    )
    return as_svg(figure)


def _tau(tau: float | None) -> str:
    return "" if tau is None else f" (τ {plain(tau, 2)})"


def _rows_figure(
    names: Sequence[str], soft: Sequence[bool], right_in: float, above_in: float, below_in: float = 0.0
) -> tuple[Figure, Axes]:
    """A figure with a row for each name, the first at the top, names at the left."""
    letters = int(_MOST_NAME_IN / _NAME_IN_PER_LETTER)
    shown = [_fitted(name, letters) for name in names]
    widths = [max(map(len, name.splitlines())) * (_SMALLER if "\n" in name else 1) for name in shown]
    left_in = 0.2 + _NAME_IN_PER_LETTER * max(widths)
    axes_in = _ROW_IN * len(names) + 0.1
    height_in = _TOP_IN + above_in + axes_in + _BOTTOM_IN + below_in
    figure = Figure(figsize=(WIDTH_IN, height_in), facecolor="white")
    axes = figure.add_axes(
        (
            left_in / WIDTH_IN,
            (_BOTTOM_IN + below_in) / height_in,
            1 - (left_in + right_in) / WIDTH_IN,
            axes_in / height_in,
        )
    )
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_yticks(range(len(names)), shown)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    for label, quiet in zip(axes.get_yticklabels(), soft, strict=True):
        label.set_fontsize(9 * _SMALLER if "\n" in label.get_text() else 9)
        if quiet:
            label.set_color(SOFT)
            label.set_fontstyle("italic")
    return figure, axes


def _title(figure: Figure, title: str) -> None:
    """At the figure's left, where it has most room."""
    y = 1 - 0.08 / figure.get_figheight()
    figure.text(0.1 / WIDTH_IN, y, title, ha="left", va="top", fontsize=11, fontweight="bold")


def _place_axis(axes: Axes, methods: int) -> None:
    axes.set_xlim(0.6, methods + 0.4)
    step = max(1, -(-methods // 12))
    axes.xaxis.set_major_locator(FixedLocator([1, *range(1 + step, methods + 1, step)]))
    axes.grid(axis="y", color=_LINE)
