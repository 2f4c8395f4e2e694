"""The picture of ``roarline explain``: image, heat map with its scale, overlay, most relevant pixels, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from roarline.artifacts.files import atomic_path
from roarline.errors import UserInputError
from roarline.report.palette import DIVERGING, SEQUENTIAL
from roarline.report.pictures import is_signed, overlay, scale_of

FORMATS = (".png", ".pdf", ".svg")
_PANEL_IN, _DPI = 3.1, 120


@dataclass(frozen=True)
class Explanation:
    """What is drawn.

    Attributes:
        picture: uint8 [H, W, 3], the image as the network sees it.
        map_HW: float32, finite.
        masked: uint8 [H, W, 3], the image with only its most relevant pixels left.
        kept_fraction: Their share.
    """

    title: str
    subtitle: str
    method: str
    picture: np.ndarray
    map_HW: np.ndarray
    masked: np.ndarray
    kept_fraction: float


def draw(explanation: Explanation, output: Path) -> None:
    """Write the picture; its format is the suffix of ``output``.

    Raises:
        UserInputError: The suffix is none of ``FORMATS``.
        ArtifactError: The folder can't be written.
    """
    check_format(output)
    height, width = explanation.map_HW.shape
    signed = is_signed(explanation.map_HW)
    with matplotlib.rc_context({"text.parse_math": False, "font.family": ["DejaVu Sans"]}):
        figure = Figure(figsize=(4 * _PANEL_IN + 1.0, _PANEL_IN * height / width + 1.3), layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(explanation.title, fontsize=13, fontweight="bold")
        first, second, third, fourth = figure.subplots(1, 4)
        _show(first, explanation.picture, f"image, {width} × {height} px")
        _heat_map(figure, second, explanation, signed)
        _show(third, overlay(explanation.picture, explanation.map_HW, signed=signed), "heat map over image")
        _show(fourth, explanation.masked, f"most relevant {100 * explanation.kept_fraction:g} % of pixels")
        figure.supxlabel(explanation.subtitle, fontsize=9, color="#4b5563")
        with atomic_path(output) as partial:
            figure.savefig(partial, format=output.suffix[1:].lower(), dpi=_DPI)


def check_format(output: Path) -> None:
    """Refuse a suffix that is no picture's."""
    if output.suffix.lower() not in FORMATS:
        raise UserInputError(f"--output {output}: expected a name that ends in {', '.join(FORMATS)}")


def _heat_map(figure: Figure, axes: Axes, explanation: Explanation, signed: bool) -> None:
    """The map on the scale of the overlay."""
    begin, end = scale_of(explanation.map_HW, signed=signed)
    if not end:
        begin, end = -1.0 if signed else 0.0, 1.0
    shown = axes.imshow(
        explanation.map_HW, cmap=DIVERGING if signed else SEQUENTIAL, vmin=begin, vmax=end,
        interpolation="nearest",
    )  # fmt: skip
    _bare(axes, explanation.method)
    beyond = bool(np.abs(explanation.map_HW).max() > end)
    extend = ("both" if signed else "max") if beyond else "neither"
    bar = figure.colorbar(
        shown, ax=axes, location="bottom", shrink=0.9, pad=0.03, extend=extend,
        format=FuncFormatter(lambda value, _: f"{value:.3g}"),
    )  # fmt: skip
    bar.set_label("against the class  ←  attribution  →  for the class" if signed else "attribution", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    bar.locator = MaxNLocator(nbins=5)
    bar.update_ticks()


def _show(axes: Axes, picture: np.ndarray, title: str) -> None:
    axes.imshow(picture, interpolation="nearest")
    _bare(axes, title)


def _bare(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xticks([])
    axes.set_yticks([])
