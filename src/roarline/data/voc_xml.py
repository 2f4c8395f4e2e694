"""Annotation files in PASCAL VOC's XML, which ImageNet and Oxford-IIIT Pet use, too. Imports no torch.

Coordinates in the files count from 1; here they count from 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from xml.etree import ElementTree

from roarline.errors import DataError


@dataclass(frozen=True)
class XmlObject:
    """One object: its class's name, and its box (x0, y0, x1, y1 in px, inclusive)."""

    name: str
    box: tuple[int, int, int, int]
    difficult: bool


@dataclass(frozen=True)
class XmlAnnotation:
    """One image: H, W as the file says (0 where it doesn't), and its objects."""

    size: tuple[int, int]
    objects: list[XmlObject]


def parse(data: bytes, where: str) -> XmlAnnotation:
    """Read one file. Parts of objects are not looked at, and neither are objects without a box.

    A file with a document type is refused: it could define entities, and no annotation file has one.

    Args:
        data: The whole file.
        where: What to call it in messages.

    Raises:
        DataError: It is no such file.
    """
    if b"<!DOCTYPE" in data:
        raise DataError(f"{where}: has a document type, which no annotation file needs")
    try:
        root = ElementTree.fromstring(data)  # nothing outside the file is ever read
        size = root.find("size")
        objects = [_object(element) for element in root.iter("object") if element.find("bndbox") is not None]
        return XmlAnnotation((_number(size, "height", 0), _number(size, "width", 0)), objects)
    except (ElementTree.ParseError, ValueError, OverflowError) as error:
        raise DataError(f"{where}: not an annotation file as PASCAL VOC has them ({error})") from error


def _object(element: ElementTree.Element) -> XmlObject:
    name = (element.findtext("name") or "").strip()
    if not name:
        raise ValueError("an object without a name")
    box = element.find("bndbox")
    x0, y0, x1, y1 = (_number(box, corner) - 1 for corner in ("xmin", "ymin", "xmax", "ymax"))
    return XmlObject(name, (x0, y0, x1, y1), _number(element, "difficult", 0) == 1)


def _number(element: ElementTree.Element | None, tag: str, default: int | None = None) -> int:
    """A few files of VOC 2011 and later have fractions of pixels; they are rounded, halves up."""
    text = element.findtext(tag) if element is not None else None
    if text is None or not text.strip():
        if default is None:
            raise ValueError(f"no {tag}")
        return default
    return math.floor(float(text) + 0.5)
