"""What methods may ask of a data set: ground truth, from masks, covered masks and boxes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from roarline.artifacts.dataset import DatasetContent, DatasetFile, write_dataset
from roarline.artifacts.runs import CoveredMasks
from roarline.data.loading import ImageReader
from roarline.errors import DataError
from roarline.stages.surroundings import surroundings_of

LABELS = np.asarray([[[1, 2], [0, 255]], [[255, 255], [255, 255]], [[255, 255], [255, 255]]], dtype=np.uint8)
BOXES = np.asarray([[0, 0, 0, 0, 1, 1], [1, 1, 1, 0, 1, 1]])


def _ground_truth(path: Path, targets: list[int], **given: Any) -> list[Any]:
    """Masks of images 0, 1 and 2 of an indexed data set, asked for in the opposite order."""
    covered = CoveredMasks()
    covered.add(0, 0, np.asarray([[1, 1], [0, 0]], dtype=bool))
    content = DatasetContent(
        name="indexed", class_names=["a", "b"], multi_label=False, sample_ids=["0", "1", "2"],
        split=np.full(3, 2), labels=np.zeros(3, dtype=np.int64), mean=None, std=None, image_size=(2, 2),
        files=["a.png"] * 3, file_offset=np.full(3, -1), file_size=np.zeros(3, dtype=np.int64), file_sha256=[""] * 3,
        covered=covered, **given,
    )  # fmt: skip
    write_dataset(path, content)
    card: Any = SimpleNamespace(mean=[0.5] * 3, std=[0.5] * 3)
    with DatasetFile(path) as dataset, ImageReader(dataset, None) as reader:
        surroundings = surroundings_of(reader, card, (2, 2), torch.device("cpu"), 0, "test")
        masks = surroundings.ground_truth(["2", "1", "0"], torch.tensor(targets[::-1]))
    assert masks.dtype == torch.float32
    return masks.flip(0).int().tolist()


def test_a_covered_class_has_its_whole_mask(tmp_path: Path) -> None:
    assert _ground_truth(tmp_path / "x.h5", [0, 0, 0], segmentation=LABELS)[0] == [[1, 1], [0, 0]]
    assert _ground_truth(tmp_path / "y.h5", [1, 0, 0], segmentation=LABELS)[0] == [[0, 1], [0, 0]]


def test_boxes_stand_in_where_an_image_has_no_mask(tmp_path: Path) -> None:
    found = _ground_truth(tmp_path / "x.h5", [1, 1, 1], segmentation=LABELS, boxes=BOXES)
    assert found == [[[0, 1], [0, 0]], [[0, 1], [0, 1]], [[0, 0], [0, 0]]]


def test_boxes_alone(tmp_path: Path) -> None:
    assert _ground_truth(tmp_path / "x.h5", [0, 1, 1], boxes=BOXES) == [[[1, 1]] * 2, [[0, 1]] * 2, [[0, 0]] * 2]


def test_neither_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'indexed' has neither boxes nor segmentation"):
        _ground_truth(tmp_path / "x.h5", [0, 0, 0])
