"""The drawn data set ``shapes``: coloured shapes on a textured background, with exact boxes and segmentation.

The class is the kind of shape; colour, place, size and angle say nothing about it. Each image depends on the seed, the
parameters of the drawing, its split and its index only, so that the splits can grow without changing an image.
Coordinates: x to the right, y down; a pixel belongs to a shape if its centre does; edges are hard.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from roarline.config.dataset_params import ShapesParams
from roarline.data.raw import RawDataset
from roarline.errors import DataError
from roarline.seeds import derive_seed

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

VISIBLE_SHARE = 0.6
"""A shape that others hide in part keeps at least this share of its pixels."""

_RADIUS_SHARE = (0.16, 0.28)
_SMALLEST_RADIUS_PX = 2.5
_TRIES = 80
_SHRINK = 0.96
_LEAST_CONTRAST = 0.4
_WAVES = 3


def _circle(u: Floats, v: Floats) -> Mask:
    inside: Mask = u**2 + v**2 <= 1
    return inside


def _square(u: Floats, v: Floats) -> Mask:
    inside: Mask = np.maximum(np.abs(u), np.abs(v)) <= np.sqrt(0.5)
    return inside


def _triangle(u: Floats, v: Floats) -> Mask:
    inside: Mask = (v >= -0.5) & (np.sqrt(3) * np.abs(u) + v <= 1)
    return inside


def _star(u: Floats, v: Floats) -> Mask:
    point = 2 * np.pi / 5
    angle = np.abs((np.arctan2(u, v) + point / 2) % point - point / 2)  # 0 at a tip, π/5 in a notch
    along, across, notch = np.hypot(u, v) * np.cos(angle), np.hypot(u, v) * np.sin(angle), 0.42
    notch_along, notch_across = notch * np.cos(point / 2), notch * np.sin(point / 2)
    inside: Mask = (1 - along) * notch_across - across * (1 - notch_along) >= 0
    return inside


def _cross(u: Floats, v: Floats) -> Mask:
    return (np.minimum(np.abs(u), np.abs(v)) <= 0.28) & (np.maximum(np.abs(u), np.abs(v)) <= 0.96)


def _ring(u: Floats, v: Floats) -> Mask:
    distance = u**2 + v**2
    return (distance <= 1) & (distance >= 0.3)


SHAPES: dict[str, Callable[[Floats, Floats], Mask]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "ring": _ring,
}
"""Class name to the shape's indicator in coordinates where it is inscribed in, or lies in, the unit circle."""


@dataclass(frozen=True)
class Layout:
    """Where the shapes of one image are.

    Attributes:
        kinds: Class of each shape, in the order in which they are painted.
        full_px: Pixels of each shape, hidden ones too.
        owner: int64 [H, W]: 0 background, i + 1 where shape i is seen.
    """

    kinds: list[int]
    full_px: list[int]
    owner: np.ndarray

    def boxes(self) -> list[tuple[int, int, int, int, int]]:
        """(class, x0, y0, x1, y1) in px, inclusive, around the pixels of each shape that are seen."""
        found = []
        for number, kind in enumerate(self.kinds, start=1):
            ys, xs = np.nonzero(self.owner == number)
            found.append((kind, int(xs.min()), int(ys.min()), int(xs.max()), int(ys.max())))
        return found

    def segmentation(self) -> np.ndarray:
        """uint8 [H, W]: 0 background, c + 1 class c."""
        classes = np.asarray([0, *(kind + 1 for kind in self.kinds)], dtype=np.uint8)
        return np.take(classes, self.owner)


@dataclass(frozen=True)
class Drawing:
    """Draws image by image.

    Args:
        params: Size, numbers of shapes, texture; ``train`` and ``test`` only say which row is which image.
    """

    params: ShapesParams
    seed: int

    def place_of(self, row: int) -> tuple[str, int]:
        """Split and index of a row."""
        return ("train", row) if row < self.params.train else ("test", row - self.params.train)

    def layout(self, row: int) -> Layout:
        """Place the shapes of one image.

        Raises:
            DataError: ``min_shapes`` don't fit.
        """
        params, random = self.params, self._random(row, "layout")
        size, kinds = params.size_px, list(SHAPES)
        wanted = params.min_shapes + int(random.random() * (params.max_shapes - params.min_shapes + 1))
        owner, chosen, full = np.zeros((size, size), dtype=np.int64), list[int](), [0]
        for _ in range(wanted):
            kind, share, angle = int(random.random() * len(kinds)), random.random(), random.random() * 2 * np.pi
            radius = size * (_RADIUS_SHARE[0] + share * (_RADIUS_SHARE[1] - _RADIUS_SHARE[0]))
            for _ in range(_TRIES):
                x, y = radius + random.random(2) * (size - 2 * radius)
                window, mask = _mask(SHAPES[kinds[kind]], float(x), float(y), radius, angle, size)
                if _leaves_enough(owner, owner[window][mask], full):
                    chosen.append(kind)
                    full.append(int(mask.sum()))
                    owner[window][mask] = len(chosen)
                    break
                radius = max(radius * _SHRINK, _SMALLEST_RADIUS_PX)
        if len(chosen) < params.min_shapes:
            raise DataError(
                f"data set 'shapes': {params.min_shapes} shapes don't fit into {size}×{size} px with "
                f"{VISIBLE_SHARE:.0%} of each to be seen; lower min_shapes or raise size_px"
            )
        return Layout(chosen, full[1:], owner)

    def image(self, row: int) -> np.ndarray:
        """uint8 [3, H, W]: background and shapes of one colour each, under one texture of waves and grain."""
        layout, random = self.layout(row), self._random(row, "colour")
        size, noise = self.params.size_px, self.params.noise
        background = 0.25 + 0.5 * random.random(3)
        colours = [background]
        for _ in layout.kinds:
            colours.append(_contrasting(colours, random))
        image = np.asarray(colours)[layout.owner].transpose(2, 0, 1)
        image += noise * (_waves(size, random) + 2 * random.random((3, size, size)) - 1)
        return np.asarray(np.clip(np.rint(image * 255), 0, 255), dtype=np.uint8)

    def _random(self, row: int, purpose: str) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64(derive_seed(self.seed, "shapes", *self.place_of(row), purpose)))


@dataclass(frozen=True)
class DrawnRows:
    """Rows that are drawn when asked for: ``images`` or ``segmentation`` of a RawDataset."""

    shape: tuple[int, ...]
    draw: Callable[[int], np.ndarray]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return np.stack([self.draw(row) for row in rows.tolist()])


def read(root: Path | None, params: ShapesParams, seed: int) -> RawDataset:
    """Lay out all images; pixels and segmentation are drawn when they are asked for.

    Multi-label, unless ``max_shapes`` is 1.

    Raises:
        DataError: ``min_shapes`` don't fit into an image.
    """
    drawing, count, size = Drawing(params, seed), params.train + params.test, params.size_px
    multi_label = params.max_shapes > 1
    labels = np.zeros((count, len(SHAPES)), dtype=np.uint8)
    boxes: list[tuple[int, ...]] = []
    for row in range(count):
        layout = drawing.layout(row)
        labels[row, layout.kinds] = 1
        boxes += [(row, *box) for box in layout.boxes()]
    places = [drawing.place_of(row) for row in range(count)]
    return RawDataset(
        name="shapes",
        class_names=list(SHAPES),
        sample_ids=[f"{split}/{index:06d}" for split, index in places],
        splits=[split for split, _ in places],
        labels=labels if multi_label else labels.argmax(axis=1).astype(np.int64),
        multi_label=multi_label,
        images=DrawnRows((count, 3, size, size), drawing.image),
        boxes=np.asarray(boxes, dtype=np.int64),
        segmentation=DrawnRows((count, size, size), lambda row: drawing.layout(row).segmentation()),
    )


def _mask(
    inside: Callable[[Floats, Floats], Mask], x: float, y: float, radius: float, angle: float, size: int
) -> tuple[tuple[slice, slice], np.ndarray]:
    """The window that holds a shape, and which of its pixels belong to it."""
    x0, x1 = max(0, int(x - radius)), min(size, int(x + radius) + 2)
    y0, y1 = max(0, int(y - radius)), min(size, int(y + radius) + 2)
    right = (np.arange(x0, x1) + 0.5 - x)[None, :] / radius
    down = (np.arange(y0, y1) + 0.5 - y)[:, None] / radius
    cosine, sine = np.cos(angle), np.sin(angle)
    return (slice(y0, y1), slice(x0, x1)), inside(cosine * right + sine * down, -sine * right + cosine * down)


def _leaves_enough(owner: np.ndarray, hidden: np.ndarray, full: list[int]) -> bool:
    """True where every earlier shape (``full`` px, number 0 the background) stays visible enough."""
    if not hidden.any():
        return True
    lost = np.bincount(hidden, minlength=len(full))
    return all(
        np.count_nonzero(owner == number) - lost[number] >= VISIBLE_SHARE * full[number]
        for number in range(1, len(full))
        if lost[number]
    )


def _contrasting(colours: list[Floats], random: np.random.Generator) -> Floats:
    """The first of 16 colours that some channel sets apart from each of the others by the least contrast."""
    candidates = random.random((16, 3))
    contrast = np.abs(candidates[:, None] - np.stack(colours)).max(axis=2).min(axis=1)
    enough = np.flatnonzero(contrast >= _LEAST_CONTRAST)
    chosen: Floats = candidates[enough[0] if len(enough) else contrast.argmax()]
    return chosen


def _waves(size: int, random: np.random.Generator) -> np.ndarray:
    """A smooth texture in [-1, 1], [3, H, W]: plane waves of random direction, 2 to 6 across the image."""
    angle, phase, cycles, colour = (
        random.random(_WAVES),
        random.random(_WAVES),
        random.random(_WAVES),
        random.random((_WAVES, 3)),
    )
    across = np.arange(size) / size
    total = np.zeros((3, size, size))
    for wave in range(_WAVES):
        frequency, direction = 2 + 4 * cycles[wave], 2 * np.pi * angle[wave]
        travelled = np.cos(direction) * across[None, :] + np.sin(direction) * across[:, None]
        total += (2 * colour[wave] - 1)[:, None, None] * np.sin(2 * np.pi * (frequency * travelled + phase[wave]))
    return total / _WAVES
