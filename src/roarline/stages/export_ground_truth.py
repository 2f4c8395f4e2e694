"""export of a data set: what it knows of its objects, in the layouts that other projects read.

wsolevaluation: ``images/``, and ``metadata/{train,val,test}`` with ``image_ids.txt``, ``class_labels.txt``,
``image_sizes.txt`` and ``localization.txt``: boxes; the same below ``metadata_masks``, as OpenImages has it: a mask and
what is to be ignored, below ``mask_files/`` and ``ignore_files/``. saliency_investigation: ``train.json``,
``val.json``, ``val_bboxes.json``, and of a validation split ``train_train.json``, ``train_val.json``,
``train_val_bboxes.json``. VOC: ``segmentation/``, palette pictures with 255 for void.

Coordinates are those of the network's input, and so are the images. Lists that know one label an image have a line, and
an image, for each label. The data set ``wsol`` reads all of it again.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from roarline.artifacts.dataset import SPLITS, VOID, DatasetFile
from roarline.artifacts.files import atomic_path
from roarline.data.decoding import from_array
from roarline.data.loading import ImageReader
from roarline.stages.export_names import pair_id, stems

_VOID_COLOUR = (224, 224, 192)
_FOLDERS = {"train": "train", "validation": "val", "test": "test"}
_SHUFFLE_SEED = 1234
"""saliency_investigation's; its train.json is shuffled."""


@dataclass(frozen=True)
class Entry:
    """One image and one of its labels: a line of the lists."""

    row: int
    label: int
    path: str


def ground_truth(dataset: DatasetFile, reader: ImageReader | None, out: Path, limit: int) -> Iterator[str]:
    """Write what a data set knows of where its objects are.

    Args:
        reader: Of its images; None where they are not to be had.
        limit: At most so many images and masks of each split; lists are whole.

    Yields:
        One line for each thing that was written.
    """
    entries = {split: _entries(dataset, split) for split in SPLITS}
    if dataset.boxes is None and not dataset.segmented:
        return
    _text(out / "class_names.txt", _lines(dataset.class_names))
    if dataset.boxes is not None:
        for split, found in entries.items():
            _lists(dataset, found, out / "metadata" / _FOLDERS[split])
            _text(out / "metadata" / _FOLDERS[split] / "localization.txt", _lines(_box_lines(dataset, found)))
        yield f"{out / 'metadata'}: image ids, labels, sizes and boxes, as wsolevaluation reads them"
    yield from _samples(dataset, entries, out)
    if dataset.segmented:
        count = 0
        for split, found in entries.items():
            _lists(dataset, found, out / "metadata_masks" / _FOLDERS[split])
            lines, written = _masks(dataset, found, out, limit)
            _text(out / "metadata_masks" / _FOLDERS[split] / "localization.txt", _lines(lines))
            count += written
        yield f"{out / 'metadata_masks'}: the same with masks, as wsolevaluation reads OpenImages ({count} masks)"
        yield from _palette_pictures(dataset, out, limit)
    if reader is None:
        yield "no images: they are files outside the artifacts; --data-root says where"
        return
    count = sum(_images(reader, found[:limit], out) for found in entries.values())
    yield f"{out / 'images'}: {count} of {sum(map(len, entries.values()))} images as the network sees them (PNG)"


def palette_png(labels_HW: np.ndarray) -> bytes:
    """A picture whose pixels are class numbers, in VOC's colours."""
    picture = Image.fromarray(labels_HW, mode=None)
    picture.putpalette([channel for number in range(256) for channel in _colour(number)])
    return _png(picture)


def _entries(dataset: DatasetFile, split: str) -> list[Entry]:
    found = []
    for row in dataset.rows(split).tolist():
        own = dataset.labels[row]
        for label in np.flatnonzero(own).tolist() if dataset.multi_label else [int(own)]:
            path = pair_id(dataset.sample_ids[row], label, multi_label=dataset.multi_label)
            found.append(Entry(row, label, path))
    return found


def _lists(dataset: DatasetFile, entries: Sequence[Entry], folder: Path) -> None:
    _text(folder / "image_ids.txt", _lines(entry.path for entry in entries))
    _text(folder / "class_labels.txt", _lines(f"{entry.path},{entry.label}" for entry in entries))
    if dataset.image_size is not None:
        height, width = dataset.image_size
        _text(folder / "image_sizes.txt", _lines(f"{entry.path},{width},{height}" for entry in entries))


def _boxes_of(dataset: DatasetFile, entries: Sequence[Entry]) -> list[list[list[int]]]:
    """Of each entry the boxes of its label, x0, y0, x1, y1, inclusive."""
    found: dict[tuple[int, int], list[list[int]]] = {}
    for row, label, *box in [] if dataset.boxes is None else dataset.boxes[:, :6].tolist():
        found.setdefault((row, label), []).append(box)
    return [found.get((entry.row, entry.label), []) for entry in entries]


def _box_lines(dataset: DatasetFile, entries: Sequence[Entry]) -> Iterator[str]:
    for entry, boxes in zip(entries, _boxes_of(dataset, entries), strict=True):
        for box in boxes:
            yield ",".join([entry.path, *map(str, box)])


def _samples(dataset: DatasetFile, entries: dict[str, list[Entry]], out: Path) -> Iterator[str]:
    """Samples and boxes as saliency_investigation's preprocessing writes them; its boxes end after their last px."""
    held_out = {"train_val": entries["validation"], "train_train": entries["train"]} if entries["validation"] else {}
    training = [*entries["train"], *entries["validation"]]
    order = np.random.default_rng(_SHUFFLE_SEED).permutation(len(training)).tolist()
    lists = {"train": [training[place] for place in order], "val": entries["test"], **held_out}
    for name, found in lists.items():
        if found:
            content = {
                "root": str((out / "images").resolve()),
                "samples": [[entry.path, entry.label] for entry in found],
                "classes": dataset.class_names,
                "class_to_idx": {name: place for place, name in enumerate(dataset.class_names)},
            }
            _text(out / f"{name}.json", json.dumps(content, indent=1))
    for name in ("val", "train_val"):
        if dataset.boxes is not None and lists.get(name):
            own = zip(stems([entry.path for entry in lists[name]]), _boxes_of(dataset, lists[name]), strict=True)
            boxes = {
                stem: [{"xmin": x0, "ymin": y0, "xmax": x1 + 1, "ymax": y1 + 1} for x0, y0, x1, y1 in found]
                for stem, found in own
                if found
            }
            _text(out / f"{name}_bboxes.json", json.dumps(boxes, indent=1))
    yield f"{out}: {', '.join(f'{name}.json' for name in lists if lists[name])} as saliency_investigation reads them"


def _masks(dataset: DatasetFile, entries: Sequence[Entry], out: Path, limit: int) -> tuple[list[str], int]:
    """Lines of ``path,mask,ignore`` for the entries whose segmentation is known, and how many masks were written."""
    lines, written = [], 0
    for place, entry in enumerate(entries):
        planes = dataset.class_masks([entry.row], [entry.label])
        if planes is None or (planes == VOID).all():
            continue
        name = entry.path if entry.path.endswith(".png") else f"{entry.path}.png"
        mask, ignore = f"mask_files/{name}", f"ignore_files/{name}"
        lines.append(f"{entry.path},{mask},{ignore}")
        if place < limit:
            for path, inside in ((mask, planes[0] == 1), (ignore, planes[0] == VOID)):
                _bytes(out / path, _png(Image.fromarray(np.where(inside, 255, 0).astype(np.uint8))))
            written += 1
    return lines, written


def _palette_pictures(dataset: DatasetFile, out: Path, limit: int) -> Iterator[str]:
    count, names = 0, stems(dataset.sample_ids)
    for split in SPLITS:
        for row in dataset.rows(split)[:limit].tolist():
            labels = dataset.segmentation([row])
            if labels is not None:
                _bytes(out / "segmentation" / f"{names[row]}.png", palette_png(labels[0]))
                count += 1
    yield f"{out / 'segmentation'}: {count} pictures as VOC's: 0 background, then classes, 255 void"


def _images(reader: ImageReader, entries: Sequence[Entry], out: Path) -> int:
    for entry in entries:
        _bytes(out / "images" / entry.path, _png(from_array(reader.read([entry.row])[0].numpy())))
    return len(entries)


def _colour(number: int) -> tuple[int, int, int]:
    """VOC's colour of a class number: its bits, dealt out to red, green and blue from the highest down."""
    if number == VOID:
        return _VOID_COLOUR
    colour = [0, 0, 0]
    for place in range(8):
        for channel in range(3):
            colour[channel] |= ((number >> (3 * place + channel)) & 1) << (7 - place)
    return colour[0], colour[1], colour[2]


def _png(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, format="PNG")
    return stream.getvalue()


def _lines(lines: Sequence[str] | Iterator[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _text(path: Path, text: str) -> None:
    _bytes(path, text.encode())


def _bytes(path: Path, content: bytes) -> None:
    with atomic_path(path) as partial:
        partial.write_bytes(content)
