"""Tables of boxes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roarline.data.boxes import BoxList, read_box_table, touched
from roarline.errors import DataError


def test_both_published_kinds_of_columns() -> None:
    ours = "file,label,w,h,x0,y0,x1,y1\na.jpg,65,496,368,111,108,441,193\n"
    birdsnap = "url\tmd5\tpath\tspecies_id\tbb_x1\tbb_y1\tbb_x2\tbb_y2\tback_x\nu\tm\tJay/1.jpg\t3\t1\t2\t30\t40\t\n"
    (one,) = read_box_table(ours, "x")
    assert (one.file, one.split, one.label, one.size, one.box) == ("a.jpg", "", 65, (368, 496), (111, 108, 441, 193))
    (two,) = read_box_table(birdsnap, "x")
    assert (two.file, two.label, two.size, two.box) == ("Jay/1.jpg", None, (0, 0), (1, 2, 30, 40))


def test_an_image_without_a_box_has_a_line_without_corners() -> None:
    table = "split,file,x0,y0,x1,y1,difficult\ntest,a.jpg,,,,,\ntest,b.jpg,0,1,2,3,1\n"
    (line,) = read_box_table(table, "x")
    assert (line.split, line.file, line.difficult) == ("test", "b.jpg", True)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("file,x0,y0,x1\n", "boxes.csv: expected columns file,x0,y0,x1,y1 .* got file,x0,y0,x1"),
        ("", "expected columns"),
        ("file,x0,y0,x1,y1\na,1,2,3\n", "boxes.csv:2: not a box"),
        ("file,x0,y0,x1,y1\na,1,2,3,4\nb,one,2,3,4\n", "boxes.csv:3: not a box"),
        ("file,x0,y0,x1,y1\na,nan,2,3,4\n", "boxes.csv:2: not a box"),
    ],
)
def test_a_wrong_table_is_named(table: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_box_table(table, "boxes.csv")


@given(st.floats(0, 99), st.floats(0, 99), st.floats(0.01, 99), st.floats(0.01, 99))
def test_a_rectangle_touches_whole_pixels(x: float, y: float, width: float, height: float) -> None:
    x0, y0, x1, y1 = touched(x, y, width, height)
    assert x0 <= x < x0 + 1
    assert y0 <= y < y0 + 1
    assert x1 < x + width <= x1 + 1
    assert y1 < y + height <= y1 + 1


def test_boxes_are_clipped_and_empty_ones_left_out() -> None:
    boxes = BoxList()
    boxes.add(0, 1, (-3, -1, 4, 5), True)
    boxes.add(1, 1, (3, 3, 2, 5))
    boxes.add(2, 1, (-5, 0, -1, 5))
    assert boxes.boxes().tolist() == [[0, 1, 0, 0, 4, 5]]
    assert boxes.flags().tolist() == [True]
    assert BoxList().boxes().shape == (0, 6)
