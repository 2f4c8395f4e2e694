"""The data set ``cub``: Caltech-UCSD Birds-200-2011, 200 classes, one box an image, masks where they lie beside it.

Layout: CUB_200_2011 with images, images.txt, image_class_labels.txt, train_test_split.txt, bounding_boxes.txt and
classes.txt; masks as the separate archive segmentations.tgz unpacks them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from roarline.config.dataset_params import CubParams
from roarline.data.boxes import BoxList, touched
from roarline.data.mask_files import decode_mask
from roarline.data.raw import RawDataset, RawMask
from roarline.data.root_files import RootFiles
from roarline.errors import DataError

_EXPECTED = (
    "CUB_200_2011/images.txt, image_class_labels.txt, train_test_split.txt, bounding_boxes.txt, classes.txt and "
    "images/<class>/<image>"
)
_HALF = 128
"""Masks are grey: the mean of several annotators' opinions."""


def read(root: Path | None, params: CubParams, seed: int) -> RawDataset:
    """Read the lists; the test split is the published one.

    Source: Wah et al. 2011, "The Caltech-UCSD Birds-200-2011 Dataset", Caltech CNS-TR-2011-001.

    Raises:
        DataError: Files are missing, or a list is damaged.
    """
    files = RootFiles(root, "cub", _EXPECTED)
    top = files.above("images.txt", "bounding_boxes.txt", "train_test_split.txt")
    names = dict(_table(files, f"{top}images.txt"))
    numbers = dict(_table(files, f"{top}image_class_labels.txt"))
    training = dict(_table(files, f"{top}train_test_split.txt"))
    classes = dict(_table(files, f"{top}classes.txt"))
    corners = {line[0]: line[1:] for line in files.fields(f"{top}bounding_boxes.txt", 5, " ")}
    ids = list(names)
    for path, table in (
        ("image_class_labels.txt", numbers), ("train_test_split.txt", training), ("bounding_boxes.txt", corners)
    ):  # fmt: skip
        if set(table) != set(ids):
            raise DataError(f"{files.where(top + path)}: its images are not those of images.txt")
    place = {number: index for index, number in enumerate(classes)}
    boxes = BoxList()
    labels = np.zeros(len(ids), dtype=np.int64)
    for row, image in enumerate(ids):
        try:
            x, y, width, height = (float(value) for value in corners[image])
            labels[row] = place[numbers[image]]
        except (ValueError, KeyError) as error:
            raise DataError(f"{files.root}/{top}: image {image}: no readable box or class ({error})") from error
        boxes.add(row, int(labels[row]), touched(x, y, width, height))
    masks = None
    if params.segmentation is not None:
        folder = params.segmentation.strip("/")
        paths = [f"{folder}/{Path(name).with_suffix('.png').as_posix()}" for name in names.values()]
        files.require(paths, "masks")
        masks = _Masks(files, paths, labels.tolist())
    return RawDataset(
        name="cub",
        class_names=[name.partition(".")[2] or name for name in classes.values()],
        sample_ids=list(names.values()),
        splits=["train" if training[image] == "1" else "test" for image in ids],
        labels=labels,
        files=files.images([f"{top}images/{name}" for name in names.values()]),
        boxes=boxes.boxes(),
        segmentation=masks,
    )


def _table(files: RootFiles, path: str) -> list[tuple[str, str]]:
    return [(number, value) for number, value in files.fields(path, 2)]


@dataclass(frozen=True)
class _Masks:
    files: RootFiles
    paths: Sequence[str]
    labels: Sequence[int]

    def read(self, row: int) -> RawMask:
        path = self.paths[row]
        grey = np.asarray(decode_mask(self.files.read(path), self.files.where(path)).convert("L"))
        return RawMask(np.where(grey >= _HALF, self.labels[row] + 1, 0).astype(np.uint8))
