"""Class-specific matrices as pictures: rows and columns as the table has them, few images left out, gaps shown."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

from roarline.report.class_matrix import MOST_CLASSES, class_matrices, draw_class_matrices
from roarline.report.palette import colour_table


def table(classes: list[str], images: list[int]) -> dict[str, list[Any]]:
    """As evaluate-localization writes it: the probability says where it stands, row · 0.1 + column · 0.01."""
    found: dict[str, list[Any]] = {"class_in_image": [], "mask_of": [], "probability": [], "images": []}
    for row, name in enumerate(classes):
        for column, mask in enumerate(["(nothing masked)", *classes]):
            found["class_in_image"].append(name)
            found["mask_of"].append(mask)
            found["probability"].append(0.1 * row + 0.01 * column)
            found["images"].append(images[row])
    return found


def test_rows_are_classes_in_images_and_columns_masks() -> None:
    (matrix,) = class_matrices({"gradcam": table(["cat", "dog", "car"], [5, 7, 1])})
    assert (matrix.method, matrix.classes, matrix.images) == ("gradcam", ("cat", "dog", "car"), (5, 7, 1))
    assert matrix.whole == (0.0, 0.1, 0.2)
    assert matrix.masked[1] == (0.1 + 0.01, 0.1 + 0.02, 0.1 + 0.03)
    assert matrix.left_out == 0


def test_of_many_classes_those_with_most_images_are_shown() -> None:
    names = [f"class {number}" for number in range(MOST_CLASSES + 3)]
    (matrix,) = class_matrices({"gradcam": table(names, list(range(MOST_CLASSES + 3)))})
    assert matrix.classes == tuple(names[3:])
    assert matrix.left_out == 3
    assert len(matrix.masked[0]) == MOST_CLASSES
    assert draw_class_matrices([matrix])[matrix.name].startswith(b"<?xml")


def test_a_cell_has_the_colour_of_its_probability_and_a_gap_none() -> None:
    columns = table(["cat", "dog"], [3, 4])
    columns["probability"] = [1.0, 0.5, 0.25, 0.75, None, float("nan")]
    (matrix,) = class_matrices({"gradcam": columns})
    assert matrix.masked == ((0.5, 0.25), (None, None))
    svg = draw_class_matrices([matrix])[matrix.name].decode()
    colours = {"#" + bytes(colour_table(signed=False)[round(share * 256)]).hex() for share in (1.0, 0.5, 0.25, 0.75)}
    assert all(colour in svg for colour in colours)
    assert "<image" not in svg
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert svg.count("<!-- – -->") == 2
