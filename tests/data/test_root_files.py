"""Files below a root: found in folders and tars alike, read, and named where they are missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from roarline.data.root_files import RootFiles
from roarline.errors import DataError
from tests.data.builders import encoded, write_folder, write_tar

FILES = {
    "a/b/lists/x.txt": b"1 one two\n\n2 three\n",
    "a/b/images/1.png": encoded(),
    "a/.hidden/x.txt": b"",
    "a/b.md": b"",
}


def _root(tmp_path: Path, kind: str) -> RootFiles:
    if kind == "folder":
        return RootFiles(write_folder(tmp_path, FILES), "x", "lists/x.txt")
    return RootFiles(write_tar(tmp_path / "x.tar", FILES, kind), "x", "lists/x.txt")


@pytest.mark.parametrize("kind", ["folder", "w", "w:gz"])
def test_folders_and_tars_are_the_same(tmp_path: Path, kind: str) -> None:
    files = _root(tmp_path, kind)
    assert sorted(files.entries) == ["a/b/images/1.png", "a/b/lists/x.txt"]
    assert files.above("lists/", "images/") == "a/b/"
    assert files.above("a/") == ""
    assert files.fields("a/b/lists/x.txt", 2) == [["1", "one two"], ["2", "three"]]
    assert [image.path for image in files.images(["a/b/images/1.png"])] == ["a/b/images/1.png"]


@pytest.mark.parametrize("kind", ["folder", "w"])
def test_images_can_be_read(tmp_path: Path, kind: str) -> None:
    assert _root(tmp_path, kind).read("a/b/images/1.png") == FILES["a/b/images/1.png"]


def test_masks_in_a_compressed_tar_are_out_of_reach(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"1\.png can't be read on its own from a compressed tar; unpack it"):
        _root(tmp_path, "w:gz").read("a/b/images/1.png")


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    files = _root(tmp_path, "folder")
    with pytest.raises(DataError, match=r"no masks/; expected lists/x\.txt"):
        files.above("images/", "masks/")
    with pytest.raises(DataError, match=r"no a/y\.txt; expected"):
        files.read("a/y.txt")
    with pytest.raises(DataError, match=r"a/b/lists/x\.txt:3: expected 3 fields, got '2 three'"):
        files.fields("a/b/lists/x.txt", 3)
    with pytest.raises(DataError, match=r"12 of 13 images are not there: 0, 1, .*, 9 and 2 more"):
        files.images([*map(str, range(12)), "a/b/images/1.png"])
    with pytest.raises(DataError, match="no such folder or tar"):
        RootFiles(tmp_path / "nowhere", "x", "anything")
    (tmp_path / "latin.txt").write_bytes(b"\xe9")
    with pytest.raises(DataError, match=r"latin\.txt: not UTF-8 text"):
        RootFiles(tmp_path, "x", "anything").text("latin.txt")
