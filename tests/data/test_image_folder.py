"""Folders of class folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from roarline.config.dataset_params import ImageFolderParams
from roarline.data.image_folder import read
from roarline.data.raw import RawDataset
from roarline.errors import DataError
from tests.conftest import REPOSITORY
from tests.data.builders import tree, write_folder, write_tar

TINY = REPOSITORY.parent / "shared" / "data" / "tiny-imagenet-20.tar.xz"


def _read(root: Path, boxes: str | None = None) -> RawDataset:
    raw = read(root, ImageFolderParams(boxes=boxes), 0)
    raw.check()
    return raw


def test_classes_are_alphabetical_and_ids_are_paths(tmp_path: Path) -> None:
    raw = _read(write_folder(tmp_path, dict(reversed(tree(("train", "val", "test"), ("dog", "cat"), 11).items()))))
    assert raw.class_names == ["cat", "dog"]
    assert list(dict.fromkeys(raw.splits)) == ["train", "validation", "test"]
    for sample_id, split, label in zip(raw.sample_ids, raw.splits, raw.labels, strict=True):
        folder, name, _ = sample_id.split("/")
        assert (folder, name) == ("val" if split == "validation" else split, raw.class_names[int(label)])
    assert raw.sample_ids[:11] == [f"train/cat/{number}.png" for number in range(11)]


@pytest.mark.parametrize("name", ["plain.tar", "packed.tar.gz"])
@pytest.mark.parametrize("top", ["", "./", "my-data/"])
def test_a_tar_or_a_folder_around_it_is_the_same_data_set(tmp_path: Path, name: str, top: str) -> None:
    files = tree()
    folder = _read(write_folder(tmp_path / "folder", files))
    mode = "w:gz" if name.endswith("gz") else "w"
    tar = _read(write_tar(tmp_path / name, {f"{top}{path}": content for path, content in files.items()}, mode))
    assert tar.sample_ids == folder.sample_ids
    assert tar.splits == folder.splits
    assert tar.labels.tolist() == folder.labels.tolist()


def test_class_folders_may_have_folders_in_them(tmp_path: Path) -> None:
    write_folder(tmp_path, {"train/a/images/1.png": b"", "test/a/2.png": b"", "README.txt": b"", "extra/3.png": b""})
    assert _read(tmp_path).sample_ids == ["train/a/images/1.png", "test/a/2.png"]


def test_without_test_the_val_folder_is_the_test_split(tmp_path: Path) -> None:
    assert set(_read(write_folder(tmp_path, tree(("train", "val")))).splits) == {"train", "test"}


def test_a_test_folder_alone_can_test_a_classifier(tmp_path: Path) -> None:
    assert set(_read(write_folder(tmp_path, tree(("test",)))).splits) == {"test"}


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (("train",), "no test folder .*expected train/<class>/<image>.*found images in train"),
        (("training", "testing"), "no test folder .*; found images in testing, training"),
        (("Train", "test"), "no train folder; .*; found images in test, Train"),
        (("train", "val", "validation"), "both val and validation"),
    ],
)
def test_another_layout_is_said_with_what_was_expected_and_found(
    tmp_path: Path, folders: tuple[str, ...], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        _read(write_folder(tmp_path, tree(folders, count=1)))


def test_an_empty_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no test folder .*found images in no folder"):
        _read(tmp_path)


def test_classes_that_differ_between_splits_are_named(tmp_path: Path) -> None:
    write_folder(tmp_path, {**tree(count=1), "train/emu/1.png": b"", "test/fox/1.png": b""})
    with pytest.raises(DataError, match="different classes: no image in test/emu, train/fox; every class needs"):
        _read(tmp_path)


def test_images_outside_class_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"1 images lie in no class folder: train/loose\.png"):
        _read(write_folder(tmp_path, {**tree(count=1), "train/loose.png": b""}))


def test_a_missing_root_setting_is_said() -> None:
    with pytest.raises(DataError, match=r"set data\.root to a folder or tar with train/<class>/<image>"):
        read(None, ImageFolderParams(), 0)


@pytest.mark.parametrize(
    "table",
    [
        "split,file,x0,y0,x1,y1\ntest,dog/0.png,1,2,3,4\ntrain,cat/1.png,0,0,7,7\n",
        "file,x0,y0,x1,y1,difficult\ntest/dog/0.png,1,2,3,4,0\ntrain/cat/1.png,0,0,7,7,\n",
    ],
)
@pytest.mark.parametrize(("name", "mode"), [("", ""), ("x.tar", "w"), ("x.tar.xz", "w:xz")])
def test_a_table_of_boxes_beside_the_folders(tmp_path: Path, table: str, name: str, mode: str) -> None:
    files = {**tree(), "boxes.csv": table.encode()}
    raw = _read(write_tar(tmp_path / name, files, mode) if name else write_folder(tmp_path, files), "boxes.csv")
    test, train = raw.sample_ids.index("test/dog/0.png"), raw.sample_ids.index("train/cat/1.png")
    assert raw.boxes.tolist() == [[test, 1, 1, 2, 3, 4], [train, 0, 0, 0, 7, 7]]
    assert _read(tmp_path / name).boxes is None


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (None, r"no boxes\.csv; expected a table of boxes, boxes\.csv"),
        ("file,x0,y0,x1,y1\ntest/emu/0.png,1,2,3,4\n", r"1 lines name images that are not there: test/emu/0\.png"),
        ("file,x0,y0\n", r"boxes\.csv: expected columns file,x0,y0,x1,y1"),
    ],
)
def test_a_wrong_table_of_boxes_is_named(tmp_path: Path, table: str | None, message: str) -> None:
    files = tree() if table is None else {**tree(), "boxes.csv": table.encode()}
    with pytest.raises(DataError, match=message):
        _read(write_folder(tmp_path, files), "boxes.csv")


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.skipif(not TINY.exists(), reason="needs ../shared/data/tiny-imagenet-20.tar.xz")
def test_real_boxes() -> None:
    raw = _read(TINY, "boxes.csv")
    assert len(raw) == len(raw.boxes) == 11_000
    assert sorted(raw.boxes[:, 0].tolist()) == list(range(11_000))
    assert (raw.labels[raw.boxes[:, 0]] == raw.boxes[:, 1]).all()
    assert raw.boxes[:, 2:].max() == 63


def test_a_class_folder_without_images_is_named(tmp_path: Path) -> None:
    write_folder(tmp_path, tree(("train", "test")))
    for split in ("train", "test"):
        (tmp_path / split / "zebra").mkdir()
    (tmp_path / "train" / ".cache").mkdir()
    with pytest.raises(DataError, match="without an image: test/zebra, train/zebra; fill them or delete them"):
        read(tmp_path, ImageFolderParams(), 0)
