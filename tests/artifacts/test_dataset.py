"""The dataset file: columns too large for memory come in chunks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roarline.artifacts.dataset import DatasetContent, DatasetFile, RowChunks, write_dataset
from roarline.artifacts.digest import content_digest
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
