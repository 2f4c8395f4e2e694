"""The sheet of cases: what is drawn lies where it belongs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from roarline.errors import UserInputError
from roarline.report.case_sheet import Block, Case, draw_cases

NO_BOX = np.empty((0, 4), dtype=np.int64)
PICTURE, OVERLAY = (200, 40, 40), (40, 40, 200)


def case(boxes: np.ndarray = NO_BOX, outline: np.ndarray | None = None, peak: tuple[int, int] | None = None) -> Case:
    """A red image and a blue map of 48×48 px, each drawn twice as large."""
    tiles = [np.full((48, 48, 3), colour, dtype=np.uint8) for colour in (PICTURE, OVERLAY)]
    return Case(tiles[0], tiles[1], boxes, outline, peak, "0.5\nno name")


def drawn(folder: Path, *cases: Case) -> np.ndarray:
    draw_cases("title", [Block("heading", cases)], folder / "sheet.png")
    return np.asarray(Image.open(folder / "sheet.png").convert("RGB")).astype(int)


def tile(pixels: np.ndarray, colour: tuple[int, int, int]) -> tuple[slice, slice]:
    """Where the only tile of a colour lies."""
    rows, columns = np.nonzero(np.abs(pixels - colour).max(axis=2) < 3)
    return slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)


def test_a_box_lies_around_its_pixels_in_the_image_and_in_the_map(tmp_path: Path) -> None:
    pixels = drawn(tmp_path, case(np.array([[10, 20, 29, 25]])))
    for colour in (PICTURE, OVERLAY):
        inside = pixels[tile(pixels, colour)]
        assert inside.shape[:2] == (96, 96)
        rows, columns = np.nonzero(inside.min(axis=2) > 225)  # the white line
        # Two px of the sheet are one of the image; the line is 1.7 px wide and centred on the border.
        assert (columns.min() + columns.max() + 1) / 2 == pytest.approx(10 + 30, abs=1)
        assert (rows.min() + rows.max() + 1) / 2 == pytest.approx(20 + 26, abs=1)
        assert columns.max() - columns.min() == pytest.approx(2 * 20, abs=3)
        assert rows.max() - rows.min() == pytest.approx(2 * 6, abs=3)


def test_an_outline_follows_the_objects_pixels(tmp_path: Path) -> None:
    outline = np.zeros((48, 48), dtype=bool)
    outline[20:26, 10:30] = True
    pixels = drawn(tmp_path, case(outline=outline))
    inside = pixels[tile(pixels, PICTURE)]
    rows, columns = np.nonzero(inside.min(axis=2) > 225)
    assert (columns.min() + columns.max() + 1) / 2 == pytest.approx(40, abs=1)
    assert (rows.min() + rows.max() + 1) / 2 == pytest.approx(46, abs=1)
    # Its cut corners apart, the contour at one half lies half a pixel of the image inside the border.
    assert columns.max() - columns.min() == pytest.approx(2 * 20, abs=4)


def test_the_peak_is_marked_in_the_map_alone(tmp_path: Path) -> None:
    pixels = drawn(tmp_path, case(peak=(30, 5)))
    assert (pixels[tile(pixels, PICTURE)] == PICTURE).all()
    rows, columns = np.nonzero(pixels[tile(pixels, OVERLAY)].min(axis=2) > 200)
    assert columns.mean() == pytest.approx(61, abs=1)
    assert rows.mean() == pytest.approx(11, abs=1)


def test_five_cases_fill_a_line_and_a_jpeg_is_smaller(tmp_path: Path) -> None:
    five, six = drawn(tmp_path, *[case()] * 5), drawn(tmp_path, *[case()] * 6)
    assert six.shape[0] > five.shape[0]
    assert six.shape[1] == five.shape[1]
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3)).astype(np.uint8)
    noisy = Case(noise, noise, NO_BOX, None, None, "")
    for name in ("sheet.png", "sheet.jpg"):
        draw_cases("t", [Block("h", [noisy])], tmp_path / name)
        with Image.open(tmp_path / name) as picture:
            assert picture.format == {"png": "PNG", "jpg": "JPEG"}[name[-3:]]
    assert (tmp_path / "sheet.jpg").stat().st_size < (tmp_path / "sheet.png").stat().st_size


def test_another_kind_of_picture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match=r"sheet\.gif.*\.png"):
        draw_cases("title", [Block("heading", [case()])], tmp_path / "sheet.gif")
