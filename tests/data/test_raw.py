"""What a reader may give."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from roarline.data.raw import OWN_FILE, RawDataset, RawFile
from roarline.errors import DataError

GOOD = RawDataset(
    name="mine",
    class_names=["a", "b"],
    sample_ids=["x", "y", "z"],
    splits=["train", "train", "test"],
    labels=np.asarray([0, 1, 1]),
    images=np.zeros((3, 1, 4, 5), dtype=np.uint8),
    boxes=np.asarray([[0, 1, 0, 0, 3, 3]]),
    segmentation=np.zeros((3, 4, 5), dtype=np.uint8),
)


def test_a_sound_data_set_passes() -> None:
    GOOD.check()
    replace(GOOD, labels=np.asarray([[0, 1], [1, 1], [0, 0]]), multi_label=True).check()
    replace(GOOD, images=None, files=[RawFile("f", OWN_FILE, 1)] * 3).check()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sample_ids": []}, "sample_ids: expected at least one sample, got none"),
        ({"sample_ids": ["x", "y", "x"]}, "sample_ids: expected unique ids, got 'x' twice"),
        ({"class_names": ["a", "a"]}, "class_names: expected unique names, got 'a' twice"),
        ({"splits": ["train", "dev", "test"]}, "splits: .* got 'dev'"),
        ({"splits": ["train"]}, "splits: .* got 1 of them"),
        ({"labels": np.asarray([0, 1, 2])}, "labels: expected values from 0 to 1, got 0 to 2"),
        ({"labels": np.asarray([0.0, 1.0, 1.0])}, "labels: expected integers"),
        ({"labels": np.asarray([0, 1])}, r"labels: expected integers of shape \[3\]"),
        ({"multi_label": True}, r"labels: expected integers of shape \[3, 2\]"),
        ({"images": None}, "images and files: expected one of the two, got neither"),
        ({"files": [RawFile("f", OWN_FILE, 1)] * 3}, "images and files: expected one of the two, got both"),
        ({"images": None, "files": [RawFile("f", OWN_FILE, 1)]}, "files: expected one for each of 3 samples, got 1"),
        ({"images": np.zeros((3, 2, 4, 4), dtype=np.uint8)}, "images: expected shape"),
        ({"images": np.zeros((2, 3, 4, 4), dtype=np.uint8)}, "images: expected shape"),
        ({"boxes": np.asarray([[0, 1, 3, 0, 2, 3]])}, r"boxes: .* got \[0, 1, 3, 0, 2, 3\]"),
        ({"boxes": np.asarray([[3, 1, 0, 0, 2, 3]])}, "boxes: "),
        ({"boxes": np.asarray([0, 1, 2])}, "boxes: expected shape"),
        ({"segmentation": np.zeros((2, 4, 5))}, "segmentation: expected shape"),
    ],
)
def test_what_is_wrong_is_said(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=f"data set 'mine': {message}"):
        replace(GOOD, **change).check()
