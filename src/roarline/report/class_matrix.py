"""The class-specific matrix as pictures: what the classifier says of a class where only one class's mask is left."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from roarline.report.palette import colour_table
from roarline.report.plots import INK, WIDTH_IN, as_svg, figure_style

MOST_CLASSES = 20
_CELL_IN, _MOST_CELL_IN, _LETTER_IN, _MOST_LETTERS = 0.62, 0.42, 0.075, 16
_TOP_IN, _LABEL_IN, _BAR_IN = 0.42, 0.3, 0.72
_BAR_STEPS = 32
_WORDS_FIT_IN = 0.3
"""Least width of a cell with a number in it."""


@dataclass(frozen=True)
class ClassMatrix:
    """Of one method.

    Attributes:
        name: Of the figure.
        classes: Whose images are the rows, and whose masks the columns.
        images: Of each class.
        masked: Mean probability [row][column], over images and thresholds; None where there is no number.
        whole: Mean probability of each row's class with nothing masked.
        left_out: Classes that the picture doesn't show, those with the fewest images.
    """

    name: str
    method: str
    classes: tuple[str, ...]
    images: tuple[int, ...]
    masked: tuple[tuple[float | None, ...], ...]
    whole: tuple[float | None, ...]
    left_out: int = 0


def class_matrices(tables: Mapping[str, Mapping[str, Sequence[Any]]]) -> tuple[ClassMatrix, ...]:
    """Of each method that has a table.

    Args:
        tables: Method to columns of ``class_matrix.parquet``.
    """
    found = (_matrix(place, method, table) for place, (method, table) in enumerate(tables.items()))
    return tuple(matrix for matrix in found if matrix.classes)


def draw_class_matrices(matrices: Sequence[ClassMatrix]) -> dict[str, bytes]:
    """Name of each picture to its SVG file."""
    with figure_style():
        return {matrix.name: _draw(matrix) for matrix in matrices}


def _matrix(place: int, method: str, table: Mapping[str, Sequence[Any]]) -> ClassMatrix:
    cells: dict[str, dict[str, float | None]] = {}
    images: dict[str, int] = {}
    for row, column, value, count in zip(
        table["class_in_image"], table["mask_of"], table["probability"], table["images"], strict=True
    ):
        known = isinstance(value, float) and math.isfinite(value)
        cells.setdefault(row, {})[column] = value if known else None
        images[row] = count
    often = sorted(cells, key=lambda name: -images[name])[:MOST_CLASSES]
    classes = [name for name in cells if name in often]
    whole = [next(value for name, value in cells[row].items() if name.startswith("(")) for row in classes]
    return ClassMatrix(
        f"class-matrix-{place}",
        method,
        tuple(classes),
        tuple(images[name] for name in classes),
        tuple(tuple(cells[row][column] for column in classes) for row in classes),
        tuple(whole),
        len(cells) - len(classes),
    )


def _draw(matrix: ClassMatrix) -> bytes:
    """Rows are classes in images, columns masks; the last column, apart, is the whole image."""
    count = len(matrix.classes)
    names = [name if len(name) <= _MOST_LETTERS else f"{name[: _MOST_LETTERS - 1]}…" for name in matrix.classes]
    left_in = 0.45 + _LETTER_IN * max(len(f"{name} ({n})") for name, n in zip(names, matrix.images, strict=True))
    cell_in = min(_CELL_IN, (WIDTH_IN - left_in - _BAR_IN) / (count + 1.4))
    height_in = min(cell_in, _MOST_CELL_IN)
    below_in = _LABEL_IN + _LETTER_IN * max(map(len, (*names, "nothing"))) + 0.1
    total_in = _TOP_IN + height_in * count + below_in
    figure = Figure(figsize=(WIDTH_IN, total_in), facecolor="white")
    shape = ((count + 1.4) * cell_in / WIDTH_IN, height_in * count / total_in)
    axes = figure.add_axes((left_in / WIDTH_IN, below_in / total_in, *shape))
    colours = ListedColormap(colour_table(signed=False) / 255)
    masked, whole = np.array(matrix.masked, dtype=float), np.array(matrix.whole, dtype=float)[:, None]
    for values, start in ((masked, 0.0), (whole, count + 0.4)):
        edges = start + np.arange(values.shape[1] + 1)
        axes.pcolormesh(edges, np.arange(count + 1), values, cmap=colours, vmin=0, vmax=1, linewidth=0)
        if cell_in >= _WORDS_FIT_IN:
            for (row, column), value in np.ndenumerate(values):
                words, ink = ("–", INK) if np.isnan(value) else (f"{100 * value:.0f}", "white" if value < 0.6 else INK)
                axes.text(start + column + 0.5, row + 0.5, words, ha="center", va="center", color=ink, fontsize=9)
    axes.set_xlim(0, count + 1.4)
    axes.set_ylim(count, 0)
    axes.set_xticks([*(np.arange(count) + 0.5), count + 0.9], [*names, "nothing"], rotation=90, fontsize=9)
    labels = [f"{name} ({n})" for name, n in zip(names, matrix.images, strict=True)]
    axes.set_yticks(np.arange(count) + 0.5, labels, fontsize=9)
    axes.grid(visible=False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xlabel("Mask of this class is left; nothing masked")
    axes.set_ylabel("Class in the image (images)")
    bar = figure.add_axes(
        ((left_in + shape[0] * WIDTH_IN + 0.1) / WIDTH_IN, below_in / total_in, 0.1 / WIDTH_IN, shape[1])
    )
    steps = np.linspace(0, 1, _BAR_STEPS + 1)
    bar.pcolormesh([0, 1], steps, (steps[:-1, None] + steps[1:, None]) / 2, cmap=colours, vmin=0, vmax=1)
    bar.set_xticks([])
    bar.set_yticks([0, 0.5, 1], ["0", "50", "100 %"], fontsize=8)
    bar.yaxis.tick_right()
    bar.tick_params(length=0)
    for spine in bar.spines.values():
        spine.set_visible(False)
    bar.grid(visible=False)
    figure.text(0.1 / WIDTH_IN, 1 - 0.08 / total_in, matrix.method, ha="left", va="top", fontsize=11, fontweight="bold")
    return as_svg(figure)
