"""Fingerprints: equal for equal data wherever it lies, another for another, None for none."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import sklearn

from roarline.config.component import load_object
from roarline.config.datasets import DATASETS
from roarline.data import fingerprint
from tests.data.builders import tree, write_folder, write_tar


def test_none_of_them_imports_torch_or_scikit_learn() -> None:
    calls = "; ".join(
        f"fingerprint.{name}('.', {{}})"
        for name in ("digits", "drawn", "folder_or_tar", "annotated", "coco", "cifar10", "imagenet")
    )
    code = (
        f"import sys; from roarline.data import fingerprint; {calls}; print({{'torch', 'sklearn'}} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_that_of_digits_is_the_hash_of_scikit_learns_file() -> None:
    path = Path(sklearn.__file__).parent / "datasets" / "data" / "digits.csv.gz"
    assert fingerprint.digits(None, {}) == f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def test_a_folders_says_paths_and_sizes_but_neither_place_time_nor_order(tmp_path: Path) -> None:
    files = tree(count=2)
    one = write_folder(tmp_path / "one", files)
    two = write_folder(tmp_path / "two", dict(reversed(files.items())))
    os.utime(two / "train/cat/0.png", (1, 1))
    (two / "notes.txt").write_text("not an image")
    said = fingerprint.folder_or_tar(str(one), {})
    assert said is not None
    assert fingerprint.folder_or_tar(str(two), {}) == said
    (two / "train/cat/0.png").write_bytes(b"shorter")
    assert fingerprint.folder_or_tar(str(two), {}) != said
    (one / "train/cat/0.png").rename(one / "train/cat/00.png")
    assert fingerprint.folder_or_tar(str(one), {}) != said


def test_a_class_table_counts_by_content(tmp_path: Path) -> None:
    write_folder(tmp_path, {**tree(count=1), "classes.csv": b"index,wnid\n0,n01\n"})
    before = fingerprint.imagenet(str(tmp_path), {})
    (tmp_path / "classes.csv").write_bytes(b"index,wnid\n1,n01\n")
    assert fingerprint.imagenet(str(tmp_path), {}) != before


def test_a_tars_is_its_hash(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", tree(count=1))
    assert fingerprint.folder_or_tar(str(path), {}) == f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def test_cifars_needs_all_files_or_the_archive(tmp_path: Path) -> None:
    names = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin", "batches.meta.txt"]
    write_folder(tmp_path, {f"cifar-10-batches-bin/{name}": name.encode() for name in names[:-1]})
    assert fingerprint.cifar10(str(tmp_path), {}) is None
    (tmp_path / "cifar-10-batches-bin" / names[-1]).write_bytes(b"names")
    before = fingerprint.cifar10(str(tmp_path), {})
    assert before is not None
    (tmp_path / "cifar-10-batches-bin" / names[0]).write_bytes(b"changed")
    assert fingerprint.cifar10(str(tmp_path), {}) not in (None, before)
    assert fingerprint.cifar100(str(tmp_path), {}) is None
    (tmp_path / "cifar-100-python.tar.gz").write_bytes(b"x")
    assert fingerprint.cifar100(str(tmp_path), {}) == f"sha256:{hashlib.sha256(b'x').hexdigest()}"


@pytest.mark.parametrize("name", [name for name, component in DATASETS.items() if not component.embedded])
def test_missing_data_has_none(tmp_path: Path, name: str) -> None:
    function = load_object(DATASETS[name].fingerprint)
    assert function(None, {}) is None
    assert function(str(tmp_path / "nowhere"), {}) is None
    (tmp_path / "README.md").write_text("images go here")
    assert function(str(tmp_path), {}) is None


def test_annotations_count_by_content_also_where_images_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "_READ_FILES", 3)
    write_folder(tmp_path, {**tree(count=1), "Annotations/a.xml": b"<a>1</a>", "ImageSets/a.txt": b"a"})
    before = fingerprint.annotated(str(tmp_path), {})
    assert before is not None
    assert before.startswith("listing:")
    (tmp_path / "Annotations/a.xml").write_bytes(b"<a>2</a>")
    changed = fingerprint.annotated(str(tmp_path), {})
    assert changed != before
    (tmp_path / "notes.md").write_bytes(b"not looked at")
    assert fingerprint.annotated(str(tmp_path), {}) == changed


def test_boxes_count_where_they_are_used(tmp_path: Path) -> None:
    write_folder(tmp_path, {**tree(count=1), "boxes.csv": b"1", "XMLs/val/a.xml": b"1"})
    plain, table, folder = (
        fingerprint.folder_or_tar(str(tmp_path), {"boxes": boxes}) for boxes in (None, "boxes.csv", "XMLs/val")
    )
    assert len({plain, table, folder}) == 3
    assert plain == fingerprint.folder_or_tar(str(tmp_path), {})
    write_folder(tmp_path, {"boxes.csv": b"2", "XMLs/val/a.xml": b"2"})
    assert fingerprint.folder_or_tar(str(tmp_path), {"boxes": None}) == plain
    assert fingerprint.folder_or_tar(str(tmp_path), {"boxes": "boxes.csv"}) != table
    assert fingerprint.imagenet(str(tmp_path), {"boxes": "XMLs/val"}) != folder


def test_of_coco_only_the_annotations_that_are_read_count(tmp_path: Path) -> None:
    files = {
        "val2017/1.jpg": b"1",
        "annotations/instances_val2017.json": b"{}",
        "annotations/captions_val2017.json": b"{}",
    }
    write_folder(tmp_path, files)
    before = fingerprint.coco(str(tmp_path), {"year": "2017"})
    (tmp_path / "annotations/captions_val2017.json").write_bytes(b"[]")
    assert fingerprint.coco(str(tmp_path), {"year": "2017"}) == before
    (tmp_path / "annotations/instances_val2017.json").write_bytes(b"[]")
    assert fingerprint.coco(str(tmp_path), {"year": "2017"}) != before
