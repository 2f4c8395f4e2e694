"""ImageNet: classes keep their usual numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from roarline.config.dataset_params import ImageFolderParams, ImageNetParams
from roarline.data.image_folder import read as read_image_folder
from roarline.data.imagenet import read
from roarline.data.raw import RawDataset
from roarline.errors import DataError
from tests.conftest import REPOSITORY
from tests.data.builders import write_folder, write_tar

SAMPLES = REPOSITORY.parent / "shared" / "data" / "imagenet-samples.tar"
TABLE = b"index,wnid,name\n2,n03,crane\n0,n01,crane\n1,n02,fish\n"
FILES = {"val/n03/a.jpg": b"", "val/n01/b.jpg": b"", "train/n02/c.jpg": b"", "test/d.jpg": b"unlabelled, not looked at"}


def _read(root: Path) -> RawDataset:
    raw = read(root, ImageNetParams(), 0)
    raw.check()
    return raw


@pytest.mark.parametrize("top", ["", "ILSVRC2012/"])
@pytest.mark.parametrize("as_tar", [False, True])
def test_a_table_gives_the_numbers(tmp_path: Path, top: str, as_tar: bool) -> None:
    files = {f"{top}{path}": content for path, content in {**FILES, "classes.csv": TABLE}.items()}
    raw = _read(write_tar(tmp_path / "x.tar.gz", files, "w:gz") if as_tar else write_folder(tmp_path, files))
    assert raw.sample_ids == ["train/n02/c.jpg", "val/n01/b.jpg", "val/n03/a.jpg"]
    assert raw.labels.tolist() == [1, 0, 2]
    assert raw.splits == ["train", "test", "test"]
    assert raw.class_names == ["crane (n01)", "fish", "crane (n03)"]


def test_a_synset_mapping_counts_its_lines(tmp_path: Path) -> None:
    mapping = b"n01 tench, Tinca tinca\nn02 goldfish\nn03 great white shark, white shark\n"
    raw = _read(write_folder(tmp_path, {**FILES, "LOC_synset_mapping.txt": mapping}))
    assert raw.labels.tolist() == [1, 0, 2]
    assert raw.class_names == ["tench", "goldfish", "great white shark"]


def test_without_a_table_all_thousand_folders_are_in_the_usual_order(tmp_path: Path) -> None:
    raw = _read(write_tar(tmp_path / "val.tar", {f"val/n{number:08d}/x.jpg": b"" for number in range(999, -1, -1)}))
    assert raw.class_names == [f"n{number:08d}" for number in range(1000)]
    assert raw.labels.tolist() == list(range(1000))


def test_without_a_table_fewer_folders_have_no_known_numbers(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"3 wnid folders and no table .* put a classes\.csv"):
        _read(write_folder(tmp_path, FILES))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (b"wnid,name\nn01,x\n", r"classes\.csv: expected columns index,wnid and perhaps name, got wnid,name"),
        (b"index,wnid\nzero,n01\n", r"classes\.csv:2: expected index,wnid,name"),
        (b"index,wnid\n0,n01\n0,n02\n1,n03\n", "expected each index from 0 to 2 and each wnid once"),
        (b"index,wnid\n0,n01\n", "has no line for 2 of the folders: n02, n03"),
        (b"\xff\xfe", "not UTF-8 text"),
    ],
)
def test_a_wrong_table_is_named(tmp_path: Path, table: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        _read(write_folder(tmp_path, {**FILES, "classes.csv": table}))


def test_a_missing_val_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no val folder; expected val/<wnid>/<image>.*found images in train"):
        _read(write_folder(tmp_path, {"train/n02/c.jpg": b"", "classes.csv": TABLE}))


@pytest.mark.data
@pytest.mark.skipif(not SAMPLES.exists(), reason="needs ../shared/data/imagenet-samples.tar")
def test_the_sample_images_keep_their_numbers_among_the_thousand() -> None:
    raw = _read(SAMPLES)
    assert len(raw.class_names) == 1000
    assert (
        dict(zip(raw.sample_ids, raw.labels.tolist(), strict=True))["val/n01484850/n01484850_great_white_shark.jpg"]
        == 2
    )
    assert len(set(raw.labels.tolist())) == 500
    assert set(read_image_folder(SAMPLES, ImageFolderParams(), 0).labels.tolist()) == set(range(500))
