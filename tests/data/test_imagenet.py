"""ImageNet: classes keep their usual numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from roarline.artifacts.dataset import DatasetFile
from roarline.config.dataset_params import ImageFolderParams, ImageNetParams
from roarline.data.image_folder import read as read_image_folder
from roarline.data.imagenet import read
from roarline.data.raw import RawDataset
from roarline.errors import DataError
from tests.conftest import REPOSITORY
from tests.data.builders import write_folder, write_tar
from tests.data.layouts import voc_xml
from tests.data.preparing import prepare

SAMPLES = REPOSITORY.parent / "shared" / "data" / "imagenet-samples.tar"
BOXES = REPOSITORY.parent / "shared" / "data" / "imagenet-boxes.tar"
TABLE = b"index,wnid,name\n2,n03,crane\n0,n01,crane\n1,n02,fish\n"
FILES = {"val/n03/a.jpg": b"", "val/n01/b.jpg": b"", "train/n02/c.jpg": b"", "test/d.jpg": b"unlabelled, not looked at"}


def _read(root: Path, boxes: str | None = None) -> RawDataset:
    raw = read(root, ImageNetParams(boxes=boxes), 0)
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


XMLS = {
    "Annotations/CLS-LOC/val/ILSVRC2012_val_00000001.xml": voc_xml(
        [("n03", (2, 1, 8, 4), 0), ("n03", (1, 1, 2, 2), 0)], (16, 8)
    ),
    "Annotations/CLS-LOC/val/ILSVRC2012_val_00000002.xml": voc_xml([("n01", (1, 1, 8, 4), 0)], (8, 4)),
    "Annotations/CLS-LOC/train/n02/n02_7.xml": voc_xml([("n02", (3, 3, 4, 4), 0)], (8, 4)),
}  # fmt: skip
FLAT = {f"val/ILSVRC2012_val_0000000{number}.JPEG": b"" for number in (1, 2)}


@pytest.mark.parametrize("images", ["", "ILSVRC/Data/CLS-LOC/"])
@pytest.mark.parametrize("with_train", [True, False])
@pytest.mark.parametrize("as_tar", [False, True])
def test_the_published_validation_images_have_their_class_from_their_xml(
    tmp_path: Path, images: str, with_train: bool, as_tar: bool
) -> None:
    files = {f"{images}{name}": b"" for name in (*FLAT, *(["train/n02/n02_7.JPEG"] if with_train else []))}
    files[f"{images}test/ILSVRC2012_test_00000001.JPEG"] = b"unlabelled, not looked at"
    top = images.removesuffix("Data/CLS-LOC/")
    files |= {f"{top}{name}": content for name, content in XMLS.items()}
    files["LOC_synset_mapping.txt"] = b"n01 tench, Tinca tinca\nn02 goldfish\nn03 great white shark\n"
    if not images:
        del files["test/ILSVRC2012_test_00000001.JPEG"]
    root = write_tar(tmp_path / "x.tar", files) if as_tar else write_folder(tmp_path, files)
    raw = _read(root, "Annotations/CLS-LOC")
    first = int(with_train)
    assert raw.sample_ids[first:] == list(FLAT)
    assert raw.labels.tolist() == [1, 2, 0][1 - first :]
    assert raw.splits == ["train", "test", "test"][1 - first :]
    assert raw.boxes[raw.boxes[:, 0] >= first].tolist() == [
        [first, 2, 1, 0, 7, 3],
        [first, 2, 0, 0, 1, 1],
        [first + 1, 0, 0, 0, 7, 3],
    ]
    assert raw.box_image_sizes.tolist() == [[4, 8], [8, 16], [4, 8]][1 - first :]


def test_wnid_folders_with_xmls(tmp_path: Path) -> None:
    files = {
        "val/n03/ILSVRC2012_val_00000001.JPEG": b"",
        "val/n01/ILSVRC2012_val_00000009.JPEG": b"",
        "classes.csv": TABLE,
    }
    raw = _read(write_folder(tmp_path, files | XMLS), "Annotations/CLS-LOC/val")
    assert raw.labels.tolist() == [0, 2]
    assert raw.boxes[:, :2].tolist() == [[1, 2], [1, 2]]  # the other image has no XML


@pytest.mark.parametrize(
    ("files", "boxes", "message"),
    [
        (FLAT, None, r"2 images lie in val and in no wnid folder; set data\.params\.boxes to the folder of their XMLs"),
        (FLAT, "Annotations", "no Annotations/; expected XMLs in Annotations/"),
        (FLAT | {"Annotations/x.xml": b""}, "Annotations", "_00000001.JPEG has no XML that says its class"),
        (
            {"val/n01/a.JPEG": b"", "Annotations/a.xml": voc_xml([("n09", (1, 1, 2, 2), 0)])},
            "Annotations",
            "class 'n09' of a box has no number",
        ),
        ({"val/n01/a.JPEG": b"", "Annotations/b.xml": voc_xml([])}, "Annotations", "no XML is of any of the 1 images"),
    ],
)
def test_missing_xmls_are_said(tmp_path: Path, files: dict[str, bytes], boxes: str | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        _read(write_folder(tmp_path, {**files, "classes.csv": TABLE}), boxes)


LISTED = b"file,label,w,h,x0,y0,x1,y1\nb.JPEG,2,8,4,1,0,7,3\na.JPEG,65,8,4,0,0,0,0\na.JPEG,65,8,4,1,1,2,2\n"


def test_a_table_with_class_numbers_needs_no_folders(tmp_path: Path) -> None:
    files = {"images/a.JPEG": b"", "images/b.JPEG": b"", "images/not_listed.JPEG": b"", "boxes.csv": LISTED}
    raw = _read(write_folder(tmp_path, files), "boxes.csv")
    assert raw.sample_ids == ["images/a.JPEG", "images/b.JPEG"]
    assert raw.labels.tolist() == [65, 2]
    assert raw.boxes.tolist() == [[1, 2, 1, 0, 7, 3], [0, 65, 0, 0, 0, 0], [0, 65, 1, 1, 2, 2]]
    assert len(raw.class_names) == 1000
    assert raw.class_names[2] == "great white shark"
    assert raw.class_names[134] == "crane bird"
    named = _read(
        write_folder(tmp_path, {"classes.csv": b"index,wnid\n" + b"".join(b"%d,n%d\n" % (n, n) for n in range(70))}),
        "boxes.csv",
    )
    assert named.class_names[65] == "n65"


def test_a_listed_image_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"boxes\.csv: 1 images are not there: b\.JPEG"):
        _read(write_folder(tmp_path, {"images/a.JPEG": b"", "boxes.csv": LISTED}), "boxes.csv")


def test_a_table_without_class_numbers(tmp_path: Path) -> None:
    table = b"file,x0,y0,x1,y1\nval/n03/a.jpg,0,0,1,1\n"
    raw = _read(write_folder(tmp_path, {**FILES, "classes.csv": TABLE, "boxes.csv": table}), "boxes.csv")
    assert raw.boxes.tolist() == [[2, 2, 0, 0, 1, 1]]


@pytest.mark.data
@pytest.mark.skipif(not BOXES.exists(), reason="needs ../shared/data/imagenet-boxes.tar")
@pytest.mark.parametrize("pack_limit_mb", [4096, 1])
def test_real_boxes(tmp_path: Path, pack_limit_mb: int) -> None:
    params = ImageNetParams(boxes="boxes.csv").model_dump()
    path = prepare(tmp_path, "imagenet", BOXES, params=params, resize_px=224, crop_px=224, pack_limit_mb=pack_limit_mb)
    with DatasetFile(path) as dataset:
        assert (len(dataset), dataset.num_classes, dataset.packed) == (50, 1000, pack_limit_mb == 4096)
        assert len(dataset.boxes) > 100  # of 111, but for those that lie outside the centre square
        assert dataset.boxes[:, 2:].min() >= 0
        assert dataset.boxes[:, 2:].max() <= 223
        row = dataset.sample_ids.index("images/ILSVRC2012_val_00000001.JPEG")
        # 496×368 px come to 301×224, of which columns 38 to 261 stay: x0 = ⌊111 · 301 / 496⌋ − 38
        x0, y0 = 111 * 301 // 496 - 38, 108 * 224 // 368
        assert dataset.boxes[dataset.boxes[:, 0] == row][0, :4].tolist() == [row, 65, x0, y0]
