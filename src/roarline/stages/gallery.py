"""gallery: finished maps of one or several experiments on the same images, side by side in one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from roarline.artifacts.dataset import DATASET_FILE, DatasetFile
from roarline.artifacts.files import make_output_folder
from roarline.artifacts.maps import MAPS_FILE, MapsFile
from roarline.artifacts.store import Artifact
from roarline.config.component import Sign
from roarline.data.loading import ImageReader, normalise
from roarline.errors import UserInputError
from roarline.report.contact_sheet import Column, Sheet, draw_sheet
from roarline.report.gallery import choose, plane
from roarline.report.pictures import as_picture, heat_map, is_signed, overlay
from roarline.seeds import derive_seed


@dataclass(frozen=True)
class Shown:
    """One column: a method's ``maps`` artifact, and how it is read."""

    name: str
    sign: Sign
    parameters: Mapping[str, Any]
    maps: Artifact


def draw_gallery(
    dataset: Artifact, shown: Sequence[Shown], output: Path, *, title: str, images: int, seed: int,
    data_root: str | None = None, overlaid: bool = False,
) -> tuple[int, int]:  # fmt: skip
    """Draw the maps of test images of which every method has one.

    Args:
        dataset: The ``dataset`` artifact of all maps.
        shown: The columns.
        output: PNG to write.
        images: How many rows, drawn so that classes take turns.
        data_root: Folder of the raw images, where they are not packed.
        overlaid: Maps over the greyscale image instead of beside it.

    Returns:
        (rows, columns).

    Raises:
        UserInputError: No image has a map of every method.
    """
    make_output_folder(output.parent)
    with ExitStack() as stack:
        data = stack.enter_context(DatasetFile(dataset.file(DATASET_FILE)))
        files = [stack.enter_context(MapsFile(column.maps.file(MAPS_FILE))) for column in shown]
        common = set(files[0].sample_ids).intersection(*(file.sample_ids for file in files))
        rows = np.array([row for row in data.rows("test") if data.sample_ids[row] in common], dtype=np.int64)
        if not len(rows):
            raise UserInputError("gallery: no test image has a map of every method")
        reader = stack.enter_context(ImageReader(data, data_root))
        chosen = choose(rows, data.labels[rows], images, derive_seed(seed, "gallery"))
        pictures, captions = [], []
        tiles: list[list[np.ndarray | None]] = [[] for _ in shown]
        for choice in chosen:
            sample_id = data.sample_ids[choice.row]
            target = int(files[0].targets[files[0].rows_for([sample_id])[0][0]])
            picture = as_picture(normalise(reader.read([choice.row]), [0.0], [1.0])[0].numpy())
            pictures.append(picture)
            captions.append(f"{_labels(data, choice.row)}\nmap of: {data.class_names[target]}")
            for place, (column, file) in enumerate(zip(shown, files, strict=True)):
                row = next((r for r in file.rows_for([sample_id])[0] if int(file.targets[r]) == target), None)
                tiles[place].append(None if row is None else _tile(file, row, column.sign, picture, overlaid=overlaid))
    columns = [
        Column(column.name, _in_words(column.parameters), made) for column, made in zip(shown, tiles, strict=True)
    ]
    draw_sheet(Sheet(title, pictures, captions, columns), output)
    return len(pictures), len(columns)


def _tile(file: MapsFile, row: int, sign: Sign, picture: np.ndarray, *, overlaid: bool) -> np.ndarray:
    map_HW = plane(file.maps([row])[0], sign)
    signed = is_signed(map_HW)
    return overlay(picture, map_HW, signed=signed) if overlaid else heat_map(map_HW, signed=signed)


def _labels(data: DatasetFile, row: int) -> str:
    labels = data.labels[row]
    positives = np.flatnonzero(labels) if data.multi_label else np.atleast_1d(labels)
    return ", ".join(data.class_names[label] for label in positives) or "no label"


def _in_words(parameters: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} ({_in_words(value)})" if isinstance(value, Mapping) else f"{name} {value}"
        for name, value in parameters.items()
        if value is not None
    )
