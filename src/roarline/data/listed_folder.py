"""The data set ``listed_folder``: class folders with lists of splits, as Birdsnap has them.

Layout: <images>/<class>/<image>, and text files that list paths below <images>, one a line, perhaps under the headline
``path``. Without a list of training images, those that no list names are for training.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from roarline.config.dataset_params import ListedFolderParams
from roarline.data.boxes import BoxList, read_box_table
from roarline.data.listing import is_image, natural
from roarline.data.raw import RawDataset
from roarline.data.root_files import RootFiles
from roarline.errors import DataError


def read(root: Path | None, params: ListedFolderParams, seed: int) -> RawDataset:
    """Read the lists; classes are the folders' names in alphabetical order.

    A table of boxes may say more images than there are: Birdsnap's can't all be downloaded any more.

    Source: Berg et al. 2014, "Birdsnap: Large-Scale Fine-Grained Visual Categorization of Birds"; Hooker et al. 2019,
        "A Benchmark for Interpretability Methods in Deep Neural Networks", which uses it.

    Raises:
        DataError: Files are missing or stand in two lists, or a class has no training image.
    """
    below = params.images.strip("/")
    below = f"{below}/" if below else ""
    files = RootFiles(root, "listed_folder", f"{below}<class>/<image> and {params.test}")
    images = sorted((path for path in files.entries if path.startswith(below) and is_image(path)), key=natural)
    loose = [path for path in images if "/" not in path[len(below) :]]
    if loose:
        raise DataError(f"{files.root}: {len(loose)} images lie in no class folder: {', '.join(loose[:10])}")
    lists = {
        split: [below + line[0] for line in files.fields(name, 1) if line[0] != "path"]
        for split, name in (("train", params.train), ("validation", params.validation), ("test", params.test))
        if name is not None
    }
    split_of: dict[str, str] = {}
    for split, paths in lists.items():
        files.require(paths, f"images of the {split} list")
        twice = [path for path in paths if path in split_of]
        if twice:
            raise DataError(f"{files.root}: {twice[0]} is in the {split} list and in the {split_of[twice[0]]} list")
        split_of |= dict.fromkeys(paths, split)
    if params.train is None:
        split_of |= {path: "train" for path in images if path not in split_of}
    chosen = [path for split in ("train", "validation", "test") for path in images if split_of.get(path) == split]
    names = sorted({path[len(below) :].split("/")[0] for path in chosen})
    number = {name: index for index, name in enumerate(names)}
    labels = np.asarray([number[path[len(below) :].split("/")[0]] for path in chosen], dtype=np.int64)
    raw = RawDataset(
        name="listed_folder",
        class_names=names,
        sample_ids=[path[len(below) :] for path in chosen],
        splits=[split_of[path] for path in chosen],
        labels=labels,
        files=[files.entries[path] for path in chosen],
        boxes=_boxes(files, params.boxes, [path[len(below) :] for path in chosen], labels),
    )
    _check_trained(raw)
    return raw


def _boxes(files: RootFiles, table: str | None, ids: list[str], labels: np.ndarray) -> np.ndarray | None:
    if table is None:
        return None
    row_of = {sample_id: row for row, sample_id in enumerate(ids)}
    boxes = BoxList()
    for line in read_box_table(files.text(table), files.where(table)):
        row = row_of.get(line.file)
        if row is not None:
            boxes.add(row, int(labels[row]), line.box, line.difficult)
    if not boxes.rows:
        raise DataError(f"{files.where(table)}: has no box for any of the {len(ids)} images")
    return boxes.boxes()


def _check_trained(raw: RawDataset) -> None:
    split = np.asarray(raw.splits)
    trained, tested = set(raw.labels[split == "train"].tolist()), set(raw.labels[split == "test"].tolist())
    lacking = [raw.class_names[label] for label in sorted(tested - trained)]
    if trained and lacking:
        raise DataError(
            f"data set {raw.name!r}: no training image of {len(lacking)} classes: {', '.join(lacking[:10])}"
        )
