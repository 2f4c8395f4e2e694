"""Object boxes as they are read: whole pixels, inclusive, within the image; and tables of them. Imports no torch."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass, field

import numpy as np

from roarline.errors import DataError

_NAMES = {
    "file": ("file", "path"),
    "x0": ("x0", "bb_x1"),
    "y0": ("y0", "bb_y1"),
    "x1": ("x1", "bb_x2"),
    "y1": ("y1", "bb_y2"),
    "split": ("split",),
    "label": ("label",),
    "w": ("w", "width"),
    "h": ("h", "height"),
    "difficult": ("difficult",),
}
_NEEDED = ("file", "x0", "y0", "x1", "y1")


@dataclass
class BoxList:
    """Boxes of a raw data set, one after the other; those that hold no pixel are left out."""

    rows: list[tuple[int, int, int, int, int, int]] = field(default_factory=list)
    difficult: list[bool] = field(default_factory=list)

    def add(self, row: int, label: int, box: tuple[int, int, int, int], difficult: bool = False) -> None:
        """Take a box (x0, y0, x1, y1 in px, inclusive)."""
        x0, y0, x1, y1 = max(box[0], 0), max(box[1], 0), box[2], box[3]
        if x0 <= x1 and y0 <= y1:
            self.rows.append((row, label, x0, y0, x1, y1))
            self.difficult.append(difficult)

    def boxes(self) -> np.ndarray:
        """[M, 6] int64, as RawDataset has them."""
        return np.asarray(self.rows, dtype=np.int64).reshape(-1, 6)

    def flags(self) -> np.ndarray:
        """bool [M]."""
        return np.asarray(self.difficult, dtype=bool)


def touched(x: float, y: float, width: float, height: float) -> tuple[int, int, int, int]:
    """Whole pixels that a rectangle of fractional corner and sides touches: x0, y0, x1, y1, inclusive."""
    return math.floor(x), math.floor(y), math.ceil(x + width) - 1, math.ceil(y + height) - 1


@dataclass(frozen=True)
class BoxLine:
    """One line of a table of boxes; ``size`` is H, W of the image, 0 where the table doesn't say it."""

    file: str
    split: str
    label: int | None
    size: tuple[int, int]
    box: tuple[int, int, int, int]
    difficult: bool


def read_box_table(text: str, where: str) -> list[BoxLine]:
    """Read a table of boxes: comma- or tab-separated, its first line the columns' names.

    Columns file (or path), x0, y0, x1, y1 (or bb_x1, bb_y1, bb_x2, bb_y2) in px, inclusive, from 0; and perhaps split,
    label (a class number), w, h (of the image that the boxes were drawn on) and difficult (0 or 1). Lines without
    corners are images without a box.

    Raises:
        DataError: Names the line that is wrong.
    """
    lines = text.splitlines()
    reader = csv.DictReader(lines, delimiter="\t" if lines and "\t" in lines[0] else ",")
    columns = {
        field: next((name for name in names if name in (reader.fieldnames or ())), None)
        for field, names in _NAMES.items()
    }
    lacking = [field for field in _NEEDED if columns[field] is None]
    if lacking:
        raise DataError(
            f"{where}: expected columns {','.join(_NEEDED)} and perhaps split, label, w, h, difficult; "
            f"got {','.join(reader.fieldnames or ())}"
        )
    found = []
    for line in reader:
        values = {field: (line.get(name) or "").strip() for field, name in columns.items() if name is not None}
        try:
            if not any(values[corner] for corner in _NEEDED[1:]):
                continue
            found.append(
                BoxLine(
                    file=values["file"],
                    split=values.get("split", ""),
                    label=int(values["label"]) if values.get("label") else None,
                    size=(int(values.get("h") or 0), int(values.get("w") or 0)),
                    box=(_whole(values["x0"]), _whole(values["y0"]), _whole(values["x1"]), _whole(values["y1"])),
                    difficult=values.get("difficult") == "1",
                )
            )
        except (ValueError, OverflowError) as error:
            raise DataError(f"{where}:{reader.line_num}: not a box ({error})") from error
    return found


def _whole(text: str) -> int:
    return math.floor(float(text))
