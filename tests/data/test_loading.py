"""Reading a data set's images, packed or from its files."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.transforms import functional

from roarline.artifacts.dataset import DatasetFile
from roarline.data.loading import ImageReader, normalise
from roarline.errors import DataError
from tests.data.builders import tree, write_folder, write_tar
from tests.data.preparing import prepare

Opener = Callable[[str], ImageReader]


@pytest.fixture
def opened(tmp_path: Path) -> Opener:
    """Opens the same 24 images, packed, or indexed in a folder or in a plain tar."""
    files = tree(count=6, size_px=(12, 9))
    folder, tar = write_folder(tmp_path / "folder", files), write_tar(tmp_path / "data.tar", files)

    def open_reader(kind: str, threads: int = 2) -> ImageReader:
        root = tar if kind == "tar" else folder
        limit = {} if kind == "packed" else {"pack_limit_mb": 0}
        path = prepare(tmp_path / f"artifact {kind}", "image_folder", root, resize_px=8, crop_px=8, **limit)
        dataset = DatasetFile(path)
        assert dataset.packed == (kind == "packed")
        return ImageReader(dataset, None if kind == "packed" else root, threads)

    return open_reader


@pytest.mark.parametrize("kind", ["packed", "folder", "tar"])
@pytest.mark.parametrize("batch_size", [1, 5, 24, 100])
def test_batches_are_single_reads_in_the_order_asked_for(opened: Opener, kind: str, batch_size: int) -> None:
    order = np.random.default_rng(0).permutation(24)
    with opened(kind) as reader:
        batches = list(reader.batches(order, batch_size))
        assert np.concatenate([rows for rows, _ in batches]).tolist() == order.tolist()
        assert {len(rows) for rows, _ in batches[:-1]} <= {batch_size}
        together = torch.cat([pixels for _, pixels in batches])
        assert together.dtype == torch.uint8
        assert torch.equal(together, torch.cat([reader.read([row]) for row in order]))


def test_packed_and_indexed_images_are_the_same(opened: Opener) -> None:
    with opened("packed") as packed, opened("folder") as folder, opened("tar") as tar:
        rows = np.arange(24)
        assert packed.dataset.sample_ids == folder.dataset.sample_ids == tar.dataset.sample_ids
        assert torch.equal(packed.read(rows), folder.read(rows))
        assert torch.equal(packed.read(rows), tar.read(rows))
        assert folder.dataset.image_size == packed.dataset.image_size == (8, 8)
        assert np.array_equal(folder.dataset.mean, packed.dataset.mean)


def test_stretched_images_are_the_same_packed_and_indexed(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "folder", tree(count=2, size_px=(12, 9)))
    found = []
    for kind, limit in (("packed", {}), ("indexed", {"pack_limit_mb": 0})):
        path = prepare(tmp_path / kind, "image_folder", root, resize_px=8, aspect="stretch", **limit)
        with ImageReader(DatasetFile(path), None if kind == "packed" else root, 1) as reader:
            assert reader.dataset.packed == (kind == "packed")
            found.append(reader.read(np.arange(len(reader.dataset.sample_ids))))
    assert found[0].shape[1:] == (3, 8, 8)
    assert torch.equal(*found)


@pytest.mark.parametrize("kind", ["packed", "folder", "tar"])
def test_no_rows_give_an_empty_tensor(opened: Opener, kind: str) -> None:
    with opened(kind) as reader:
        assert reader.read([]).shape == (0, 3, 8, 8)
        assert list(reader.batches([], 4)) == []


def test_a_file_that_changed_after_prepare_data_is_named(opened: Opener, tmp_path: Path) -> None:
    with opened("folder") as reader:
        path = tmp_path / "folder" / "test" / "cat" / "3.png"
        content = path.read_bytes()
        row = reader.dataset.sample_ids.index("test/cat/3.png")
        for changed in (content[:50], content[:-1] + b"x"):
            path.write_bytes(changed)
            with pytest.raises(DataError, match=r"test/cat/3\.png: changed since prepare-data"):
                reader.read([0, row])
            with pytest.raises(DataError, match=r"test/cat/3\.png: changed since prepare-data"):
                list(reader.batches(np.arange(24), 4))
        path.unlink()
        with pytest.raises(
            DataError, match=r"test/cat/3\.png: can't be read \(No such file or directory\); is data\.root"
        ):
            reader.read([row])


def test_a_tar_that_went_away_is_named(opened: Opener, tmp_path: Path) -> None:
    with opened("tar") as reader:
        (tmp_path / "data.tar").unlink()
        with pytest.raises(DataError, match=r"data\.tar: can't be read \(No such file"):
            reader.read([0])


def test_an_index_needs_the_root(opened: Opener) -> None:
    with (
        opened("folder") as reader,
        ImageReader(reader.dataset, None) as rootless,
        pytest.raises(DataError, match=r"is an index of files: set data\.root"),
    ):
        rootless.read([0])


@pytest.mark.parametrize("kind", ["packed", "folder"])
def test_a_consumer_that_stops_early_leaves_no_thread(opened: Opener, kind: str) -> None:
    before = threading.active_count()
    with opened(kind) as reader:
        batches = reader.batches(np.arange(24), 2)
        next(batches)
        batches.close()
    reader.dataset.close()
    assert threading.active_count() == before


@pytest.mark.parametrize("kind", ["packed", "folder"])
def test_the_next_batch_is_read_while_one_is_at_work(
    opened: Opener, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoding is off the main thread: the consumer holds the first batch, and the second one comes without it."""
    read, ready = [], threading.Event()
    reader = opened(kind)
    plain = reader.read

    def watched(rows: np.ndarray) -> torch.Tensor:
        pixels = plain(rows)
        read.append(threading.current_thread().name)
        if len(read) == 2:
            ready.set()
        return pixels

    monkeypatch.setattr(reader, "read", watched)
    with reader:
        batches = reader.batches(range(12), 4)
        next(batches)
        assert ready.wait(20)
        assert len(list(batches)) == 2
    assert all(name.startswith("read-ahead") for name in read)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("statistics", [1, 3])
def test_normalise_is_torchvisions_with_grey_repeated(channels: int, statistics: int) -> None:
    pixels = torch.randint(0, 256, (4, channels, 5, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, std = [0.4, 0.5, 0.6][:statistics], [0.2, 0.3, 0.25][:statistics]
    kept = pixels.clone()
    inputs = normalise(pixels, mean, np.asarray(std))
    three = [values * (3 // statistics) for values in (mean, std)]
    expected = functional.normalize(pixels.repeat(1, 3 // channels, 1, 1).float() / 255, *three)
    assert inputs.dtype == torch.float32
    assert inputs.shape == (4, 3, 5, 6)
    assert torch.allclose(inputs, expected, rtol=0, atol=1e-6)
    assert torch.equal(pixels, kept)


def test_normalise_says_what_it_can_take() -> None:
    with pytest.raises(DataError, match=r"normalise: expected pixels \[B, 1 or 3, H, W\].*got \[1, 2, 4, 4\], 1 and 1"):
        normalise(torch.zeros((1, 2, 4, 4), dtype=torch.uint8), [0.5], [0.5])
