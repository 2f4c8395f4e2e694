"""The data set ``food101``: Food-101, 101 dishes, 750 training and 250 test images a class, in torchvision's layout.

Layout: food-101 with images/<class>/<id>.jpg, meta/train.json and meta/test.json.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from roarline.config.component import NoParams
from roarline.data.raw import RawDataset
from roarline.data.root_files import RootFiles
from roarline.errors import DataError

_EXPECTED = "food-101/images/<class>/<id>.jpg, meta/train.json and meta/test.json"


def read(root: Path | None, params: NoParams, seed: int) -> RawDataset:
    """Read the lists.

    Source: Bossard et al. 2014, "Food-101: Mining Discriminative Components with Random Forests".

    Raises:
        DataError: Files are missing, or a list is damaged.
    """
    files = RootFiles(root, "food101", _EXPECTED)
    top = files.above("meta/train.json", "meta/test.json")
    lists = {split: _list(files, f"{top}meta/{split}.json") for split in ("train", "test")}
    names = sorted(lists["train"])
    if sorted(lists["test"]) != names:
        raise DataError(f"{files.root}/{top}meta: train.json and test.json have different classes")
    ids = [
        (split, label, image)
        for split, classes in lists.items()
        for label, name in enumerate(names)
        for image in classes[name]
    ]
    return RawDataset(
        name="food101",
        class_names=[name.replace("_", " ") for name in names],
        sample_ids=[image for _, _, image in ids],
        splits=[split for split, _, _ in ids],
        labels=np.asarray([label for _, label, _ in ids], dtype=np.int64),
        files=files.images([f"{top}images/{image}.jpg" for _, _, image in ids]),
    )


def _list(files: RootFiles, path: str) -> dict[str, list[str]]:
    try:
        content = json.loads(files.read(path))
        return {str(name): [str(image) for image in images] for name, images in content.items()}
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise DataError(f"{files.where(path)}: expected class to list of images ({error})") from error
