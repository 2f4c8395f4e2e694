"""The data set ``wsol``: any image folder with the metadata format of wsolevaluation, OpenImages among them.

Layout: metadata/{train,val,test}, each with image_ids.txt (a path a line), class_labels.txt (path,class number),
and for evaluation localization.txt: ``path,x0,y0,x1,y1`` for boxes, with image_sizes.txt (path,width,height of
the image that they were drawn on), or ``path,mask,ignore mask`` for masks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from roarline.artifacts.dataset import VOID
from roarline.config.dataset_params import WsolParams
from roarline.data.boxes import BoxList
from roarline.data.mask_files import decode_labels
from roarline.data.raw import RawDataset, RawMask
from roarline.data.root_files import RootFiles
from roarline.errors import DataError

_SPLITS = {"train": "train", "val": "validation", "test": "test"}


@dataclass
class _MaskFiles:
    """Mask files of one image, and the one that says where masks are not to be trusted."""

    masks: list[str] = field(default_factory=list)
    ignore: str = ""


@dataclass
class _Localization:
    boxes: BoxList = field(default_factory=BoxList)
    masks: dict[int, _MaskFiles] = field(default_factory=dict)
    with_boxes: bool = False


def read(root: Path | None, params: WsolParams, seed: int) -> RawDataset:
    """Read the metadata; ``val`` is the validation split, ``test`` the test split.

    Objects are of their image's class. A mask file's pixels above 0 are object; those of the ignore mask that no mask
    holds are void. Masks may be of another size than their image, over which they are stretched.

    Source: Choe et al. 2020, "Evaluating Weakly Supervised Object Localization Methods Right".
    Differs: with ``compat: original`` the corners of resized boxes are cut to whole px, as the original has them; with
        ``data.aspect: stretch``, too, images, boxes and masks are the original's.

    Raises:
        DataError: Files are missing, or a list is damaged.
    """
    top = f"{params.metadata.strip('/')}/"
    expected = (
        f"{top}{{train,val,test}}/image_ids.txt, class_labels.txt, localization.txt and {params.images or '.'}/<id>"
    )
    files = RootFiles(root, "wsol", expected)
    names = [name for name in _SPLITS if f"{top}{name}/image_ids.txt" in files.entries]
    if "test" not in names:
        raise files.missing(f"{top}test/image_ids.txt")
    ids: list[str] = []
    splits: list[str] = []
    labels: list[int] = []
    sizes: list[tuple[int, ...]] = []
    found = _Localization()
    for name in names:
        first = len(ids)
        of_split = [line[0] for line in files.fields(f"{top}{name}/image_ids.txt", 1)]
        classes = _numbers(files, f"{top}{name}/class_labels.txt", 1)
        known = (
            _numbers(files, f"{top}{name}/image_sizes.txt", 2)
            if f"{top}{name}/image_sizes.txt" in files.entries
            else {}
        )
        lacking = [image for image in of_split if image not in classes]
        if lacking:
            raise DataError(f"{files.where(top + name)}/class_labels.txt: no class of {', '.join(lacking[:10])}")
        ids += of_split
        splits += [_SPLITS[name]] * len(of_split)
        labels += [classes[image][0] for image in of_split]
        sizes += [known.get(image, (0, 0))[::-1] for image in of_split]
        path = f"{top}{name}/localization.txt"
        if path in files.entries:
            rows = {image: first + place for place, image in enumerate(of_split)}
            _localization(files, path, params, rows, labels, found)
    below = f"{params.images.strip('/')}/" if params.images.strip("/") else ""
    return RawDataset(
        name="wsol",
        class_names=_class_names(files, params, max(labels, default=-1) + 1),
        sample_ids=ids,
        splits=splits,
        labels=np.asarray(labels, dtype=np.int64),
        files=files.images([below + image for image in ids]),
        boxes=found.boxes.boxes() if found.with_boxes else None,
        box_image_sizes=np.asarray(sizes, dtype=np.int64).reshape(-1, 2) if found.with_boxes else None,
        truncated_boxes=params.compat == "original",
        segmentation=_Masks(files, found.masks, labels) if found.masks else None,
    )


def _numbers(files: RootFiles, path: str, count: int) -> dict[str, tuple[int, ...]]:
    """Image id to the numbers behind it."""
    try:
        lines = files.fields(path, 1 + count, ",")
        found = {line[0]: tuple(int(value) for value in line[1:]) for line in lines}
    except ValueError as error:
        raise DataError(f"{files.where(path)}: expected numbers behind the image id ({error})") from error
    if len(found) != len(lines):
        raise DataError(f"{files.where(path)}: {len(lines) - len(found)} images stand twice")
    return found


def _localization(
    files: RootFiles,
    path: str,
    params: WsolParams,
    rows: Mapping[str, int],
    labels: Sequence[int],
    found: _Localization,
) -> None:
    first = files.text(path).lstrip().partition("\n")[0]
    with_boxes = first.count(",") == 4
    below = f"{params.masks.strip('/')}/" if params.masks.strip("/") else ""
    for image, *values in files.fields(path, 5 if with_boxes else 3, ","):
        row = rows.get(image)
        if row is None:
            raise DataError(f"{files.where(path)}: image {image!r} is not in image_ids.txt")
        if with_boxes:
            try:
                x0, y0, x1, y1 = (int(float(value)) for value in values)
            except ValueError as error:
                raise DataError(f"{files.where(path)}: {image}: not a box ({error})") from error
            found.with_boxes = True
            found.boxes.add(row, labels[row], (x0, y0, x1, y1))
        else:
            of_image = found.masks.setdefault(row, _MaskFiles())
            of_image.masks.append(below + values[0])
            of_image.ignore = of_image.ignore or (below + values[1] if values[1] else "")
    if not with_boxes:
        of_split = [found.masks[row] for row in rows.values() if row in found.masks]
        files.require([mask for image in of_split for mask in [*image.masks, image.ignore] if mask], "masks")


def _class_names(files: RootFiles, params: WsolParams, classes: int) -> list[str]:
    if params.class_names is None:
        return [str(number) for number in range(classes)]
    names = [line.strip() for line in files.text(params.class_names).splitlines() if line.strip()]
    if len(names) < classes:
        raise DataError(f"{files.where(params.class_names)}: {len(names)} names for {classes} classes")
    return names


@dataclass(frozen=True)
class _Masks:
    files: RootFiles
    of_rows: Mapping[int, _MaskFiles]
    labels: Sequence[int]

    def read(self, row: int) -> RawMask | None:
        if row not in self.of_rows:
            return None
        image = self.of_rows[row]
        objects = self._united(image.masks)
        labels = np.where(objects, self.labels[row] + 1, 0).astype(np.uint8)
        if image.ignore:
            ignored = self._united([image.ignore])
            if ignored.shape != labels.shape:
                raise DataError(
                    f"{self.files.where(image.ignore)}: {list(ignored.shape)} px, its masks have {list(labels.shape)}"
                )
            labels[ignored & ~objects] = VOID
        return RawMask(labels, stretched=True)

    def _united(self, paths: Sequence[str]) -> np.ndarray:
        masks = [decode_labels(self.files.read(path), self.files.where(path)) > 0 for path in paths]
        for path, mask in zip(paths, masks, strict=True):
            if mask.shape != masks[0].shape:
                raise DataError(
                    f"{self.files.where(path)}: {list(mask.shape)} px, another mask of its image has "
                    f"{list(masks[0].shape)}"
                )
        return np.asarray(np.any(masks, axis=0))
