"""wsolevaluation's metadata: boxes drawn on images of another size, masks, ignored regions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from roarline.artifacts.dataset import DatasetFile
from roarline.config.dataset_params import WsolParams
from roarline.data.raw import RawDataset
from roarline.data.wsol import read
from roarline.errors import DataError
from tests.data.builders import encoded, write_folder, write_tar
from tests.data.layouts import mask_png
from tests.data.preparing import prepare


def _lists(ids: list[str], labels: list[int], localization: str | None) -> dict[str, bytes]:
    files = {
        "image_ids.txt": "".join(f"{image}\n" for image in ids),
        "class_labels.txt": "".join(f"{image},{label}\n" for image, label in zip(ids, labels, strict=True)),
        "image_sizes.txt": "".join(f"{image},16,8\n" for image in ids),  # twice the size of the files
    }
    if localization is not None:
        files["localization.txt"] = localization
    return {name: content.encode() for name, content in files.items()}


TRAIN, VAL, TEST = ["train/a.jpg", "train/b.jpg"], ["val/c.jpg"], ["test/d.jpg", "test/e.jpg"]
BOXES = "test/d.jpg,2,0,9,3\ntest/d.jpg,0,0,15,7\ntest/e.jpg,4.0,4.0,16,8\n"
MASKS = "test/d.jpg,m/d0.png,m/d_ignore.png\ntest/d.jpg,m/d1.png,\ntest/e.jpg,m/e.png,\n"


def layout(localization: str, images: str = "", masks: str = "") -> dict[str, bytes]:
    """Images of 8×4 px, masks of 4×2 px."""
    splits = {
        "train": _lists(TRAIN, [0, 2], None),
        "val": _lists(VAL, [1], "val/c.jpg,0,0,7,7\n" if localization is BOXES else None),
        "test": _lists(TEST, [2, 1], localization),
    }
    files = {f"metadata/{split}/{name}": content for split, lists in splits.items() for name, content in lists.items()}
    files |= {f"{images}{name}": encoded(seed, (8, 4), "JPEG") for seed, name in enumerate([*TRAIN, *VAL, *TEST])}
    if localization is MASKS:
        files |= {
            f"{masks}m/{name}.png": mask_png(np.asarray(rows, dtype=np.uint8), "1")
            for name, rows in {
                "d0": [[1, 0, 0, 0], [0, 0, 0, 0]],
                "d1": [[0, 1, 0, 0], [0, 0, 0, 0]],
                "d_ignore": [[1, 1, 1, 1], [0, 0, 0, 0]],
                "e": [[0, 0, 0, 0], [1, 1, 1, 1]],
            }.items()
        }
    return files


def _read(root: Path, **params: str) -> RawDataset:
    raw = read(root, WsolParams.model_validate(params), 0)
    raw.check()
    return raw


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_boxes(tmp_path: Path, kind: str) -> None:
    files = layout(BOXES)
    raw = _read(write_tar(tmp_path / "x.tar", files) if kind == "tar" else write_folder(tmp_path, files))
    assert raw.sample_ids == [*TRAIN, *VAL, *TEST]
    assert raw.splits == ["train", "train", "validation", "test", "test"]
    assert raw.labels.tolist() == [0, 2, 1, 2, 1]
    assert raw.class_names == ["0", "1", "2"]
    assert raw.boxes.tolist() == [[2, 1, 0, 0, 7, 7], [3, 2, 2, 0, 9, 3], [3, 2, 0, 0, 15, 7], [4, 1, 4, 4, 16, 8]]
    assert raw.box_image_sizes.tolist() == [[8, 16]] * 5
    assert raw.segmentation is None


def test_boxes_shrink_to_the_images_that_are_there(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "raw", layout(BOXES))
    with DatasetFile(prepare(tmp_path, "wsol", root, params=WsolParams().model_dump())) as dataset:
        assert dataset.boxes.tolist() == [
            [2, 1, 0, 0, 3, 3],
            [3, 2, 1, 0, 4, 1],
            [3, 2, 0, 0, 7, 3],
            [4, 1, 2, 2, 7, 3],
        ]


def test_the_original_code_cuts_corners_to_whole_pixels(tmp_path: Path) -> None:
    """From 16 × 8 px to a square of 7: x · 7/16, y · 7/8, towards 0."""
    root = write_folder(tmp_path / "raw", layout(BOXES))
    params = WsolParams(compat="original").model_dump()
    with DatasetFile(prepare(tmp_path, "wsol", root, params=params, resize_px=7, aspect="stretch")) as dataset:
        assert dataset.boxes.tolist() == [
            [2, 1, 0, 0, 3, 6],
            [3, 2, 0, 0, 3, 2],
            [3, 2, 0, 0, 6, 6],
            [4, 1, 1, 3, 7, 7],  # a px outside, as published
        ]


def test_masks_unite_and_ignored_pixels_are_void(tmp_path: Path) -> None:
    files = layout(MASKS, "pictures/", "truth/") | {"names.txt": b"cat\ndog\nemu\n"}
    root = write_folder(tmp_path / "raw", files)
    params = {"images": "pictures", "masks": "truth", "class_names": "names.txt"}
    raw = _read(root, **params)
    assert raw.class_names == ["cat", "dog", "emu"]
    assert raw.segmentation.read(3).labels.tolist() == [[3, 3, 255, 255], [0, 0, 0, 0]]
    assert raw.segmentation.read(0) is None
    params = WsolParams.model_validate(params).model_dump()
    with DatasetFile(prepare(tmp_path, "wsol", root, params=params, pack_limit_mb=0.0001)) as dataset:
        assert not dataset.packed
        assert dataset.boxes is None
        assert dataset.segmentation([3])[0].tolist() == [[3] * 4 + [255] * 4] * 2 + [[0] * 8] * 2
        assert dataset.class_masks([4], [1])[0].tolist() == [[0] * 8] * 2 + [[1] * 8] * 2
        assert (dataset.segmentation([0, 1, 2]) == 255).all()


@pytest.mark.parametrize(
    ("localization", "change", "message"),
    [
        (
            BOXES,
            {"metadata/test/image_ids.txt": None},
            r"no metadata/test/image_ids\.txt; expected metadata/\{train,val",
        ),
        (BOXES, {"metadata/test/class_labels.txt": b"test/d.jpg,1\n"}, r"class_labels\.txt: no class of test/e\.jpg"),
        (BOXES, {"metadata/test/class_labels.txt": b"test/d.jpg,x\n"}, r"class_labels\.txt: expected numbers"),
        (BOXES, {"metadata/test/class_labels.txt": b"test/d.jpg,1\ntest/d.jpg,2\n"}, "1 images stand twice"),
        (
            BOXES,
            {"metadata/test/localization.txt": b"other.jpg,0,0,1,1\n"},
            r"image 'other\.jpg' is not in image_ids\.txt",
        ),
        (BOXES, {"metadata/test/localization.txt": b"test/d.jpg,0,0,1,x\n"}, r"test/d\.jpg: not a box"),
        (BOXES, {"metadata/test/localization.txt": b"test/d.jpg,0\n"}, r"localization\.txt:1: expected 3 fields"),
        (BOXES, {"test/d.jpg": None}, r"1 of 5 images are not there: test/d\.jpg"),
        (MASKS, {"m/d1.png": None}, r"1 of 4 masks are not there: m/d1\.png"),
    ],
)
def test_what_is_missing_or_damaged_is_named(
    tmp_path: Path, localization: str, change: dict[str, bytes | None], message: str
) -> None:
    files = {name: content for name, content in (layout(localization) | change).items() if content is not None}
    with pytest.raises(DataError, match=message):
        _read(write_folder(tmp_path, files))


@pytest.mark.parametrize(("name", "message"), [("d1", "another mask of its image has"), ("d_ignore", "its masks have")])
def test_masks_of_one_image_have_one_size(tmp_path: Path, name: str, message: str) -> None:
    files = layout(MASKS) | {f"m/{name}.png": mask_png(np.ones((3, 3), dtype=np.uint8), "1")}
    raw = _read(write_folder(tmp_path, files))
    with pytest.raises(DataError, match=message):
        raw.segmentation.read(3)


def test_too_few_names(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"names\.txt: 1 names for 3 classes"):
        _read(write_folder(tmp_path, layout(BOXES) | {"names.txt": b"cat\n"}), class_names="names.txt")
