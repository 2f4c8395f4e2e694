"""The data set ``imagenet``: ILSVRC-2012, ``val`` its test split, with object boxes where they lie beside it.

Layouts, in a folder or a tar: train/<wnid>/… and val/<wnid>/…; the published one with val/ILSVRC2012_val_….JPEG all in
one folder, whose classes the XMLs of the boxes say (Kaggle's ILSVRC/Data/CLS-LOC and ILSVRC/Annotations/CLS-LOC, too);
or any images that a table of boxes lists together with their class numbers.

The number of a class is always its usual one among the 1,000, so that pretrained classifiers fit. It comes from a table
beside the split folders: ``classes.csv`` (columns index, wnid, and perhaps name) or ``LOC_synset_mapping.txt`` (a line
for each class in the usual order: wnid, then names). Without a table all 1,000 wnids must be there: sorted, they are in
the usual order.
"""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np

from roarline.config.dataset_params import ImageNetParams
from roarline.data.boxes import BoxList, read_box_table
from roarline.data.image_folder import ClassFile, boxes_of_table, by_class
from roarline.data.listing import CLASS_TABLES, Listing, list_images
from roarline.data.raw import RawDataset, RawFile
from roarline.data.root_files import RootFiles
from roarline.data.voc_xml import XmlAnnotation, parse
from roarline.errors import DataError

_SPLIT_FOLDERS = {"train": "train", "val": "test"}
_EXPECTED = "val/<wnid>/<image> and perhaps train/<wnid>/<image>, or val/ILSVRC2012_val_<number>.JPEG with their XMLs"
_CLASSES = 1000


def read(root: Path | None, params: ImageNetParams, seed: int) -> RawDataset:
    """List the images; ``train`` is optional.

    Raises:
        DataError: The layout is not as expected, the classes' numbers are not known, or annotations are damaged.
    """
    if root is None:
        raise DataError(f"data set 'imagenet': set data.root to a folder or tar with {_EXPECTED}")
    listing = list_images(root)
    listed = _listed_with_labels(root, params.boxes, listing) if params.boxes and _is_table(params.boxes) else None
    return listed or _by_folder(root, params, listing)


def _by_folder(root: Path, params: ImageNetParams, listing: Listing) -> RawDataset:
    """Images in wnid folders, or ``val`` as published, in one folder."""
    flat = [file for file in listing.files if file.path.split("/")[-2:-1] == ["val"]]
    in_folders = [file for file in listing.files if file.path.split("/")[-2:-1] != ["val"]]
    annotations = _Annotations(root, params.boxes) if params.boxes and not _is_table(params.boxes) else None
    files, others = by_class(root, in_folders, _SPLIT_FOLDERS)
    if flat:
        if annotations is None:
            raise DataError(
                f"{root}: {len(flat)} images lie in val and in no wnid folder; set data.params.boxes to the folder of "
                "their XMLs, which say their classes, e.g. Annotations/CLS-LOC/val"
            )
        files += [ClassFile(f"val/{_name(file)}", "val", annotations.wnid(file), file) for file in flat]
    folders = {file.folder for file in files}
    if "val" not in folders:
        found = ", ".join([*sorted(folders), *others]) or "no folder"
        raise DataError(f"{root}: no val folder; expected {_EXPECTED}; found images in {found}")
    wnids = sorted({file.class_name for file in files})
    number, class_names = _numbering(root, listing, wnids)
    order = sorted(files, key=lambda file: file.folder == "val")
    ids = [file.sample_id for file in order]
    labels = np.asarray([number[file.class_name] for file in order], dtype=np.int64)
    boxes, sizes = None, None
    if annotations is not None:
        boxes, sizes = annotations.boxes(order, number)
    elif params.boxes is not None:
        boxes, sizes = boxes_of_table(root, params.boxes, ids, labels)
    return RawDataset(
        name="imagenet",
        class_names=class_names,
        sample_ids=ids,
        splits=[_SPLIT_FOLDERS[file.folder] for file in order],
        labels=labels,
        files=[file.file for file in order],
        boxes=boxes.boxes() if boxes else None,
        box_difficult=boxes.flags() if boxes else None,
        box_image_sizes=sizes,
    )


def _is_table(boxes: str) -> bool:
    return boxes.lower().endswith((".csv", ".tsv", ".txt"))


def _name(file: RawFile) -> str:
    return file.path.rpartition("/")[2]


class _Annotations:
    """The XMLs below a folder, by the name that they share with their image."""

    def __init__(self, root: Path, folder: str) -> None:
        below = f"{folder.strip('/')}/"
        self.files = RootFiles(root, "imagenet", f"XMLs in {below}", lambda path: path.lower().endswith(".xml"))
        top = self.files.above(below)
        self.paths = {Path(path).stem: path for path in self.files.entries if path.startswith(f"{top}{below}")}
        self._parsed: dict[str, XmlAnnotation] = {}

    def of(self, file: RawFile) -> XmlAnnotation | None:
        """What is said of an image; None where it has no XML."""
        stem = Path(file.path).stem
        if stem not in self.paths:
            return None
        if stem not in self._parsed:
            path = self.paths[stem]
            self._parsed[stem] = parse(self.files.read(path), self.files.where(path))
        return self._parsed[stem]

    def wnid(self, file: RawFile) -> str:
        """The class of an image: that of its first object."""
        found = self.of(file)
        if found is None or not found.objects:
            raise DataError(
                f"{self.files.root}: {file.path} has no XML that says its class; {self.files.expected} expected"
            )
        return found.objects[0].name

    def boxes(self, order: list[ClassFile], number: dict[str, int]) -> tuple[BoxList, np.ndarray]:
        """All boxes, and H, W of the images that they were drawn on."""
        boxes, sizes = BoxList(), np.zeros((len(order), 2), dtype=np.int64)
        for row, file in enumerate(order):
            found = self.of(file.file)
            for one in found.objects if found else ():
                if one.name not in number:
                    raise DataError(f"{self.files.root}: {file.sample_id}: class {one.name!r} of a box has no number")
                boxes.add(row, number[one.name], one.box, one.difficult)
            sizes[row] = found.size if found else (0, 0)
        if not boxes.rows:
            raise DataError(
                f"{self.files.root}: no XML is of any of the {len(order)} images; {self.files.expected} expected"
            )
        return boxes, sizes


def _listed_with_labels(root: Path, table: str, listing: Listing) -> RawDataset | None:
    """The images that a table of boxes lists with class numbers, all for testing; None where it has no numbers."""
    files = RootFiles(root, "imagenet", f"a table of boxes, {table}", lambda path: path.endswith(table))
    path = f"{files.above(table)}{table}"
    lines = read_box_table(files.text(path), files.where(path))
    if not lines or any(line.label is None for line in lines):
        return None
    label_of = {line.file: int(line.label or 0) for line in lines}
    chosen = [file for file in listing.files if _name(file) in label_of]
    lacking = sorted(set(label_of) - {_name(file) for file in chosen})
    if lacking:
        raise DataError(f"{files.where(path)}: {len(lacking)} images are not there: {', '.join(lacking[:10])}")
    row_of = {_name(file): row for row, file in enumerate(chosen)}
    boxes, sizes = BoxList(), np.zeros((len(chosen), 2), dtype=np.int64)
    for line in lines:
        boxes.add(row_of[line.file], int(line.label or 0), line.box, line.difficult)
        sizes[row_of[line.file]] = line.size
    return RawDataset(
        name="imagenet",
        class_names=_names_of_all(root, listing),
        sample_ids=[file.path for file in chosen],
        splits=["test"] * len(chosen),
        labels=np.asarray([label_of[_name(file)] for file in chosen], dtype=np.int64),
        files=chosen,
        boxes=boxes.boxes(),
        box_difficult=boxes.flags(),
        box_image_sizes=sizes,
    )


def _names_of_all(root: Path, listing: Listing) -> list[str]:
    """Names of the 1,000 classes: from a table, else those that torchvision has for its weights."""
    if any(path.rpartition("/")[2] in CLASS_TABLES for path in listing.tables):
        return _numbering(root, listing, [])[1]
    from torchvision.models import SqueezeNet1_1_Weights

    names = list(SqueezeNet1_1_Weights.DEFAULT.meta["categories"])
    twice = Counter(names)
    return [name if twice[name] == 1 else f"{name} ({number})" for number, name in enumerate(names)]


def _numbering(root: Path, listing: Listing, wnids: list[str]) -> tuple[dict[str, int], list[str]]:
    """The number of each wnid, and names for all numbers."""
    tables = {path: text for path, text in listing.tables.items() if path.rpartition("/")[2] in CLASS_TABLES}
    if not tables:
        if len(wnids) != _CLASSES:
            raise DataError(
                f"{root}: {len(wnids)} wnid folders and no table of classes, so that their numbers among the 1,000 are "
                "not known; put a classes.csv (columns index,wnid,name) beside val, or use data set image_folder"
            )
        return {wnid: index for index, wnid in enumerate(wnids)}, wnids
    path = min(tables, key=lambda name: (name.count("/"), CLASS_TABLES.index(name.rpartition("/")[2])))
    where = f"{root}/{path}" if root.is_dir() else f"{root}:{path}"
    try:
        text = tables[path].decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 text ({error})") from error
    rows = _csv_rows(where, text) if path.endswith(".csv") else _synset_rows(text)
    number = {wnid: index for index, wnid, _ in rows}
    if sorted(number.values()) != list(range(len(rows))):
        raise DataError(f"{where}: expected each index from 0 to {len(rows) - 1} and each wnid once")
    unknown = [wnid for wnid in wnids if wnid not in number]
    if unknown:
        raise DataError(f"{where}: has no line for {len(unknown)} of the folders: {', '.join(unknown[:10])}")
    names = Counter(name for _, _, name in rows)
    by_index = sorted(rows)
    return number, [name if names[name] == 1 else f"{name} ({wnid})" for _, wnid, name in by_index]


def _csv_rows(where: str, text: str) -> list[tuple[int, str, str]]:
    reader = csv.DictReader(text.splitlines())
    if not {"index", "wnid"} <= set(reader.fieldnames or ()):
        raise DataError(
            f"{where}: expected columns index,wnid and perhaps name, got {','.join(reader.fieldnames or ())}"
        )
    rows = []
    for line in reader:
        try:
            rows.append((int(line["index"]), line["wnid"].strip(), (line.get("name") or line["wnid"]).strip()))
        except (TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{where}:{reader.line_num}: expected index,wnid,name, got {line}") from error
    return rows


def _synset_rows(text: str) -> list[tuple[int, str, str]]:
    rows = []
    for index, line in enumerate(line for line in text.splitlines() if line.strip()):
        wnid, _, names = line.strip().partition(" ")
        rows.append((index, wnid, names.partition(",")[0].strip() or wnid))
    return rows
