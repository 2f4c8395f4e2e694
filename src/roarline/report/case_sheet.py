"""A sheet of cases: images beside their maps with the objects drawn in, the best cases above the worst.

Legend: h, w height and width of an image in px.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import patheffects
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from roarline.artifacts.files import atomic_path
from roarline.errors import UserInputError
from roarline.report.contact_sheet import fitted

_TILE_PX, _GAP_PX, _DPI = 96, 6, 100
_CAPTION_PX, _HEADING_PX, _TITLE_PX, _MARGIN_PX = 36, 26, 30, 8
_CASES_A_LINE = 5
_CAPTION_CHARACTERS, _HEADING_CHARACTERS = 34, 120
_FORMATS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg"}
_JPEG_QUALITY = 70


@dataclass(frozen=True)
class Case:
    """One image and one map of it.

    Attributes:
        picture: The image, uint8 [h, w, 3].
        overlay: The map over it, uint8 [h, w, 3].
        boxes: int64 [G, 4], x0, y0, x1, y1 in px of the image, inclusive, to be drawn in both.
        outline: bool [h, w], pixels whose border is drawn in both; None where there are none.
        peak: x, y of the map's highest pixel, to be marked; None where several are the highest.
        caption: Its lines.
    """

    picture: np.ndarray
    overlay: np.ndarray
    boxes: np.ndarray
    outline: np.ndarray | None
    peak: tuple[int, int] | None
    caption: str


@dataclass(frozen=True)
class Block:
    """Cases below a heading."""

    heading: str
    cases: Sequence[Case]


def check_output(output: Path) -> None:
    """Refuse a picture's name before there is work.

    Raises:
        UserInputError: Its suffix is none of a picture that can be written.
    """
    if output.suffix.lower() not in _FORMATS:
        raise UserInputError(f"{output}: expected a picture's name that ends in {', '.join(_FORMATS)}")


def draw_cases(title: str, blocks: Sequence[Block], output: Path) -> None:
    """Write the sheet; its suffix says whether as PNG or as JPEG.

    Raises:
        UserInputError: The suffix is another.
        ArtifactError: The folder can't be written.
    """
    check_output(output)
    lines = [-(-len(block.cases) // _CASES_A_LINE) for block in blocks]
    wide = 2 * _MARGIN_PX + _CASES_A_LINE * _pair_px() - _GAP_PX
    high = _TITLE_PX + sum(_HEADING_PX + count * _line_px() for count in lines) + _MARGIN_PX
    with matplotlib.rc_context({"text.parse_math": False, "font.family": ["DejaVu Sans"]}):
        figure = Figure(figsize=(wide / _DPI, high / _DPI), dpi=_DPI)
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, wide), ylim=(high, 0))
        axes.set_axis_off()
        axes.text(_MARGIN_PX, _TITLE_PX / 2, title, va="center", fontsize=10, fontweight="bold")
        top = _TITLE_PX
        for block, count in zip(blocks, lines, strict=True):
            heading = textwrap.shorten(block.heading, _HEADING_CHARACTERS, placeholder=" …")
            axes.text(_MARGIN_PX, top + _HEADING_PX / 2, heading, va="center", fontsize=8.5)
            top += _HEADING_PX
            for place, case in enumerate(block.cases):
                line, column = divmod(place, _CASES_A_LINE)
                _draw(axes, case, _MARGIN_PX + column * _pair_px(), top + line * _line_px())
            top += count * _line_px()
        kind = _FORMATS[output.suffix.lower()]
        options = {"quality": _JPEG_QUALITY, "optimize": True} if kind == "jpeg" else {}
        with atomic_path(output) as partial:
            figure.savefig(partial, format=kind, dpi=_DPI, pil_kwargs=options)


def _pair_px() -> int:
    return 2 * _TILE_PX + 2 + _GAP_PX


def _line_px() -> int:
    return _TILE_PX + _CAPTION_PX


def _draw(axes: Any, case: Case, left: float, top: float) -> None:
    """An image, its map to the right, the caption below."""
    down, across = _TILE_PX / case.picture.shape[0], _TILE_PX / case.picture.shape[1]
    for place, tile in enumerate((case.picture, case.overlay)):
        x, y = left + place * (_TILE_PX + 2), top
        axes.imshow(
            fitted(tile, _TILE_PX), extent=(x, x + _TILE_PX, y + _TILE_PX, y), interpolation="nearest", aspect="auto"
        )
        for x0, y0, x1, y1 in case.boxes.tolist():
            frame = Rectangle(
                (x + x0 * across, y + y0 * down), (x1 + 1 - x0) * across, (y1 + 1 - y0) * down, fill=False
            )
            axes.add_patch(_seen(frame))
        if case.outline is not None and case.outline.any() and not case.outline.all():
            padded = np.pad(case.outline, 1).astype(float)
            columns = x + (np.arange(padded.shape[1]) - 0.5) * across
            rows = y + (np.arange(padded.shape[0]) - 0.5) * down
            _seen(axes.contour(columns, rows, padded, levels=[0.5]))
    if case.peak is not None:
        x, y = left + _TILE_PX + 2 + (case.peak[0] + 0.5) * across, top + (case.peak[1] + 0.5) * down
        axes.plot(x, y, marker="x", markersize=6, color="white", path_effects=_halo(1.2))
    caption = "\n".join(
        textwrap.shorten(part, _CAPTION_CHARACTERS, placeholder=" …") for part in case.caption.split("\n")
    )
    axes.text(left, top + _TILE_PX + 3, caption, va="top", fontsize=6.5)


def _seen(drawn: Any) -> Any:
    """White with a dark rim, which stands out on every colour."""
    drawn.set(edgecolor="white", linewidth=1.2, path_effects=_halo(1.2))
    return drawn


def _halo(width: float) -> list[Any]:
    return [patheffects.Stroke(linewidth=width + 1.6, foreground="black"), patheffects.Normal()]
