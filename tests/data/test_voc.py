"""VOC: labels, boxes, difficult flags, void, and what the original code makes of void."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from roarline.artifacts.dataset import DatasetFile
from roarline.config.dataset_params import VocParams
from roarline.data.raw import RawDataset
from roarline.data.voc import CLASSES, read
from roarline.errors import DataError
from tests.data.builders import encoded, write_folder, write_tar
from tests.data.layouts import mask_png, voc_xml
from tests.data.preparing import prepare
from tests.golden_cases import case

SIZE = (60, 40)


def _mask() -> np.ndarray:
    """A dog (12) with a void border, and a person (15)."""
    labels = np.zeros((40, 60), dtype=np.uint8)
    labels[8:22, 8:32], labels[10:20, 10:30] = 255, 12
    labels[25:38, 40:55] = 15
    return labels


def layout(top: str = "VOCdevkit/VOC2007/", *, test: bool = True) -> dict[str, bytes]:
    """Two images a split; 000001 has a mask; 000003 has a difficult person only."""
    objects = {
        "000001": [("dog", (11, 11, 30, 20), 0), ("person", (41, 26, 55, 38), 1), ("dog", (1, 1, 5, 5), 0)],
        "000002": [("sofa", (1, 1, 60, 40), 0)],
        "000003": [("person", (1, 1, 10, 10), 1)],
        "000004": [("cat", (1, 1, 10, 10), 0), ("dog", (20, 20, 60, 40), 0)],
        "000005": [("tvmonitor", (2, 3, 10, 10), 0)],
        "000006": [("aeroplane", (2, 3, 10, 10), 0)],
    }
    splits = {"train": ["000004", "000006"], "val": ["000002", "000005"], "test": ["000001", "000003"]}
    files = {
        f"{top}ImageSets/Main/{split}.txt": "".join(f"{stem}\n" for stem in stems).encode()
        for split, stems in splits.items()
    }
    files[f"{top}ImageSets/Main/dog_train.txt"] = b"000004  1\n000006 -1\n"
    files |= {f"{top}ImageSets/Segmentation/{split}.txt": b"" for split in ("train", "val")}
    files[f"{top}ImageSets/Segmentation/test.txt"] = b"000001\n"
    for number, (stem, found) in enumerate(objects.items()):
        if test or stem not in splits["test"]:
            files[f"{top}Annotations/{stem}.xml"] = voc_xml(found, SIZE)
            files[f"{top}JPEGImages/{stem}.jpg"] = encoded(number, SIZE, "JPEG")
    if test:
        files[f"{top}SegmentationClass/000001.png"] = mask_png(_mask())
        files[f"{top}SegmentationObject/000001.png"] = mask_png(np.ones((40, 60), dtype=np.uint8))
    return files


def _read(root: Path, **params: str | bool) -> RawDataset:
    raw = read(root, VocParams.model_validate(params), 0)
    raw.check()
    return raw


def test_the_published_layout(tmp_path: Path) -> None:
    raw = _read(write_folder(tmp_path, layout()))
    assert raw.sample_ids == ["000004", "000006", "000002", "000005", "000001", "000003"]
    assert raw.splits == ["train", "train", "validation", "validation", "test", "test"]
    assert [[CLASSES[label] for label in np.flatnonzero(row)] for row in raw.labels] == [
        ["cat", "dog"], ["aeroplane"], ["sofa"], ["tvmonitor"], ["dog", "person"], ["person"],
    ]  # fmt: skip
    assert raw.boxes[raw.boxes[:, 0] == 4].tolist() == [
        [4, 11, 10, 10, 29, 19],
        [4, 14, 40, 25, 54, 37],
        [4, 11, 0, 0, 4, 4],
    ]
    assert raw.box_difficult[raw.boxes[:, 0] >= 4].tolist() == [False, True, False, True]
    assert list(CLASSES) == sorted(CLASSES)


def test_difficult_objects_need_not_be_labels(tmp_path: Path) -> None:
    raw = _read(write_folder(tmp_path, layout()), difficult_labels=False)
    assert np.flatnonzero(raw.labels[4]).tolist() == [CLASSES.index("dog")]
    assert not raw.labels[5].any()
    assert raw.box_difficult.sum() == 2


@pytest.mark.parametrize("top", ["", "VOC2007/", "data/VOCdevkit/VOC2007/"])
@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_the_folder_may_lie_anywhere(tmp_path: Path, top: str, kind: str) -> None:
    files = layout(top)
    raw = _read(write_tar(tmp_path / "voc.tar", files) if kind == "tar" else write_folder(tmp_path, files))
    assert len(raw) == 6
    assert np.array_equal(raw.segmentation.read(4).labels, _mask())
    assert raw.segmentation.read(0) is None


def test_both_years_in_one_folder(tmp_path: Path) -> None:
    files = layout() | layout("VOCdevkit/VOC2012/", test=False)
    assert len(_read(write_folder(tmp_path, files), year="2012")) == 4
    assert len(_read(tmp_path)) == 6


def test_without_annotations_of_the_test_split_val_is_the_test_split(tmp_path: Path) -> None:
    """VOC 2012 publishes the list of its test images, and no annotations of them."""
    raw = _read(write_folder(tmp_path, layout("VOC2012/", test=False)), year="2012")
    assert raw.splits == ["train", "train", "test", "test"]


def test_only_segmented_images(tmp_path: Path) -> None:
    raw = _read(write_folder(tmp_path, layout()), images="segmented")
    assert raw.sample_ids == ["000001"]


def test_agrees_with_torchvision(tmp_path: Path) -> None:
    from torchvision.datasets import VOCDetection, VOCSegmentation

    raw = _read(write_folder(tmp_path, layout()))
    theirs = VOCDetection(tmp_path, year="2007", image_set="test")
    for row, (_, target) in zip((4, 5), theirs, strict=True):
        objects = target["annotation"]["object"]
        ours = raw.boxes[raw.boxes[:, 0] == row]
        assert [CLASSES[label] for label in ours[:, 1]] == [one["name"] for one in objects]
        corners = ("xmin", "ymin", "xmax", "ymax")
        assert (ours[:, 2:] + 1).tolist() == [[int(one["bndbox"][side]) for side in corners] for one in objects]
        flags = raw.box_difficult[raw.boxes[:, 0] == row]
        assert flags.tolist() == [one["difficult"] == "1" for one in objects]
    ((_, mask),) = VOCSegmentation(tmp_path, year="2007", image_set="test")
    assert np.array_equal(raw.segmentation.read(4).labels, np.asarray(mask))


@pytest.mark.parametrize("pack_limit_mb", [4096, 0.001])
def test_masks_and_boxes_follow_images_packed_or_indexed(tmp_path: Path, pack_limit_mb: float) -> None:
    root = write_folder(tmp_path / "raw", layout())
    params = VocParams().model_dump()
    path = prepare(tmp_path, "voc", root, params=params, resize_px=20, crop_px=20, pack_limit_mb=pack_limit_mb)
    with DatasetFile(path) as dataset:
        assert dataset.packed == (pack_limit_mb == 4096)
        assert dataset.image_size == (20, 20)
        row = dataset.sample_ids.index("000001")
        mask = Image.fromarray(_mask()).resize((30, 20), Image.Resampling.NEAREST).crop((5, 0, 25, 20))
        assert np.array_equal(dataset.segmentation([row])[0], np.asarray(mask))
        assert (dataset.segmentation([0, 1]) == 255).all()
        # of 60×40 px come 30×20, of which columns 5 to 24 stay: the dog at 10–29 × 10–19 comes to 0–9 × 5–9, the other
        # one at 0–4 × 0–4 lies outside, and the person at 40–54 × 25–37 comes to 15–19 (clipped) × 12–18
        assert dataset.boxes[dataset.boxes[:, 0] == row].tolist() == [
            [row, 11, 0, 5, 9, 9],
            [row, 14, 15, 12, 19, 18],
        ]
        assert dataset.box_difficult[dataset.boxes[:, 0] == row].tolist() == [False, True]
        assert dataset.class_masks([row], [11]).max() == 255


def test_void_is_no_object_but_for_the_original_code(tmp_path: Path) -> None:
    """NN-Explainer turns the coloured mask grey, resizes it bilinearly and takes all above 0: void counts as object."""
    root = write_folder(tmp_path / "raw", layout())
    seen = {}
    for compat in ("corrected", "original"):
        params = VocParams(compat=compat).model_dump()
        path = prepare(tmp_path / compat, "voc", root, params=params, resize_px=16, crop_px=16)
        with DatasetFile(path) as dataset:
            seen[compat] = dataset.segmentation([dataset.sample_ids.index("000001")])[0]
    grey = Image.open(root / "VOCdevkit/VOC2007/SegmentationClass/000001.png").convert("L")
    theirs = np.asarray(grey.resize((24, 16), Image.Resampling.BILINEAR).crop((4, 0, 20, 16))) > 0
    assert np.array_equal(seen["original"] > 0, theirs)
    assert set(np.unique(seen["original"])) == {0, 12, 15}
    ours = (seen["corrected"] > 0) & (seen["corrected"] < 255)
    assert ours.sum() < theirs.sum()
    assert (theirs >= ours).all()


def test_stretched_files_have_the_original_codes_pixels(tmp_path: Path) -> None:
    """The case's palette picture, as a file of the data set: images and masks are stretched to a square."""
    arrays, params = case("s0_open_segmentation")
    height, width = arrays["in_voc_index"].shape
    picture = Image.fromarray(np.where(arrays["in_voc_index"] > len(CLASSES), 255, arrays["in_voc_index"]))
    picture.putpalette(arrays["in_palette"].ravel().tolist())
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    top = "VOCdevkit/VOC2007/"
    changed = {
        f"{top}SegmentationClass/000001.png": buffer.getvalue(),
        f"{top}JPEGImages/000001.jpg": encoded(1, (width, height), "JPEG"),
        f"{top}Annotations/000001.xml": voc_xml([("dog", (11, 11, 30, 20), 0)], (width, height)),
    }
    root = write_folder(tmp_path / "raw", layout() | changed)
    path = prepare(
        tmp_path, "voc", root, params=VocParams(compat="original").model_dump(), resize_px=params["size"],
        aspect="stretch",
    )  # fmt: skip
    with DatasetFile(path) as dataset:
        row = dataset.sample_ids.index("000001")
        assert dataset.stretched
        assert dataset.image_size == (224, 224)
        np.testing.assert_array_equal(dataset.segmentation([row])[0] > 0, arrays["out_voc"] == 1)
        x0, y0, x1, y1 = dataset.boxes[dataset.boxes[:, 0] == row][0, 2:].tolist()
        assert (x0, y0) == (10 * 224 // width, 10 * 224 // height)
        assert (x1, y1) == (math.ceil(30 * 224 / width) - 1, math.ceil(20 * 224 / height) - 1)
        with Image.open(root / f"{top}JPEGImages/000001.jpg") as image:
            expected = np.asarray(image.convert("RGB").resize((224, 224), Image.Resampling.BILINEAR))
        np.testing.assert_array_equal(dataset.pixels([row])[0], expected.transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"JPEGImages/000001.jpg": None}, r"1 of 6 images are not there: VOCdevkit/VOC2007/JPEGImages/000001\.jpg"),
        (
            {"Annotations/000004.xml": None},
            r"1 of 6 annotations are not there: .*000004\.xml; expected VOCdevkit/VOC2007",
        ),
        ({"Annotations/000004.xml": b"<annotation>"}, r"000004\.xml: not an annotation file"),
        ({"Annotations/000004.xml": voc_xml([("yeti", (1, 1, 2, 2), 0)])}, "'yeti' is none of VOC's 20"),
        ({"ImageSets/Main/test.txt": None, "ImageSets/Main/val.txt": None}, "no .*test.txt, nor val.txt"),
    ],
)
def test_what_is_missing_or_damaged_is_named(tmp_path: Path, change: dict[str, bytes | None], message: str) -> None:
    files = layout() | {f"VOCdevkit/VOC2007/{name}": content for name, content in change.items()}
    with pytest.raises(DataError, match=message):
        _read(write_folder(tmp_path, {name: content for name, content in files.items() if content is not None}))


def test_a_mask_with_unknown_classes_is_named(tmp_path: Path) -> None:
    wrong = mask_png(np.full((40, 60), 21, dtype=np.uint8))
    raw = _read(write_folder(tmp_path, layout() | {"VOCdevkit/VOC2007/SegmentationClass/000001.png": wrong}))
    with pytest.raises(DataError, match=r"000001\.png: pixels of 21, expected 0 to 20 and 255"):
        raw.segmentation.read(4)


def test_another_layout_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no ImageSets/; expected VOCdevkit/VOC2007/ImageSets"):
        _read(write_folder(tmp_path, {"train/dog/1.jpg": b""}))
    with pytest.raises(DataError, match=r"data set 'voc': set data\.root"):
        read(None, VocParams(), 0)
