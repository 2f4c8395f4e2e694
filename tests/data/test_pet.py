"""Oxford-IIIT Pet: breeds as torchvision numbers them, trimaps, head boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from roarline.config.dataset_params import PetParams
from roarline.data.pet import read
from roarline.data.raw import RawDataset
from roarline.errors import DataError
from tests.data.builders import encoded, write_folder, write_tar
from tests.data.layouts import mask_png, voc_xml

TRIMAP = np.asarray([[2, 2, 2, 2], [2, 3, 1, 3], [2, 3, 1, 1], [2, 2, 2, 2]], dtype=np.uint8)
TRAINVAL = ["Abyssinian_100", "american_bulldog_100", "Abyssinian_2"]
TEST = ["american_bulldog_7", "Abyssinian_201"]


def layout(top: str = "oxford-iiit-pet/") -> dict[str, bytes]:
    """Two breeds; of the training images two have head boxes."""

    def line(image: str) -> str:
        return f"{image} 1 1 1\n" if image.startswith("A") else f"{image} 2 2 1\n"

    files = {
        f"{top}annotations/trainval.txt": "".join(map(line, TRAINVAL)).encode(),
        f"{top}annotations/test.txt": "".join(map(line, TEST)).encode(),
        f"{top}annotations/list.txt": b"#Image CLASS-ID SPECIES BREED ID\n",
        f"{top}annotations/xmls/Abyssinian_100.xml": voc_xml([("cat", (2, 1, 4, 3), 0)], (4, 4)),
        f"{top}annotations/xmls/american_bulldog_100.xml": voc_xml([("dog", (1, 1, 2, 2), 0)], (4, 4)),
    }
    for seed, image in enumerate([*TRAINVAL, *TEST]):
        files[f"{top}images/{image}.jpg"] = encoded(seed, (4, 4), "JPEG")
        files[f"{top}annotations/trimaps/{image}.png"] = mask_png(TRIMAP, "L")
    return files


def _read(root: Path, **params: str) -> RawDataset:
    raw = read(root, PetParams.model_validate(params), 0)
    raw.check()
    return raw


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_the_published_layout(tmp_path: Path, kind: str) -> None:
    files = layout("" if kind == "tar" else "oxford-iiit-pet/")
    raw = _read(write_tar(tmp_path / "pet.tar", files) if kind == "tar" else write_folder(tmp_path, files))
    assert raw.sample_ids == [*TRAINVAL, *TEST]
    assert raw.splits == ["train"] * 3 + ["test"] * 2
    assert raw.labels.tolist() == [0, 1, 0, 1, 0]
    assert raw.boxes.tolist() == [[0, 0, 1, 0, 3, 2], [1, 1, 0, 0, 1, 1]]
    assert raw.segmentation.read(1).labels.tolist() == [[0, 0, 0, 0], [0, 255, 2, 255], [0, 255, 2, 2], [0, 0, 0, 0]]


def test_agrees_with_torchvision(tmp_path: Path) -> None:
    from torchvision.datasets import OxfordIIITPet

    raw = _read(write_folder(tmp_path, layout()))
    for split, name in (("trainval", "train"), ("test", "test")):
        theirs = OxfordIIITPet(tmp_path, split=split, target_types=["category", "segmentation"])
        rows = [row for row, found in enumerate(raw.splits) if found == name]
        assert theirs.classes == raw.class_names
        for row, (_, (label, trimap)) in zip(rows, theirs, strict=True):
            assert raw.labels[row] == label
            ours = raw.segmentation.read(row).labels
            assert np.array_equal(ours == label + 1, np.asarray(trimap) == 1)
            assert np.array_equal(ours == 255, np.asarray(trimap) == 3)


def test_images_with_head_boxes_may_be_the_test_split(tmp_path: Path) -> None:
    raw = _read(write_folder(tmp_path, layout()), test="heads")
    assert raw.splits == ["test", "test", "train", "train", "train"]


def test_boxes_around_the_foreground(tmp_path: Path) -> None:
    raw = _read(write_folder(tmp_path, layout()), boxes="body")
    assert raw.boxes.tolist() == [[row, label, 2, 1, 3, 2] for row, label in enumerate([0, 1, 0, 1, 0])]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"annotations/trainval.txt": None}, r"no annotations/trainval\.txt; expected oxford-iiit-pet/images"),
        ({"annotations/trainval.txt": b"Abyssinian_100 1 1\n"}, r"trainval\.txt:1: expected 4 fields"),
        ({"annotations/trainval.txt": b"Abyssinian_100 one 1 1\n"}, "a class that is no number"),
        ({"annotations/trainval.txt": b"Abyssinian_100 4 1 1\n"}, "not numbered from 1 without a gap"),
        ({"annotations/trimaps/Abyssinian_2.png": None}, r"1 of 5 trimaps are not there: .*Abyssinian_2\.png"),
        ({"images/Abyssinian_2.jpg": None}, r"1 of 5 images are not there: .*Abyssinian_2\.jpg"),
    ],
)
def test_what_is_missing_or_damaged_is_named(tmp_path: Path, change: dict[str, bytes | None], message: str) -> None:
    files = layout() | {f"oxford-iiit-pet/{name}": content for name, content in change.items()}
    with pytest.raises(DataError, match=message):
        _read(write_folder(tmp_path, {name: content for name, content in files.items() if content is not None}))


def test_another_trimap_is_named(tmp_path: Path) -> None:
    wrong = {"oxford-iiit-pet/annotations/trimaps/Abyssinian_2.png": mask_png(TRIMAP * 60, "L")}
    raw = _read(write_folder(tmp_path, layout() | wrong))
    with pytest.raises(DataError, match=r"Abyssinian_2\.png: pixels from 60 to 180, expected 1, 2 and 3"):
        raw.segmentation.read(2)
