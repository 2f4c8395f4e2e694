"""A contact sheet: a row per image, a column per method, one picture file to look at."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from roarline.artifacts.files import atomic_path

_TILE_PX, _GAP_PX, _DPI = 128, 4, 100
_LEFT_IN, _TOP_IN, _LINE_IN = 2.2, 1.25, 0.17
_SCALE = (
    "Each map on its own scale: blue against the class, white 0, red for it; without negative values dark to yellow "
    "from 0, or from its lowest value where that is above half of its highest."
)
_FOOT_CHARACTERS = 0.085  # width in inches of a character of the foot


@dataclass(frozen=True)
class Column:
    """One method.

    Attributes:
        parameters: In words, for the foot of the sheet; empty where it has none.
        tiles: One picture an image, uint8 [h, w, 3]; None where the method has no map of it.
    """

    name: str
    parameters: str
    tiles: Sequence[np.ndarray | None]


@dataclass(frozen=True)
class Sheet:
    """What is drawn.

    Attributes:
        pictures: One an image, uint8 [h, w, 3].
        captions: One an image: lines of label and what the map speaks of.
    """

    title: str
    pictures: Sequence[np.ndarray]
    captions: Sequence[str]
    columns: Sequence[Column]


def draw_sheet(sheet: Sheet, output: Path) -> None:
    """Write the sheet as PNG.

    Raises:
        ArtifactError: The folder can't be written.
    """
    stacked = _stack(sheet)
    height_in, width_in = stacked.shape[0] / _DPI, stacked.shape[1] / _DPI
    whole_width = _LEFT_IN + width_in
    notes = [_SCALE, *(f"{column.name}: {column.parameters}" for column in sheet.columns if column.parameters)]
    characters = int(whole_width / _FOOT_CHARACTERS)
    foot = [line for note in notes for line in textwrap.wrap(note, characters, subsequent_indent="    ")]
    foot_in = 0.3 + _LINE_IN * len(foot)
    whole_height = _TOP_IN + height_in + foot_in
    with matplotlib.rc_context({"text.parse_math": False, "font.family": ["DejaVu Sans"]}):
        figure = Figure(figsize=(whole_width, whole_height), dpi=_DPI)
        FigureCanvasAgg(figure)
        axes = figure.add_axes(
            (_LEFT_IN / whole_width, foot_in / whole_height, width_in / whole_width, height_in / whole_height)
        )
        axes.imshow(stacked, interpolation="nearest", aspect="auto")
        axes.set_axis_off()
        figure.text(0.1 / whole_width, 1 - 0.3 / whole_height, sheet.title, fontsize=12, fontweight="bold")
        step = _TILE_PX + _GAP_PX
        for place, name in enumerate(["image", *(column.name for column in sheet.columns)]):
            axes.text(
                place * step + _TILE_PX / 2, -6, name, rotation=30, rotation_mode="anchor", ha="left", va="bottom",
                fontsize=8,
            )  # fmt: skip
        for row, caption in enumerate(sheet.captions):
            wrapped = "\n".join(line for part in caption.splitlines() for line in textwrap.wrap(part, 30)[:3])
            axes.text(-8, row * step + _TILE_PX / 2, wrapped, ha="right", va="center", fontsize=7)
        for number, line in enumerate(foot):
            figure.text(
                0.1 / whole_width, (foot_in - 0.2 - _LINE_IN * number) / whole_height, line, fontsize=7,
                family="DejaVu Sans Mono", va="top",
            )  # fmt: skip
        with atomic_path(output) as partial:
            figure.savefig(partial, format="png", dpi=_DPI)


def _stack(sheet: Sheet) -> np.ndarray:
    step = _TILE_PX + _GAP_PX
    canvas = np.full((len(sheet.pictures) * step, (len(sheet.columns) + 1) * step, 3), 255, dtype=np.uint8)
    for row, picture in enumerate(sheet.pictures):
        for place, tile in enumerate([picture, *(column.tiles[row] for column in sheet.columns)]):
            if tile is not None:
                top, left = row * step, place * step
                canvas[top : top + _TILE_PX, left : left + _TILE_PX] = fitted(tile, _TILE_PX)
    return canvas


def fitted(tile: np.ndarray, side_px: int) -> np.ndarray:
    """A picture, uint8 [h, w, 3], as a square of that side: pixels of small ones stay sharp."""
    smaller = max(tile.shape[:2]) < side_px
    how = Image.Resampling.NEAREST if smaller else Image.Resampling.LANCZOS
    return np.asarray(Image.fromarray(np.ascontiguousarray(tile)).resize((side_px, side_px), how))
