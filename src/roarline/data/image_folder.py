"""The data set ``image_folder``: train[/val]/test folders of class folders, or a tar of such.

A tar may be plain (its images can be indexed) or compressed with gzip, xz or bzip2 (they must be packed). A table of
object boxes may lie beside the split folders (``data/boxes.py`` says its columns).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from roarline.artifacts.dataset import SPLITS
from roarline.config.dataset_params import ImageFolderParams
from roarline.data.boxes import BoxList, read_box_table
from roarline.data.listing import list_images
from roarline.data.raw import RawDataset, RawFile
from roarline.data.root_files import RootFiles
from roarline.errors import DataError

SPLIT_FOLDERS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
"""Folder name to split."""

_EXPECTED = "train/<class>/<image>, test/<class>/<image> and perhaps val/<class>/<image>"
_MOST_NAMED = 10


@dataclass(frozen=True)
class ClassFile:
    """An image in its place: ``sample_id`` is the path below the folder that holds the splits."""

    sample_id: str
    folder: str
    class_name: str
    file: RawFile


def read(root: Path | None, params: ImageFolderParams, seed: int) -> RawDataset:
    """List the images; classes are numbered in alphabetical order, and boxes are of their image's class.

    Where there is ``val`` but no ``test``, ``val`` is the test split, and prepare-data draws a validation split from
    ``train``. Without ``train`` the data set can test a classifier, not train one. Class folders may have folders in
    them. Other files and folders are not looked at.

    Raises:
        DataError: The layout is not as expected, or the splits' classes differ.
    """
    if root is None:
        raise DataError(f"data set 'image_folder': set data.root to a folder or tar with {_EXPECTED}")
    files, others = by_class(root, list_images(root).files, SPLIT_FOLDERS)
    folders = sorted({file.folder for file in files})
    splits = _splits_of(root, folders, others)
    class_names = sorted({file.class_name for file in files})
    _check_classes(root, files, class_names, folders)
    _check_empty(root, files, class_names)
    number = {name: index for index, name in enumerate(class_names)}
    order = sorted(files, key=lambda file: SPLITS.index(splits[file.folder]))
    ids = [file.sample_id for file in order]
    labels = np.asarray([number[file.class_name] for file in order], dtype=np.int64)
    boxes, sizes = boxes_of_table(root, params.boxes, ids, labels) if params.boxes else (None, None)
    return RawDataset(
        name="image_folder",
        class_names=class_names,
        sample_ids=ids,
        splits=[splits[file.folder] for file in order],
        labels=labels,
        files=[file.file for file in order],
        boxes=boxes.boxes() if boxes else None,
        box_difficult=boxes.flags() if boxes else None,
        box_image_sizes=sizes,
    )


def boxes_of_table(root: Path, table: str, sample_ids: Sequence[str], labels: np.ndarray) -> tuple[BoxList, np.ndarray]:
    """Boxes of a table whose lines name images by sample id, or by split folder and the path below it.

    Returns:
        The boxes, and H, W of the images that they were drawn on (0 where the table doesn't say it) [N, 2].

    Raises:
        DataError: There is no such table, it is damaged, or it names images that aren't there.
    """
    files = RootFiles(root, "boxes", f"a table of boxes, {table}", lambda path: path.endswith(f"{table.lstrip('/')}"))
    path = f"{files.above(table)}{table}"
    row_of = {sample_id: row for row, sample_id in enumerate(sample_ids)}
    boxes, sizes, unknown = BoxList(), np.zeros((len(sample_ids), 2), dtype=np.int64), []
    for line in read_box_table(files.text(path), files.where(path)):
        name = f"{line.split}/{line.file}" if line.split else line.file
        row = row_of.get(name)
        if row is None:
            unknown.append(name)
        else:
            sizes[row] = line.size
            boxes.add(row, int(labels[row]), line.box, line.difficult)
    if unknown:
        raise DataError(
            f"{files.where(path)}: {len(unknown)} lines name images that are not there: "
            f"{', '.join(unknown[:_MOST_NAMED])}; expected <split folder>/<class>/<image>, or that in two columns, "
            "split and file"
        )
    return boxes, sizes


def by_class(
    root: Path, files: Sequence[RawFile], split_folders: Mapping[str, str]
) -> tuple[list[ClassFile], list[str]]:
    """Read split and class from paths; folders around the split folders are looked through, if nothing else is there.

    Returns:
        The images in split folders, in the order of ``files``; the names of other folders that have images in them.

    Raises:
        DataError: An image lies in a split folder but in no class folder.
    """
    parts = [file.path.split("/") for file in files]
    depth = _depth(parts, split_folders)
    found, others, loose = [], set(), []
    for file, part in zip(files, parts, strict=True):
        below = part[depth:]
        if below[0] not in split_folders:
            others.add(below[0] if len(below) > 1 else "(images in no folder)")
        elif len(below) < 3:
            loose.append(file.path)
        else:
            found.append(ClassFile("/".join(below), below[0], below[1], file))
    if loose:
        named = ", ".join(loose[:_MOST_NAMED])
        raise DataError(f"{root}: {len(loose)} images lie in no class folder: {named}; expected {_EXPECTED}")
    return found, sorted(others)


def _check_empty(root: Path, files: Sequence[ClassFile], class_names: Sequence[str]) -> None:
    """Refuse class folders without a single image, which would be one class fewer without a word."""
    if not root.is_dir():
        return
    splits = {root / file.file.path.removesuffix(file.sample_id) / file.folder for file in files}
    known = set(class_names)
    empty = sorted(
        f"{split.name}/{folder.name}"
        for split in splits
        for folder in split.iterdir()
        if folder.is_dir() and folder.name not in known and not folder.name.startswith(".")
    )
    if empty:
        raise DataError(
            f"{root}: class folders without an image: {', '.join(empty[:_MOST_NAMED])}; fill them or delete them"
        )


def _depth(parts: Sequence[Sequence[str]], split_folders: Mapping[str, str]) -> int:
    """How many folders lie around the split folders."""
    depth = 0
    while True:
        tops = {part[depth] for part in parts if len(part) > depth + 1}
        if len(tops) != 1 or tops & set(split_folders) or any(len(part) == depth + 1 for part in parts):
            return depth
        depth += 1


def _splits_of(root: Path, folders: Sequence[str], others: Sequence[str]) -> dict[str, str]:
    splits = {folder: SPLIT_FOLDERS[folder] for folder in folders}
    names = list(splits.values())
    found = f"found images in {', '.join([*folders, *others]) or 'no folder'}"
    if names.count("validation") > 1:
        raise DataError(f"{root}: both val and validation; expected {_EXPECTED}")
    if "test" not in names and "validation" not in names:
        raise DataError(f"{root}: no test folder (nor val); expected {_EXPECTED}; {found}")
    if "train" not in names and others:
        raise DataError(f"{root}: no train folder; expected {_EXPECTED}; {found}")
    if "test" not in names:
        splits = {folder: "test" if split == "validation" else split for folder, split in splits.items()}
    return splits


def _check_classes(root: Path, files: Sequence[ClassFile], class_names: Sequence[str], folders: Sequence[str]) -> None:
    there = {(file.folder, file.class_name) for file in files}
    missing = [f"{folder}/{name}" for name in class_names for folder in folders if (folder, name) not in there]
    if missing:
        more = f" and {len(missing) - _MOST_NAMED} more" if len(missing) > _MOST_NAMED else ""
        raise DataError(
            f"{root}: the splits have different classes: no image in {', '.join(missing[:_MOST_NAMED])}{more}; "
            "every class needs images in every split"
        )
