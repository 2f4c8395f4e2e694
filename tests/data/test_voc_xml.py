"""Annotation files in VOC's XML."""

from __future__ import annotations

import pytest

from roarline.data.voc_xml import parse
from roarline.errors import DataError
from tests.data.layouts import voc_xml


def test_coordinates_count_from_0() -> None:
    found = parse(voc_xml([("dog", (1, 2, 30, 40), 0), ("cat", (5, 5, 5, 5), 1)], (50, 60)), "x")
    assert found.size == (60, 50)
    assert [(one.name, one.box, one.difficult) for one in found.objects] == [
        ("dog", (0, 1, 29, 39), False),
        ("cat", (4, 4, 4, 4), True),
    ]


def test_the_boxes_of_parts_are_not_taken_for_the_objects() -> None:
    part = "<part><name>head</name><bndbox><xmin>9</xmin><ymin>9</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></part>"
    (found,) = parse(voc_xml([("person", (1, 1, 30, 40), 0)], parts=part), "x").objects
    assert (found.name, found.box) == ("person", (0, 0, 29, 39))


def test_fractions_of_pixels_are_rounded() -> None:
    (found,) = parse(voc_xml([("cat", (45.70000076293945, 1.2, 60.5, 9.49), 0)]), "x").objects
    assert found.box == (45, 0, 60, 8)


def test_an_image_without_objects_or_size() -> None:
    found = parse(voc_xml([]), "x")
    assert (found.size, found.objects) == ((0, 0), [])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"<annotation>", "not an annotation file"),
        (b"\x00\x01", "not an annotation file"),
        (voc_xml([("", (1, 1, 2, 2), 0)]), "an object without a name"),
        (voc_xml([("cat", ("x", 1, 2, 2), 0)]), "could not convert"),
        (voc_xml([("cat", ("inf", 1, 2, 2), 0)]), "not an annotation file"),
        (b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]><annotation>&x;</annotation>', "document type"),
        (b'<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;">]><annotation>&y;</annotation>', "document type"),
    ],
)
def test_what_is_no_such_file_is_named(data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=f"some/file.xml.*{message}"):
        parse(data, "some/file.xml")
