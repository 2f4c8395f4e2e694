"""The data set ``imagenet``: train/<wnid>/… and val/<wnid>/…, in a folder or a tar; ``val`` is the test split.

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

from roarline.config.component import NoParams
from roarline.data.image_folder import by_class
from roarline.data.listing import CLASS_TABLES, Listing, list_images
from roarline.data.raw import RawDataset
from roarline.errors import DataError

_SPLIT_FOLDERS = {"train": "train", "val": "test"}
_EXPECTED = "val/<wnid>/<image> and perhaps train/<wnid>/<image>"
_CLASSES = 1000


def read(root: Path | None, params: NoParams, seed: int) -> RawDataset:
    """List the images; ``train`` is optional.

    Raises:
        DataError: The layout is not as expected, or the classes' numbers are not known.
    """
    if root is None:
        raise DataError(f"data set 'imagenet': set data.root to a folder or tar with {_EXPECTED}")
    listing = list_images(root)
    files, others = by_class(root, listing.files, _SPLIT_FOLDERS)
    folders = {file.folder for file in files}
    if "val" not in folders:
        found = ", ".join([*sorted(folders), *others]) or "no folder"
        raise DataError(f"{root}: no val folder; expected {_EXPECTED}; found images in {found}")
    wnids = sorted({file.class_name for file in files})
    number, class_names = _numbering(root, listing, wnids)
    order = sorted(files, key=lambda file: file.folder == "val")
    return RawDataset(
        name="imagenet",
        class_names=class_names,
        sample_ids=[file.sample_id for file in order],
        splits=[_SPLIT_FOLDERS[file.folder] for file in order],
        labels=np.asarray([number[file.class_name] for file in order], dtype=np.int64),
        files=[file.file for file in order],
    )


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
