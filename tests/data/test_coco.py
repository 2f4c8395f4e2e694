"""COCO: classes, multi-label, instance masks against pycocotools, images without objects."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from roarline.artifacts.dataset import DatasetFile
from roarline.config.dataset_params import CocoParams
from roarline.data.coco import read
from roarline.data.raw import RawDataset
from roarline.errors import DataError
from roarline.stages.ground_truth import Objects
from tests.data.builders import encoded, write_folder, write_tar
from tests.data.preparing import prepare

WIDTH, HEIGHT = 48, 32
PLATE = [4.0, 4.0, 40.0, 4.0, 40.0, 28.0, 4.0, 28.0]
APPLE = [10.0, 8.0, 20.0, 8.0, 20.0, 18.0, 10.0, 18.0]


def _crowd() -> dict[str, Any]:
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    mask[20:, 30:] = 1
    packed = coco_mask.encode(np.asfortranarray(mask))
    flat = mask.flatten(order="F")
    runs = np.diff(np.concatenate([[0], np.flatnonzero(np.diff(flat)) + 1, [flat.size]]))
    assert coco_mask.area(packed) == mask.sum()
    return {"size": [HEIGHT, WIDTH], "counts": [int(run) for run in runs]}


def _instances(split: str, year: str) -> dict[str, Any]:
    """Images 1 (an apple on a plate), 2 (two persons, a crowd) and 3 (nothing)."""
    prefix = f"COCO_{split}{year}_" if year == "2014" else ""
    first = 100 if split == "train" else 0
    objects = [
        (1, 67, [4, 4, 36, 24], [PLATE], 0),
        (1, 53, [10, 8, 10, 10], [APPLE], 0),
        (2, 1, [1.5, 2.25, 10, 12.5], [[1.5, 2.25, 11.5, 2.25, 11.5, 14.75]], 0),
        (2, 1, [20, 4, 5, 5], [[20.0, 4.0, 25.0, 4.0, 25.0, 9.0, 20.0, 9.0]], 0),
        (2, 90, [30, 20, 18, 12], _crowd(), 1),
    ]
    return {
        "info": {}, "licenses": [],
        "images": [
            {"id": first + number, "file_name": f"{prefix}{first + number:012d}.jpg", "width": WIDTH, "height": HEIGHT}
            for number in (3, 1, 2)
        ],
        "annotations": [
            {"id": first + place, "image_id": first + image, "category_id": category, "bbox": box,
             "area": box[2] * box[3], "segmentation": segmentation, "iscrowd": crowd}
            for place, (image, category, box, segmentation, crowd) in enumerate(objects, start=1)
        ],
        "categories": [{"id": number, "name": name, "supercategory": "thing"}
                       for number, name in ((90, "toothbrush"), (1, "person"), (53, "apple"), (67, "dining table"))],
    }  # fmt: skip


def layout(year: str = "2017") -> dict[str, bytes]:
    """Both splits as published."""
    files = {}
    for split in ("train", "val"):
        content = _instances(split, year)
        files[f"annotations/instances_{split}{year}.json"] = json.dumps(content).encode()
        for image in content["images"]:
            files[f"{split}{year}/{image['file_name']}"] = encoded(image["id"], (WIDTH, HEIGHT), "JPEG")
    files[f"annotations/captions_val{year}.json"] = b"not looked at"
    return files


def _read(root: Path, **params: str) -> RawDataset:
    raw = read(root, CocoParams.model_validate(params), 0)
    raw.check()
    return raw


def _theirs(path: Path) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


@pytest.mark.parametrize("year", ["2014", "2017"])
@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_the_published_layout(tmp_path: Path, year: str, kind: str) -> None:
    files = layout(year)
    raw = _read(write_tar(tmp_path / "coco.tar", files) if kind == "tar" else write_folder(tmp_path, files), year=year)
    prefix = "COCO_{}2014_" if year == "2014" else ""
    assert raw.sample_ids == [
        *(f"{prefix.format('train')}{number:012d}" for number in (101, 102)),
        *(f"{prefix.format('val')}{number:012d}" for number in (1, 2)),
    ]
    assert raw.splits == ["train", "train", "test", "test"]
    assert list(raw.class_names) == ["person", "apple", "dining table", "toothbrush"]  # by rising category id
    assert raw.labels[2:].tolist() == [[0, 1, 1, 0], [1, 0, 0, 1]]
    assert raw.boxes[raw.boxes[:, 0] >= 2].tolist() == [
        [2, 2, 4, 4, 39, 27],
        [2, 1, 10, 8, 19, 17],
        [3, 0, 1, 2, 11, 14],  # 1.5 to 11.5 touches pixels 1 to 11, 2.25 to 14.75 pixels 2 to 14
        [3, 0, 20, 4, 24, 8],
        [3, 3, 30, 20, 47, 31],
    ]
    assert raw.box_difficult[raw.boxes[:, 0] >= 2].tolist() == [False] * 4 + [True]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # theirs: NumPy 2 warns of it
def test_masks_are_those_of_pycocotools_also_where_they_overlap(tmp_path: Path) -> None:
    theirs = _theirs(write_folder(tmp_path / "raw", layout()) / "annotations/instances_val2017.json")
    path = prepare(tmp_path, "coco", tmp_path / "raw", params=CocoParams().model_dump(), pack_limit_mb=0.001)
    with DatasetFile(path) as dataset:
        assert not dataset.packed
        for row in dataset.rows("test"):
            image = int(dataset.sample_ids[row])
            union = np.zeros((HEIGHT, WIDTH), dtype=bool)
            for label, category in enumerate(sorted(theirs.cats)):
                annotations = theirs.loadAnns(theirs.getAnnIds(imgIds=[image], catIds=[category]))
                mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
                for annotation in annotations:
                    mask |= theirs.annToMask(annotation).astype(bool)
                assert np.array_equal(dataset.class_masks([row], [label])[0], mask)
                union |= mask
            assert np.array_equal(dataset.segmentation([row])[0] > 0, union)
        apple = dataset.segmentation([dataset.rows("test")[0]])[0] == 2
        assert apple[8:18, 10:20].all()  # the smaller object lies on top


def test_an_image_without_objects_has_no_label_where_the_original_code_gives_it_all(tmp_path: Path) -> None:
    """pycocotools takes an empty list of ids for no restriction: NN-Explainer labels such images with all 80."""
    root = write_folder(tmp_path, layout())
    theirs = _theirs(root / "annotations/instances_val2017.json")
    assert len(theirs.getCatIds(catIds=[])) == 4
    kept = _read(root, unannotated="keep")
    assert not kept.labels[kept.sample_ids.index(f"{3:012d}")].any()
    assert not (kept.segmentation.read(kept.sample_ids.index(f"{3:012d}")).labels).any()
    assert f"{3:012d}" not in _read(root).sample_ids
    original = _read(root, compat="original")
    assert original.labels[original.sample_ids.index(f"{3:012d}")].all()


def test_the_original_code_numbers_classes_by_category_id(tmp_path: Path) -> None:
    raw = _read(write_folder(tmp_path, layout()), compat="original")
    assert len(raw.class_names) == 91
    assert np.flatnonzero(raw.labels[raw.sample_ids.index(f"{1:012d}")]).tolist() == [53, 67]
    assert raw.class_names[53] == "apple"
    assert raw.class_names[12] == "unused 12"
    assert raw.segmentation.read(raw.sample_ids.index(f"{1:012d}")).labels.max() == 68


def test_the_original_code_keeps_masks_soft(tmp_path: Path) -> None:
    """The union of an image's objects, stretched bilinearly; each pixel is of the class that is nearest."""
    root = write_folder(tmp_path / "raw", layout())
    params, settings = CocoParams(compat="original").model_dump(), {"resize_px": 20, "aspect": "stretch"}
    seen = read(root, CocoParams(), 0)
    with DatasetFile(prepare(tmp_path, "coco", root, params=params, **settings)) as dataset:
        row = dataset.sample_ids.index(f"{1:012d}")
        objects = seen.segmentation.read(seen.sample_ids.index(f"{1:012d}")).labels > 0
        grey = Image.fromarray(np.where(objects, 255, 0).astype(np.uint8)).resize((20, 20), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(dataset.shares([row])[0], np.asarray(grey))
        np.testing.assert_array_equal(dataset.segmentation([row])[0] > 0, np.asarray(grey) > 0)
        assert set(np.unique(dataset.segmentation([row]))) == {0, 54, 68}
        truth = Objects(dataset, (20, 20)).of(np.array([row]), np.array([53]), torch.device("cpu"))
        apple = dataset.class_masks([row], [53])[0] == 1
        np.testing.assert_allclose(truth.shares[0], np.where(apple, np.asarray(grey) / 255, 0), atol=1e-7)
        assert not dataset.shares([dataset.sample_ids.index(f"{3:012d}")]).any()
    hard = CocoParams(compat="original", soft_masks=False).model_dump()
    for params in ({}, hard):
        with DatasetFile(prepare(tmp_path / f"{len(params)}", "coco", root, params=params, **settings)) as dataset:
            assert dataset.shares([0]) is None


def test_keys_change_only_where_masks_are_soft() -> None:
    assert "soft_masks" not in CocoParams().model_dump(exclude_none=True)
    assert CocoParams(compat="original").model_dump()["soft_masks"] is True


def test_a_validation_file_of_its_own_and_no_training_images(tmp_path: Path) -> None:
    files = layout("2014")
    files["annotations/mine.json"] = files.pop("annotations/instances_train2014.json")
    raw = _read(write_folder(tmp_path, files), year="2014", validation="mine.json")
    assert sorted(set(raw.splits)) == ["test", "validation"]


def test_a_validation_split_is_drawn_from_the_seed_where_no_file_says_it(tmp_path: Path) -> None:
    files = layout()
    name = "annotations/instances_train2017.json"
    content = json.loads(files[name])
    image, objects = content["images"][1], [one for one in content["annotations"] if one["image_id"] == 101]
    for number in range(200, 205):  # five more with an apple on a plate
        content["images"].append({**image, "id": number, "file_name": f"{number:012d}.jpg"})
        content["annotations"] += [{**one, "id": 10 * number + one["id"], "image_id": number} for one in objects]
        files[f"train2017/{number:012d}.jpg"] = encoded(number, (WIDTH, HEIGHT), "JPEG")
    files[name] = json.dumps(content).encode()
    root = write_folder(tmp_path / "coco", files)
    drawn = []
    for seed in (0, 0, 1):
        words = {"validation_fraction": 0.5, "resize_px": 16, "crop_px": 16, "seed": seed}
        with DatasetFile(prepare(tmp_path / f"{len(drawn)}", "coco", root, **words)) as dataset:
            drawn.append({dataset.sample_ids[row] for row in dataset.rows("validation")})
            assert not drawn[-1] & {dataset.sample_ids[row] for row in dataset.rows("train")}
            assert len(dataset.rows("test")) == 2
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(2 <= len(ids) <= 4 for ids in drawn)


def test_agrees_with_torchvision(tmp_path: Path) -> None:
    from torchvision.datasets import CocoDetection

    root = write_folder(tmp_path, layout())
    raw = _read(root, unannotated="keep")
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = CocoDetection(str(root / "val2017"), str(root / "annotations/instances_val2017.json"))
    names = {number: category["name"] for number, category in theirs.coco.cats.items()}
    for image, (_, objects) in zip(theirs.ids, theirs, strict=True):
        row = raw.sample_ids.index(f"{image:012d}")
        expected = {names[one["category_id"]] for one in objects}
        assert {raw.class_names[label] for label in np.flatnonzero(raw.labels[row])} == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"annotations/instances_val2017.json": None},
            r"no annotations/instances_val2017\.json; expected annotations/",
        ),
        ({"annotations/instances_val2017.json": b"{"}, r"instances_val2017\.json: not COCO's instances"),
        ({"annotations/instances_val2017.json": b"[]"}, r"instances_val2017\.json: not COCO's instances"),
        ({f"val2017/{1:012d}.jpg": None}, r"1 of 4 images are not there: .*000000000001\.jpg"),
    ],
)
def test_what_is_missing_or_damaged_is_named(tmp_path: Path, change: dict[str, bytes | None], message: str) -> None:
    files = {name: content for name, content in (layout() | change).items() if content is not None}
    with pytest.raises(DataError, match=message):
        _read(write_folder(tmp_path, files))


def test_a_named_annotation_file_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no annotations/other\.json"):
        _read(write_folder(tmp_path, layout()), train="other.json")


@pytest.mark.parametrize("segmentation", [{"counts": 3}, [["x", 1, 2, 3, 4, 5]]])
def test_a_broken_segmentation_names_its_image(tmp_path: Path, segmentation: Any) -> None:
    files = layout()
    content = json.loads(files["annotations/instances_val2017.json"])
    content["annotations"][0]["segmentation"] = segmentation
    files["annotations/instances_val2017.json"] = json.dumps(content).encode()
    raw = _read(write_folder(tmp_path, files))
    with pytest.raises(DataError, match="image 000000000001: a segmentation that can't be read"):
        raw.segmentation.read(raw.sample_ids.index(f"{1:012d}"))
