"""Listing images in a natural order."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roarline.data.listing import list_images, natural
from roarline.errors import DataError
from tests.data.builders import write_folder, write_tar

FILES = {
    "train/b/img10.png": b"1",
    "train/b/img2.png": b"22",
    "train/a/x.JPEG": b"333",
    "classes.csv": b"index,wnid",
    "train/b/notes.txt": b"no image",
    "train/b/deep/classes.csv": b"too deep to count",
    ".hidden/y.png": b"h",
    "train/b/._img2.png": b"h",
}


def test_numbers_in_names_count_as_numbers_and_the_rest_is_left_out(tmp_path: Path) -> None:
    listing = list_images(write_folder(tmp_path / "data", FILES))
    assert [(file.path, file.size) for file in listing.files] == [
        ("train/a/x.JPEG", 3),
        ("train/b/img2.png", 2),
        ("train/b/img10.png", 1),
    ]
    assert listing.tables == {"classes.csv": b"index,wnid"}


def test_a_tar_lists_as_its_folder_whatever_the_order(tmp_path: Path) -> None:
    folder = list_images(write_folder(tmp_path / "folder", FILES))
    backwards = dict(reversed(FILES.items()))
    for name, mode in (("a.tar", "w"), ("b.tar.gz", "w:gz")):
        tar = list_images(write_tar(tmp_path / name, backwards, mode))
        assert [(file.path, file.size) for file in tar.files] == [(file.path, file.size) for file in folder.files]
        assert tar.tables == folder.tables


@given(st.lists(st.text("ab01239/.é", max_size=8), unique=True))
def test_the_natural_order_is_total(paths: list[str]) -> None:
    backwards = paths[::-1]
    assert sorted(paths, key=natural) == sorted(backwards, key=natural)


def test_a_symbolic_link_back_up_does_not_loop_but_one_aside_counts(tmp_path: Path) -> None:
    write_folder(tmp_path, {"train/a/1.png": b"1"})
    (tmp_path / "train" / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "test").symlink_to(tmp_path / "train")
    assert [file.path for file in list_images(tmp_path).files] == ["test/a/1.png", "train/a/1.png"]


def test_a_name_that_is_no_utf8_is_shown(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with open(os.fsencode(tmp_path) + b"/a/\xff.png", "wb"):  # noqa: PTH123 - a Path can't say this name
        pass
    with pytest.raises(DataError, match=r"a/\\udcff\.png': the name is not UTF-8; rename it"):
        list_images(tmp_path)


def test_a_member_that_stands_twice_is_named(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "once.tar", {"a/1.png": b"1", "./a/1.png": b"2"})
    with pytest.raises(DataError, match=r"'a/1\.png': stands twice in the tar"):
        list_images(path)


def test_a_missing_root_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: no such folder or tar; set data\.root"):
        list_images(tmp_path / "nowhere")
