"""The data set ``voc``: PASCAL VOC 2007 or 2012, multi-label, with boxes, difficult flags and segmentation.

Layout: VOCdevkit/VOC<year> with ImageSets/Main, Annotations, JPEGImages and SegmentationClass. The test split is the
published one where its annotations are there (2007); else ``val`` is the test split, and prepare-data draws a
validation split from ``train`` (2012).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from roarline.artifacts.dataset import VOID
from roarline.config.dataset_params import VocParams
from roarline.data.boxes import BoxList
from roarline.data.mask_files import decode_mask
from roarline.data.raw import RawDataset, RawMask
from roarline.data.root_files import RootFiles
from roarline.data.voc_xml import XmlAnnotation, parse
from roarline.errors import DataError

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


def read(root: Path | None, params: VocParams, seed: int) -> RawDataset:
    """Read the lists and annotations; masks are read when they are asked for.

    An image's labels are the classes of its objects, those flagged difficult included unless ``difficult_labels`` is
    false. Images outside ImageSets/Segmentation have no mask.

    Source: Everingham et al. 2010, "The PASCAL Visual Object Classes (VOC) Challenge".
    Differs: with ``compat: original`` masks are as the NN-Explainer code has them: void counts as object, and bilinear
        resizing makes all objects a pixel or so larger.

    Raises:
        DataError: Files are missing, or an annotation is damaged.
    """
    files = RootFiles(root, "voc", _expected(params.year))
    top = _top(files, params.year)
    ids = _lists(files, top, "Segmentation" if params.images == "segmented" else "Main")
    stems = [stem for split in ids for stem in ids[split]]
    images = files.images([f"{top}JPEGImages/{stem}.jpg" for stem in stems])
    annotations = [f"{top}Annotations/{stem}.xml" for stem in stems]
    files.require(annotations, "annotations")
    found = [parse(files.read(path), files.where(path)) for path in annotations]
    boxes, labels = _objects(files, annotations, found, params)
    return RawDataset(
        name="voc",
        class_names=CLASSES,
        sample_ids=stems,
        splits=[split for split in ids for _ in ids[split]],
        labels=labels,
        multi_label=True,
        files=images,
        boxes=boxes.boxes(),
        box_difficult=boxes.flags(),
        box_image_sizes=np.asarray([annotation.size for annotation in found]),
        segmentation=_Masks(
            files, [f"{top}SegmentationClass/{stem}.png" for stem in stems], params.compat == "original"
        ),
    )


def _expected(year: str) -> str:
    return (
        f"VOCdevkit/VOC{year}/ImageSets/Main/<split>.txt, Annotations/<id>.xml, JPEGImages/<id>.jpg and "
        "SegmentationClass/<id>.png, as the archives of PASCAL VOC unpack"
    )


def _top(files: RootFiles, year: str) -> str:
    """The folder of the year: below the root, or the root itself."""
    if any(f"VOC{year}/ImageSets/" in path for path in files.entries):
        return f"{files.above(f'VOC{year}/ImageSets/')}VOC{year}/"
    return files.above("ImageSets/", "Annotations/", "JPEGImages/")


def _lists(files: RootFiles, top: str, kind: str) -> dict[str, list[str]]:
    """The ids of each split; a list of which no annotation is there is left out."""
    found = {}
    for name in ("train", "val", "test"):
        path = f"{top}ImageSets/{kind}/{name}.txt"
        if path in files.entries:
            ids = [line[0] for line in files.fields(path, 1)]
            if any(f"{top}Annotations/{stem}.xml" in files.entries for stem in ids):
                found[name] = ids
    if "test" in found:
        if "val" in found:
            found["validation"] = found.pop("val")
    elif "val" in found:
        found["test"] = found.pop("val")
    else:
        raise files.missing(f"{top}ImageSets/{kind}/test.txt, nor val.txt, whose annotations are there")
    return {split: found[split] for split in ("train", "validation", "test") if split in found}


def _objects(
    files: RootFiles, paths: Sequence[str], annotations: Sequence[XmlAnnotation], params: VocParams
) -> tuple[BoxList, np.ndarray]:
    boxes, labels = BoxList(), np.zeros((len(annotations), len(CLASSES)), dtype=np.uint8)
    number = {name: index for index, name in enumerate(CLASSES)}
    for row, annotation in enumerate(annotations):
        for found in annotation.objects:
            if found.name not in number:
                raise DataError(f"{files.where(paths[row])}: class {found.name!r} is none of VOC's 20")
            boxes.add(row, number[found.name], found.box, found.difficult)
            if params.difficult_labels or not found.difficult:
                labels[row, number[found.name]] = 1
    return boxes, labels


@dataclass(frozen=True)
class _Masks:
    """SegmentationClass, whose palette places are 0, c + 1 and 255 already."""

    files: RootFiles
    paths: Sequence[str]
    dilated: bool

    def read(self, row: int) -> RawMask | None:
        path = self.paths[row]
        if path not in self.files.entries:
            return None
        image = decode_mask(self.files.read(path), self.files.where(path))
        labels = np.asarray(image, dtype=np.uint8)
        if ((labels > len(CLASSES)) & (labels != VOID)).any():
            raise DataError(
                f"{self.files.where(path)}: pixels of {labels[labels != VOID].max()}, "
                f"expected 0 to {len(CLASSES)} and 255"
            )
        return RawMask(labels, dilated_from=np.asarray(image.convert("L")) if self.dilated else None)
