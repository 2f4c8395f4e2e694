"""Streams of pixels, and what can be wrong with images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from roarline.config.dataset_params import ImageFolderParams
from roarline.data.decoding import decode, to_array
from roarline.data.image_folder import read
from roarline.data.pixels import PixelStream
from roarline.data.raw import RawDataset
from roarline.errors import DataError
from tests.data.builders import encoded, tree, write_folder, write_tar


def _images(raw: RawDataset, root: Path | None, rows: np.ndarray, **settings: int) -> dict[int, np.ndarray]:
    found: dict[int, np.ndarray] = {}
    for batch in PixelStream(raw, root, **settings).batches(rows):
        for row, pixels in zip(batch.rows.tolist(), batch.pixels, strict=True):
            assert row not in found
            found[row] = pixels
    return found


@pytest.mark.parametrize("kind", ["folder", "w", "w:gz", "w:xz"])
@pytest.mark.parametrize("threads", [1, 3])
def test_every_source_gives_the_pixels_that_were_asked_for(tmp_path: Path, kind: str, threads: int) -> None:
    files = tree(count=20)
    root = write_folder(tmp_path / "x", files) if kind == "folder" else write_tar(tmp_path / "x.tar", files, kind)
    raw = read(root, ImageFolderParams(), 0)
    rows = np.asarray([3, 4, 41, 70, 79])
    found = _images(raw, root, rows, threads=threads)
    assert sorted(found) == rows.tolist()
    for row, pixels in found.items():
        assert np.array_equal(pixels, to_array(decode(files[raw.sample_ids[row]], "x")))


def test_arrays_are_resized_and_cropped_too() -> None:
    raw = RawDataset("mine", ["a"], ["x"], ["test"], np.zeros(1), images=np.full((1, 1, 4, 6), 7, dtype=np.uint8))
    pixels = _images(raw, None, np.asarray([0]), resize_px=8, crop_px=8)[0]
    assert pixels.shape == (1, 8, 8)
    assert (pixels == 7).all()


def test_arrays_of_floats_are_refused() -> None:
    raw = RawDataset("mine", ["a"], ["x"], ["test"], np.zeros(1), images=np.zeros((1, 1, 4, 6)))
    with pytest.raises(DataError, match="images: expected uint8, got float64"):
        _images(raw, None, np.asarray([0]))


def test_every_unusable_image_is_named_in_one_go(tmp_path: Path) -> None:
    files = tree(count=4)
    files["train/cat/1.png"] = files["train/cat/1.png"][:60]
    files["train/dog/2.png"] = b""
    root = write_folder(tmp_path, files)
    raw = read(root, ImageFolderParams(), 0)
    (root / "test/cat/0.png").unlink()
    with pytest.raises(DataError) as caught:
        _images(raw, root, np.arange(len(raw)))
    lines = str(caught.value).splitlines()
    assert lines[0] == "data set 'image_folder': 3 of 16 images can't be used:"
    assert f"{root}/train/cat/1.png: damaged or truncated" in lines[1]
    assert f"{root}/train/dog/2.png: no readable image (0 bytes)" in lines[2]
    assert lines[3] == f"  {root}/test/cat/0.png: can't be read (No such file or directory)"


def test_after_ten_unusable_images_it_stops(tmp_path: Path) -> None:
    root = write_tar(tmp_path / "x.tar", dict.fromkeys(tree(count=8), b"no image"))
    with pytest.raises(DataError, match="10 images can't be used; perhaps there are more") as caught:
        _images(read(root, ImageFolderParams(), 0), root, np.arange(32))
    assert len(str(caught.value).splitlines()) == 11


def test_images_of_two_sizes_say_what_to_set(tmp_path: Path) -> None:
    root = write_folder(tmp_path, {**tree(count=2), "test/dog/9.png": encoded(0, (9, 8))})
    raw = read(root, ImageFolderParams(), 0)
    with pytest.raises(
        DataError, match=r"9\.png: 9×8 px, where others have 8×8; set data\.resize_px and data\.crop_px"
    ):
        _images(raw, root, np.arange(len(raw)))
    assert len(_images(raw, root, np.arange(len(raw)), resize_px=8, crop_px=8)) == len(raw)


def test_a_member_that_went_missing_is_named(tmp_path: Path) -> None:
    files = tree(count=2)
    root = write_tar(tmp_path / "x.tar.gz", files, "w:gz")
    raw = read(root, ImageFolderParams(), 0)
    del files["train/dog/1.png"]
    write_tar(root, files, "w:gz")
    with pytest.raises(DataError, match=r"x\.tar\.gz:train/dog/1\.png: no longer there"):
        _images(raw, root, np.arange(len(raw)))
