"""export in the layouts that other projects' evaluations read: ground truth and masks.

wsolevaluation: ``metadata/`` with ``image_ids.txt``, ``class_labels.txt``, ``image_sizes.txt``, ``localization.txt``,
and ``scoremaps/``, an ``.npy`` an image with values in [0, 1]. saliency_investigation: ``bboxes.json``, boxes with
exclusive ends. VOC: ``segmentation/``, palette pictures with 255 for void. NN-Explainer: an ``.npz`` an image in
``masks/DATA_CLASSIFIER_METHOD/``, the masks of all its targets merged by the pixelwise maximum. Files are named by
``file_name``.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from roarline.artifacts.dataset import SPLITS, DatasetFile
from roarline.artifacts.files import atomic_path
from roarline.artifacts.maps import MapsFile
from roarline.imaging.reduction import Sign, apply_sign
from roarline.stages.mask_reading import as_masks

_VOID_COLOUR = (224, 224, 192)

Name = Callable[[str], str]


def ground_truth(dataset: DatasetFile, out: Path, limit: int, name: Name) -> Iterator[str]:
    """Write what a data set knows of where its objects are; coordinates are those of the network's input.

    Args:
        limit: At most so many segmentation pictures of each split; lists are whole.
        name: Sample id to a file name without suffix.

    Yields:
        One line for each thing that was written.
    """
    names = [name(sample_id) for sample_id in dataset.sample_ids]
    if dataset.boxes is not None:
        for split in SPLITS:
            rows = dataset.rows(split)
            if len(rows):
                _metadata(dataset, out / "metadata" / split, rows, names)
        yield f"{out / 'metadata'}: image ids, labels, sizes and boxes, as wsolevaluation reads them"
        boxes: dict[str, list[dict[str, int]]] = {}
        for row, label, x0, y0, x1, y1 in dataset.boxes[:, :6].tolist():
            if _has(dataset, row, label):
                boxes.setdefault(names[row], []).append({"xmin": x0, "ymin": y0, "xmax": x1 + 1, "ymax": y1 + 1})
        _text(out / "bboxes.json", json.dumps(boxes, indent=1, sort_keys=True))
        yield f"{out / 'bboxes.json'}: boxes of {len(boxes)} images, as saliency_investigation reads them"
    if dataset.segmented:
        count = 0
        for split in SPLITS:
            for row in dataset.rows(split)[:limit].tolist():
                labels = dataset.segmentation([row])
                if labels is not None:
                    _bytes(out / "segmentation" / f"{names[row]}.png", palette_png(labels[0]))
                    count += 1
        yield f"{out / 'segmentation'}: {count} pictures as VOC's: 0 background, then classes, 255 void"


def masks(
    maps: MapsFile, rows: Sequence[int], out: Path, folder: str, *, sign: Sign, reading: str, name: Name
) -> Iterator[str]:
    """Write maps as masks in [0, 1].

    Args:
        rows: Of the maps.
        folder: Of NN-Explainer's layout, e.g. ``VOC_vgg16_grad_cam``.
        sign: How the method's values are read.
        reading: How maps become masks, see ``as_masks``.
        name: Sample id to a file name without suffix.

    Yields:
        One line for each thing that was written.
    """
    merged: dict[str, np.ndarray] = {}
    for row in rows:
        values = apply_sign(torch.from_numpy(maps.maps([row])), sign)
        mask = as_masks(values.amax(dim=1) if values.ndim == 4 else values, reading)[0].numpy()
        file = name(maps.sample_ids[row])
        merged[file] = np.maximum(merged[file], mask) if file in merged else mask
    for file, mask in merged.items():
        with atomic_path(out / "scoremaps" / f"{file}.npy") as partial, partial.open("wb") as stream:
            np.save(stream, mask.astype(np.float64))
        with atomic_path(out / "masks" / folder / f"{file}.npz") as partial, partial.open("wb") as stream:
            np.savez_compressed(stream, mask.astype(np.float32))
    yield f"{out / 'scoremaps'}: {len(merged)} masks in [0, 1], as wsolevaluation reads them (npy)"
    yield f"{out / 'masks' / folder}: the same, as NN-Explainer reads them (npz)"


def palette_png(labels_HW: np.ndarray) -> bytes:
    """A picture whose pixels are class numbers, in VOC's colours."""
    picture = Image.fromarray(labels_HW, mode=None)
    picture.putpalette([channel for number in range(256) for channel in _colour(number)])
    stream = io.BytesIO()
    picture.save(stream, format="PNG")
    return stream.getvalue()


def _metadata(dataset: DatasetFile, folder: Path, rows: np.ndarray, names: Sequence[str]) -> None:
    ids = [names[row] for row in rows]
    labels = dataset.labels[rows]
    if labels.ndim == 2:
        pairs = [(ids[place], label) for place, label in np.argwhere(labels > 0).tolist()]
    else:
        pairs = list(zip(ids, labels.tolist(), strict=True))
    _text(folder / "image_ids.txt", _lines(ids))
    _text(folder / "class_labels.txt", _lines(f"{file},{label}" for file, label in pairs))
    if dataset.image_size is not None:
        height, width = dataset.image_size
        _text(folder / "image_sizes.txt", _lines(f"{file},{width},{height}" for file in ids))
    wanted = set(rows.tolist())
    boxes = [] if dataset.boxes is None else dataset.boxes[:, :6].tolist()
    found = [
        f"{names[row]},{x0},{y0},{x1},{y1}"
        for row, label, x0, y0, x1, y1 in boxes
        if row in wanted and _has(dataset, row, label)
    ]
    _text(folder / "localization.txt", _lines(found))


def _has(dataset: DatasetFile, row: int, label: int) -> bool:
    """True where the box is of a class that the image is labelled with."""
    own = dataset.labels[row]
    return bool(own[label] > 0) if dataset.labels.ndim == 2 else int(own) == label


def _colour(number: int) -> tuple[int, int, int]:
    """VOC's colour of a class number: its bits, dealt out to red, green and blue from the highest down."""
    if number == 255:
        return _VOID_COLOUR
    colour = [0, 0, 0]
    for place in range(8):
        for channel in range(3):
            colour[channel] |= ((number >> (3 * place + channel)) & 1) << (7 - place)
    return colour[0], colour[1], colour[2]


def _lines(lines: Sequence[str] | Iterator[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _text(path: Path, text: str) -> None:
    _bytes(path, text.encode())


def _bytes(path: Path, content: bytes) -> None:
    with atomic_path(path) as partial:
        partial.write_bytes(content)
