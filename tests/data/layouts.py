"""Annotation files as the published data sets have them, for tests."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

VOC_PALETTE = [
    sum(((index >> (3 * bit + channel)) & 1) << (7 - bit) for bit in range(3))
    for index in range(256)
    for channel in range(3)
]
"""PASCAL VOC's colour map: bits of the number, spread over the channels, highest first."""


def voc_xml(
    objects: Iterable[tuple[str, Sequence[float], int]], size: tuple[int, int] | None = None, parts: str = ""
) -> bytes:
    """An annotation file: objects are (name, xmin ymin xmax ymax counting from 1, difficult); size is width, height."""
    said = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>" if size else ""
    body = "".join(
        f"<object><name>{name}</name><pose>Left</pose><truncated>1</truncated><difficult>{difficult}</difficult>{parts}"
        f"<bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"
        for name, box, difficult in objects
    )
    return f"<annotation><filename>x.jpg</filename>{said}<segmented>0</segmented>{body}</annotation>".encode()


def mask_png(labels: np.ndarray, mode: str = "P") -> bytes:
    """A PNG of uint8 [H, W]: palette places (with VOC's palette), grey levels (L) or bits (1)."""
    image = Image.fromarray(labels if mode != "1" else labels * 255)
    if mode == "P":
        image.putpalette(VOC_PALETTE)
    elif mode == "1":
        image = image.convert("1")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
