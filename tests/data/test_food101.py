"""Food-101 as torchvision reads it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from roarline.config.component import NoParams
from roarline.data.food101 import read
from roarline.data.raw import RawDataset
from roarline.errors import DataError
from tests.data.builders import encoded, write_folder, write_tar

TRAIN = {"waffles": ["waffles/1", "waffles/2"], "apple_pie": ["apple_pie/7"]}
TEST = {"apple_pie": ["apple_pie/8"], "waffles": ["waffles/3"]}


def layout(top: str = "food-101/") -> dict[str, bytes]:
    """Two dishes."""
    images = [image for split in (TRAIN, TEST) for listed in split.values() for image in listed]
    files = {f"{top}images/{image}.jpg": encoded(seed, (4, 4), "JPEG") for seed, image in enumerate(images)}
    files |= {
        f"{top}meta/{name}.json": json.dumps(split).encode() for name, split in (("train", TRAIN), ("test", TEST))
    }
    return files | {f"{top}meta/classes.txt": b"apple_pie\nwaffles\n"}


def _read(root: Path) -> RawDataset:
    raw = read(root, NoParams(), 0)
    raw.check()
    return raw


@pytest.mark.parametrize("kind", ["folder", "tar.gz"])
def test_the_published_layout(tmp_path: Path, kind: str) -> None:
    files = layout()
    raw = _read(write_folder(tmp_path, files) if kind == "folder" else write_tar(tmp_path / "f.tgz", files, "w:gz"))
    assert raw.sample_ids == ["apple_pie/7", "waffles/1", "waffles/2", "apple_pie/8", "waffles/3"]
    assert raw.splits == ["train"] * 3 + ["test"] * 2
    assert raw.class_names == ["apple pie", "waffles"]


def test_agrees_with_torchvision(tmp_path: Path) -> None:
    from torchvision.datasets import Food101

    raw = _read(write_folder(tmp_path, layout()))
    for split in ("train", "test"):
        theirs = Food101(tmp_path, split=split)
        expected = {
            f"{path.parent.name}/{path.stem}": label
            for path, label in zip(theirs._image_files, theirs._labels, strict=True)
        }
        ours = {
            name: label
            for name, found, label in zip(raw.sample_ids, raw.splits, raw.labels.tolist(), strict=True)
            if found == split
        }
        assert ours == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"meta/test.json": None}, r"no meta/test\.json; expected food-101/images/<class>/<id>\.jpg"),
        ({"meta/test.json": b"["}, r"test\.json: expected class to list of images"),
        ({"meta/test.json": b"[]"}, r"test\.json: expected class to list of images"),
        ({"meta/test.json": b'{"waffles": []}'}, "train.json and test.json have different classes"),
        ({"images/waffles/3.jpg": None}, r"1 of 5 images are not there: food-101/images/waffles/3\.jpg"),
    ],
)
def test_what_is_missing_or_damaged_is_named(tmp_path: Path, change: dict[str, bytes | None], message: str) -> None:
    files = layout() | {f"food-101/{name}": content for name, content in change.items()}
    with pytest.raises(DataError, match=message):
        _read(write_folder(tmp_path, {name: content for name, content in files.items() if content is not None}))
