"""Class folders with lists of splits: Birdsnap's."""

from __future__ import annotations

from pathlib import Path

import pytest

from roarline.config.dataset_params import ListedFolderParams
from roarline.data.listed_folder import read
from roarline.data.raw import RawDataset
from roarline.errors import DataError
from tests.data.builders import encoded, write_folder

TABLE = (
    "url\tmd5\tpath\tspecies_id\tbb_x1\tbb_y1\tbb_x2\tbb_y2\tback_x\tback_y\n"
    "u\tm\tBlue_Jay/1.jpg\t2\t0\t1\t2\t3\t1\t1\n"
    "u\tm\tAcorn_Woodpecker/9.jpg\t1\t1\t1\t2\t2\t\t\n"
    "u\tm\tBlue_Jay/gone.jpg\t2\t0\t1\t2\t3\t\t\n"
)


def layout() -> dict[str, bytes]:
    """Birdsnap's files: the first line of the list of test images is a headline."""
    names = ["Blue_Jay/1.jpg", "Blue_Jay/2.jpg", "Blue_Jay/10.jpg", "Acorn_Woodpecker/9.jpg", "Acorn_Woodpecker/8.jpg"]
    files = {f"images/{name}": encoded(seed, (4, 4), "JPEG") for seed, name in enumerate(names)}
    files["test_images.txt"] = b"path\nBlue_Jay/1.jpg\nAcorn_Woodpecker/9.jpg\n"
    files["images.txt"] = TABLE.encode()
    files["species.txt"] = b"id\tcommon\tscientific\tdir\n"
    return files


def _read(root: Path, **params: str) -> RawDataset:
    raw = read(root, ListedFolderParams.model_validate(params), 0)
    raw.check()
    return raw


def test_birdsnap(tmp_path: Path) -> None:
    raw = _read(write_folder(tmp_path, layout()), boxes="images.txt")
    assert raw.sample_ids == [
        "Acorn_Woodpecker/8.jpg", "Blue_Jay/2.jpg", "Blue_Jay/10.jpg", "Acorn_Woodpecker/9.jpg", "Blue_Jay/1.jpg",
    ]  # fmt: skip
    assert raw.splits == ["train"] * 3 + ["test"] * 2
    assert raw.class_names == ["Acorn_Woodpecker", "Blue_Jay"]
    assert raw.labels.tolist() == [0, 1, 1, 0, 1]
    assert raw.boxes.tolist() == [[4, 1, 0, 1, 2, 3], [3, 0, 1, 1, 2, 2]]  # nothing of the image that is gone


def test_lists_of_every_split(tmp_path: Path) -> None:
    files = layout() | {"train.txt": b"Blue_Jay/2.jpg\nAcorn_Woodpecker/8.jpg\n", "val.txt": b"Blue_Jay/10.jpg\n"}
    raw = _read(write_folder(tmp_path, files), train="train.txt", validation="val.txt")
    assert raw.splits == ["train", "train", "validation", "test", "test"]
    assert raw.boxes is None
    assert len(_read(tmp_path, train="train.txt")) == 4  # images that no list names are left out


def test_images_may_lie_at_the_root(tmp_path: Path) -> None:
    files = {name.removeprefix("images/"): content for name, content in layout().items()}
    assert len(_read(write_folder(tmp_path, files), images="")) == 5


@pytest.mark.parametrize(
    ("change", "params", "message"),
    [
        ({"test_images.txt": None}, {}, r"no test_images\.txt; expected images/<class>/<image> and test_images\.txt"),
        (
            {"test_images.txt": b"Blue_Jay/3.jpg\n"},
            {},
            r"1 of 1 images of the test list are not there: .*Blue_Jay/3\.jpg",
        ),
        ({"images/loose.jpg": b""}, {}, r"1 images lie in no class folder: images/loose\.jpg"),
        (
            {"test_images.txt": b"Blue_Jay/1.jpg\nBlue_Jay/2.jpg\nBlue_Jay/10.jpg\n"},
            {},
            "no training image of 1 classes: Blue",
        ),
        ({}, {"validation": "test_images.txt"}, "is in the test list and in the validation list"),
        (
            {"images.txt": b"path,x0,y0,x1,y1\nother.jpg,0,0,1,1\n"},
            {"boxes": "images.txt"},
            "no box for any of the 5 images",
        ),
        ({}, {"boxes": "species.txt"}, r"species\.txt: expected columns"),
    ],
)
def test_what_is_missing_or_damaged_is_named(
    tmp_path: Path, change: dict[str, bytes | None], params: dict[str, str], message: str
) -> None:
    files = {name: content for name, content in (layout() | change).items() if content is not None}
    with pytest.raises(DataError, match=message):
        _read(write_folder(tmp_path, files), **params)
