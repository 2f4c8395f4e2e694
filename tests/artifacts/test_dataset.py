"""The dataset file: columns too large for memory come in chunks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roarline.artifacts.dataset import DatasetContent, DatasetFile, RowChunks, write_dataset
from roarline.artifacts.digest import content_digest
from roarline.artifacts.runs import CoveredMasks
from roarline.errors import ArtifactError


def _content(count: int, images: np.ndarray | RowChunks) -> DatasetContent:
    return DatasetContent(
        name="x",
        class_names=["a"],
        multi_label=False,
        sample_ids=[f"{row}" for row in range(count)],
        split=np.zeros(count, dtype=np.uint8),
        labels=np.zeros(count, dtype=np.int64),
        mean=None,
        std=None,
        images=images,
    )


@settings(max_examples=15)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=5))
def test_chunks_make_the_same_file_as_an_array(tmp_path_factory, sizes: list[int]) -> None:
    folder, count = tmp_path_factory.mktemp("chunks"), sum(sizes)
    images = np.random.default_rng(count).integers(0, 256, (count, 3, 2, 4), dtype=np.uint8)
    write_dataset(folder / "array.h5", _content(count, images))
    chunks = np.split(images, np.cumsum(sizes)[:-1])
    write_dataset(folder / "chunks.h5", _content(count, RowChunks(images.shape, iter(chunks))))
    assert content_digest(folder / "array.h5") == content_digest(folder / "chunks.h5")
    with DatasetFile(folder / "chunks.h5") as dataset:
        assert dataset.image_size == (2, 4)
        assert np.array_equal(dataset.pixels(range(count)), images)


def test_missing_rows_leave_no_file(tmp_path: Path) -> None:
    chunks = RowChunks((3, 1, 2, 2), [np.zeros((2, 1, 2, 2), dtype=np.uint8)])
    with pytest.raises(ArtifactError, match="images: got 2 rows, expected 3"):
        write_dataset(tmp_path / "dataset.h5", _content(3, chunks))
    assert not list(tmp_path.iterdir())


def test_the_size_of_indexed_images_is_kept(tmp_path: Path) -> None:
    content = _content(1, np.zeros((1, 1, 2, 2), dtype=np.uint8))
    content.images, content.image_size = None, (224, 200)
    content.files, content.file_sha256 = ["a.png"], ["0" * 64]
    content.file_offset, content.file_size = np.asarray([-1]), np.asarray([10])
    write_dataset(tmp_path / "dataset.h5", content)
    with DatasetFile(tmp_path / "dataset.h5") as dataset:
        assert not dataset.packed
        assert dataset.image_size == (224, 200)
        assert dataset.file_entries([0]) == [("a.png", -1, 10, "0" * 64)]


def _with_masks(path: Path, **ground_truth: Any) -> DatasetFile:
    content = _content(3, np.zeros((3, 1, 2, 4), dtype=np.uint8))
    for name, value in ground_truth.items():
        setattr(content, name, value)
    write_dataset(path, content)
    return DatasetFile(path)


LABELS = np.asarray(
    [[[0, 1, 2, 2], [0, 1, 1, 255]], [[255, 255, 255, 255]] * 2, [[0, 0, 0, 0], [3, 3, 0, 0]]], dtype=np.uint8
)


@pytest.mark.parametrize("rows", [[0, 1, 2], [2, 0], [1, 1, 0], [0], []])
def test_masks_come_in_the_order_asked_for(tmp_path: Path, rows: list[int]) -> None:
    with _with_masks(tmp_path / "x.h5", segmentation=LABELS) as dataset:
        assert dataset.segmented
        assert np.array_equal(dataset.segmentation(rows), LABELS[rows])


def test_the_whole_mask_of_a_class_that_another_one_covers(tmp_path: Path) -> None:
    covered = CoveredMasks()
    covered.add(0, 0, np.asarray([[0, 1, 1, 0], [0, 1, 1, 1]], dtype=bool))
    with _with_masks(tmp_path / "x.h5", segmentation=LABELS, covered=covered) as dataset:
        masks = dataset.class_masks([0, 2, 0, 1], [0, 2, 1, 0])
    assert masks.tolist() == [
        [[0, 1, 1, 0], [0, 1, 1, 1]],  # also where class 1 lies on it, and where the label is void
        [[0, 0, 0, 0], [1, 1, 0, 0]],
        [[0, 0, 1, 1], [0, 0, 0, 255]],
        [[255] * 4] * 2,
    ]


def test_boxes_may_be_difficult(tmp_path: Path) -> None:
    boxes = np.asarray([[0, 0, 0, 0, 1, 1], [2, 0, 1, 0, 3, 1]])
    with _with_masks(tmp_path / "none.h5", boxes=boxes, box_difficult=np.zeros(2, dtype=bool)) as dataset:
        assert dataset.box_difficult.tolist() == [False, False]
        assert "box_difficult" not in h5py.File(tmp_path / "none.h5")
    with _with_masks(tmp_path / "one.h5", boxes=boxes, box_difficult=np.asarray([False, True])) as dataset:
        assert dataset.box_difficult.tolist() == [False, True]


def test_without_ground_truth_there_is_none(tmp_path: Path) -> None:
    with _with_masks(tmp_path / "x.h5") as dataset:
        assert (dataset.boxes, dataset.box_difficult, dataset.segmentation([0])) == (None, None, None)
        assert dataset.class_masks([0], [0]) is None
        assert not dataset.segmented
