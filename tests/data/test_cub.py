"""CUB: lists, boxes in fractions of pixels, masks beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from roarline.config.dataset_params import CubParams
from roarline.data.cub import read
from roarline.data.raw import RawDataset
from roarline.errors import DataError
from tests.data.builders import encoded, write_folder, write_tar
from tests.data.layouts import mask_png

NAMES = ["001.Black_footed_Albatross/A_0046_18.jpg", "001.Black_footed_Albatross/A_0009_34.jpg", "002.Jay/J_0001_1.jpg"]


def layout(top: str = "CUB_200_2011/") -> dict[str, bytes]:
    """Three images of two classes; the second is for training."""
    grey = np.asarray([[0, 51, 102, 127], [128, 153, 204, 255], [0, 0, 0, 0]], dtype=np.uint8)
    lists = {
        "images.txt": [f"{number} {name}" for number, name in enumerate(NAMES, start=1)],
        "image_class_labels.txt": ["1 1", "2 1", "3 2"],
        "train_test_split.txt": ["1 0", "2 1", "3 0"],
        "bounding_boxes.txt": ["1 0.0 1.0 2.0 2.0", "2 1.0 0.0 3.0 3.0", "3 0.5 0.5 2.0 1.0"],
        "classes.txt": ["1 001.Black_footed_Albatross", "2 002.Jay"],
    }
    files = {f"{top}{name}": "".join(f"{line}\n" for line in lines).encode() for name, lines in lists.items()}
    files |= {f"{top}images/{name}": encoded(seed, (4, 3), "JPEG") for seed, name in enumerate(NAMES)}
    return files | {f"segmentations/{name[:-4]}.png": mask_png(grey, "L") for name in NAMES}


def _read(root: Path, segmentation: str | None = None) -> RawDataset:
    raw = read(root, CubParams(segmentation=segmentation), 0)
    raw.check()
    return raw


@pytest.mark.parametrize("top", ["CUB_200_2011/", "", "birds/CUB_200_2011/"])
def test_the_published_layout(tmp_path: Path, top: str) -> None:
    raw = _read(write_folder(tmp_path, layout(top)))
    assert list(raw.class_names) == ["Black_footed_Albatross", "Jay"]
    assert list(raw.sample_ids) == NAMES
    assert raw.splits == ["test", "train", "test"]
    assert raw.labels.tolist() == [0, 0, 1]
    assert raw.boxes.tolist() == [[0, 0, 0, 1, 1, 2], [1, 0, 1, 0, 3, 2], [2, 1, 0, 0, 2, 1]]
    assert raw.segmentation is None


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_masks_are_half_or_more_of_the_annotators(tmp_path: Path, kind: str) -> None:
    files = layout()
    root = write_tar(tmp_path / "cub.tar", files) if kind == "tar" else write_folder(tmp_path, files)
    raw = _read(root, "segmentations")
    assert raw.segmentation.read(2).labels.tolist() == [[0, 0, 0, 0], [2, 2, 2, 2], [0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bounding_boxes.txt": None}, r"no bounding_boxes\.txt; expected CUB_200_2011/images\.txt"),
        ({"bounding_boxes.txt": b"1 0 1 2 2\n"}, r"bounding_boxes\.txt: its images are not those of images\.txt"),
        ({"bounding_boxes.txt": b"1 0 1 2\n"}, r"bounding_boxes\.txt:1: expected 5 fields, got '1 0 1 2'"),
        ({"image_class_labels.txt": b"1 1\n2 1\n3 9\n"}, "image 3: no readable box or class"),
        ({"images.txt": b"1 a.jpg\n2 b.jpg\n3 c.jpg\n"}, r"3 of 3 images are not there: CUB_200_2011/images/a\.jpg"),
    ],
)
def test_what_is_missing_or_damaged_is_named(tmp_path: Path, change: dict[str, bytes | None], message: str) -> None:
    files = layout() | {f"CUB_200_2011/{name}": content for name, content in change.items()}
    with pytest.raises(DataError, match=message):
        _read(write_folder(tmp_path, {name: content for name, content in files.items() if content is not None}))


def test_missing_masks_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"3 of 3 masks are not there: masks/001\.Black"):
        _read(write_folder(tmp_path, layout()), "masks")
