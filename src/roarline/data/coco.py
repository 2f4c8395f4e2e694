"""The data set ``coco``: MS COCO 2014 or 2017, multi-label, with boxes and instance masks.

Layout: annotations/instances_{train,val}<year>.json and the images, each by its file name in whatever folder it lies
(train<year> and val<year> as published). ``val`` is the test split. Polygons and run lengths become masks through
pycocotools.
"""

from __future__ import annotations

import json
import threading
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from roarline.config.dataset_params import CocoParams
from roarline.data.boxes import BoxList, touched
from roarline.data.mask_files import paint
from roarline.data.raw import RawDataset, RawMask
from roarline.data.root_files import RootFiles
from roarline.errors import DataError

_EXPECTED = (
    "annotations/instances_train<year>.json, annotations/instances_val<year>.json, train<year>/<image> and "
    "val<year>/<image> (train may be left out)"
)
_ORIGINAL_CLASSES = 91
_FARTHEST_PX = 1e6
_FILTERING = threading.Lock()


@dataclass
class _Image:
    """One image of the annotation files, and its objects."""

    sample_id: str
    split: str
    path: str
    size: tuple[int, int]
    objects: list[Mapping[str, Any]] = field(default_factory=list)


def read(root: Path | None, params: CocoParams, seed: int) -> RawDataset:
    """Read the annotation files; masks are made when they are asked for.

    Classes are the places of the category ids in rising order. A crowd (``iscrowd``) gives its image a label and counts
    in the masks; its box is flagged difficult, since it holds no single object.

    Source: Lin et al. 2014, "Microsoft COCO: Common Objects in Context".
    Differs: with ``compat: original`` labels and masks are as the NN-Explainer code has them: category ids themselves
        number 91 classes, an image without any object has all 80 labels, and bilinear resizing leaves masks soft
        (``soft_masks``).

    Raises:
        DataError: Files are missing, or an annotation file is damaged.
    """
    names = params.annotation_files
    files = RootFiles(
        root, "coco", _EXPECTED, lambda path: path.lower().endswith(".jpg") or _base(path) in names.values()
    )
    by_name = {_base(path): path for path in files.entries}
    contents = {split: _load(files, by_name[name]) for split, name in names.items() if name in by_name}
    if "test" not in contents:
        raise files.missing(f"annotations/{names['test']}")
    given = {"train": params.train, "validation": params.validation, "test": params.test}
    lacking = [name for split, name in names.items() if given[split] and split not in contents]
    if lacking:
        raise files.missing(f"annotations/{lacking[0]}")
    original = params.compat == "original"
    try:
        categories = _categories(contents["test"], original)
        place = {number: place for place, number in enumerate(categories)}
        images = [
            image
            for split, content in contents.items()
            for image in _images(split, content, by_name)
            if image.objects or original or params.unannotated == "keep"
        ]
        labels, found = _objects(images, place, original)
        boxes = found.boxes()
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DataError(
            f"{files.root}: annotations are not COCO's instances ({type(error).__name__}: {error})"
        ) from error
    return RawDataset(
        name="coco",
        class_names=list(categories.values()),
        sample_ids=[image.sample_id for image in images],
        splits=[image.split for image in images],
        labels=labels,
        multi_label=True,
        files=files.images([image.path for image in images]),
        boxes=boxes,
        box_difficult=found.flags(),
        segmentation=_Masks(images, place, bool(params.soft_masks)),
        soft_masks=bool(params.soft_masks),
    )


def _base(path: str) -> str:
    return path.rpartition("/")[2]


def _load(files: RootFiles, path: str) -> dict[str, Any]:
    try:
        content = json.loads(files.read(path))
        content["images"], content["annotations"], content["categories"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{files.where(path)}: not COCO's instances ({type(error).__name__}: {error})") from error
    return dict(content)


def _categories(content: Mapping[str, Any], original: bool) -> dict[int, str]:
    """Category id to name, rising; for the original code all ids from 0 to 90."""
    named = {int(category["id"]): str(category["name"]) for category in content["categories"]}
    if not original:
        return dict(sorted(named.items()))
    return {number: named.get(number, f"unused {number}") for number in range(max(_ORIGINAL_CLASSES, max(named) + 1))}


def _images(split: str, content: Mapping[str, Any], by_name: Mapping[str, str]) -> list[_Image]:
    images = {
        image["id"]: _Image(
            sample_id=Path(image["file_name"]).stem,
            split=split,
            path=by_name.get(_base(image["file_name"]), f"{split}/{image['file_name']}"),
            size=(int(image["height"]), int(image["width"])),
        )
        for image in content["images"]
    }
    for annotation in content["annotations"]:
        images[annotation["image_id"]].objects.append(annotation)
    return sorted(images.values(), key=lambda image: image.sample_id)


def _objects(images: Sequence[_Image], place: Mapping[int, int], original: bool) -> tuple[np.ndarray, BoxList]:
    labels, boxes = np.zeros((len(images), len(place)), dtype=np.uint8), BoxList()
    for row, image in enumerate(images):
        for found in image.objects:
            label, crowd = place[found["category_id"]], bool(found.get("iscrowd", 0))
            labels[row, label] = 1
            x, y, width, height = found["bbox"]
            boxes.add(row, label, touched(x, y, width, height), crowd)
        if original and not image.objects:
            labels[row] = 1
    return labels, boxes


@dataclass(frozen=True)
class _Masks:
    """Instance masks, those of a class united."""

    images: Sequence[_Image]
    place: Mapping[int, int]
    soft: bool

    def read(self, row: int) -> RawMask:
        image = self.images[row]
        lengths: defaultdict[int, list[Any]] = defaultdict(list)
        try:
            for found in image.objects:
                lengths[self.place[found["category_id"]]] += _run_lengths(found["segmentation"], image.size)
            masks = {label: _decode(coco_mask.merge(parts)) for label, parts in lengths.items() if parts}
            painted = paint(masks, image.size)
            grey = np.where(painted.labels > 0, 255, 0).astype(np.uint8) if self.soft else None
            return replace(painted, dilated_from=grey)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise DataError(
                f"data set 'coco': image {image.sample_id}: a segmentation that can't be read ({error})"
            ) from error


def _run_lengths(segmentation: Any, size: tuple[int, int]) -> list[Any]:
    """Of one object: polygons (of three corners or more), or run lengths as numbers (crowds) or packed."""
    if isinstance(segmentation, list):
        polygons = [np.asarray(polygon, dtype=np.float64) for polygon in segmentation]
        for polygon in polygons:
            if polygon.ndim != 1 or len(polygon) % 2 or not (np.abs(polygon) < _FARTHEST_PX).all():
                raise ValueError("a polygon that is no list of x and y")
        polygons = [polygon for polygon in polygons if len(polygon) >= 6]
        return list(coco_mask.frPyObjects([polygon.tolist() for polygon in polygons], *size)) if polygons else []
    counts = segmentation["counts"]
    if tuple(segmentation["size"]) != size:
        raise ValueError(f"run lengths of {segmentation['size']} px for an image of {list(size)} px")
    if not isinstance(counts, list):
        return [{"size": list(size), "counts": counts if isinstance(counts, bytes) else counts.encode()}]
    if sum(counts) != size[0] * size[1] or min(counts, default=0) < 0:
        raise ValueError("run lengths that don't add up to the image")
    return [coco_mask.frPyObjects({"size": list(size), "counts": counts}, *size)]


def _decode(lengths: Any) -> np.ndarray:
    """bool [H, W]. pycocotools does what NumPy 2 warns of; threads share the filters of warnings, hence the lock."""
    with _FILTERING, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        return np.asarray(coco_mask.decode(lengths), dtype=bool)
