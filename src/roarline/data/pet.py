"""The data set ``pet``: Oxford-IIIT Pet, 37 breeds, with trimaps and head boxes, in torchvision's layout.

Layout: oxford-iiit-pet with images/<id>.jpg, annotations/trainval.txt, annotations/test.txt, trimaps
(annotations/trimaps/<id>.png) and head boxes (annotations/xmls/<id>.xml), which are published for a part of trainval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from roarline.artifacts.dataset import VOID
from roarline.config.dataset_params import PetParams
from roarline.data.boxes import BoxList
from roarline.data.mask_files import decode_labels
from roarline.data.raw import RawDataset, RawMask
from roarline.data.root_files import RootFiles
from roarline.data.voc_xml import parse
from roarline.errors import DataError

_EXPECTED = (
    "oxford-iiit-pet/images/<id>.jpg, annotations/trainval.txt, annotations/test.txt, annotations/trimaps/<id>.png and "
    "annotations/xmls/<id>.xml"
)
_FOREGROUND, _BACKGROUND, _BOUNDARY = 1, 2, 3


def read(root: Path | None, params: PetParams, seed: int) -> RawDataset:
    """Read the lists; ``trainval`` is for training, ``test`` for testing, unless ``test: heads``.

    A trimap's boundary is void.

    Source: Parkhi et al. 2012, "Cats and Dogs".

    Raises:
        DataError: Files are missing, or an annotation is damaged.
    """
    files = RootFiles(root, "pet", _EXPECTED)
    top = files.above("annotations/trainval.txt", "images/")
    lists = [(split, line) for name, split in (("trainval", "train"), ("test", "test"))
             for line in files.fields(f"{top}annotations/{name}.txt", 4)]  # fmt: skip
    ids = [line[0] for _, line in lists]
    labels, names = _classes(files, top, [line for _, line in lists])
    trimaps = [f"{top}annotations/trimaps/{image}.png" for image in ids]
    files.require(trimaps, "trimaps")
    masks = _Trimaps(files, trimaps, labels.tolist())
    heads = [f"{top}annotations/xmls/{image}.xml" for image in ids]
    boxes, sizes = BoxList(), np.zeros((len(ids), 2), dtype=np.int64)
    for row, path in enumerate(heads):
        if params.boxes == "body":
            ys, xs = np.nonzero(masks.trimap(row) == _FOREGROUND)
            if len(ys):
                boxes.add(row, int(labels[row]), (int(xs.min()), int(ys.min()), int(xs.max()), int(ys.max())))
        elif path in files.entries:
            annotation = parse(files.read(path), files.where(path))
            sizes[row] = annotation.size
            for found in annotation.objects:
                boxes.add(row, int(labels[row]), found.box, found.difficult)
    splits = [split for split, _ in lists]
    if params.test == "heads":
        splits = ["test" if path in files.entries else "train" for path in heads]
    return RawDataset(
        name="pet",
        class_names=names,
        sample_ids=ids,
        splits=splits,
        labels=labels,
        files=files.images([f"{top}images/{image}.jpg" for image in ids]),
        boxes=boxes.boxes(),
        box_difficult=boxes.flags(),
        box_image_sizes=sizes,
        segmentation=masks,
    )


def _classes(files: RootFiles, top: str, lines: Sequence[Sequence[str]]) -> tuple[np.ndarray, list[str]]:
    """Class numbers, and names made of the ids (``Yorkshire_Terrier_12``), as torchvision makes them."""
    try:
        labels = np.asarray([int(number) - 1 for _, number, _, _ in lines], dtype=np.int64)
    except ValueError as error:
        raise DataError(f"{files.root}/{top}annotations: a class that is no number ({error})") from error
    named = {int(label): image.rpartition("_")[0] for label, (image, _, _, _) in zip(labels, lines, strict=True)}
    if sorted(named) != list(range(len(named))):
        raise DataError(f"{files.root}/{top}annotations: classes are not numbered from 1 without a gap")
    return labels, [" ".join(word.title() for word in named[label].split("_")) for label in sorted(named)]


@dataclass(frozen=True)
class _Trimaps:
    files: RootFiles
    paths: Sequence[str]
    labels: Sequence[int]

    def trimap(self, row: int) -> np.ndarray:
        """uint8 [H, W] of 1 foreground, 2 background, 3 boundary."""
        where = self.files.where(self.paths[row])
        trimap = decode_labels(self.files.read(self.paths[row]), where)
        if trimap.min(initial=_FOREGROUND) < _FOREGROUND or trimap.max(initial=_FOREGROUND) > _BOUNDARY:
            raise DataError(f"{where}: pixels from {trimap.min()} to {trimap.max()}, expected 1, 2 and 3")
        return trimap

    def read(self, row: int) -> RawMask:
        trimap = self.trimap(row)
        labels = np.full(trimap.shape, VOID, dtype=np.uint8)
        labels[trimap == _BACKGROUND] = 0
        labels[trimap == _FOREGROUND] = self.labels[row] + 1
        return RawMask(labels)
