"""export in other projects' layouts: read back as they read it, and by the data set wsol with equal ground truth."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from roarline.artifacts.dataset import DATASET_FILE, DatasetContent, DatasetFile, write_dataset
from roarline.artifacts.store import Artifact, Store
from roarline.config.dataset_params import WsolParams
from roarline.stages.evaluate_class_masks import MATRIX_FILE
from roarline.stages.export import export
from roarline.stages.export_ground_truth import palette_png
from roarline.stages.export_names import file_name, image_id, pair_id, stems
from tests.data.preparing import prepare
from tests.stages.test_evaluate_localization import COUNT, SIDE, dataset, evaluate, rows, truth
from tests.stages.toy_classifier import make_artifact
from tests.stages.toy_maps import distinct_values, toy_maps

__all__ = ["dataset", "rows"]  # fixtures

IDS = ["train/a.png", "train/deep/b.jpg", "000003", "val/c d.png", "test/../x.png", "test/e,f.png", "t/é.png"]


def layout(store: Store, *, multi_label: bool = False) -> Artifact:
    """Seven images over all splits, with ids of every kind, boxes, and masks: image 2 has none, image 1 void pixels."""
    generator, count = np.random.default_rng(3), len(IDS)
    labels = np.arange(count) % 3
    boxes = [[row, labels[row], row, 1, row + 3, 4] for row in range(count)]
    boxes += [[0, 0, 5, 5, 7, 9], [3, 2, 0, 0, 9, 9]]  # the second is of a class that the image has only where it may
    segmentation = np.zeros((count, 10, 12), dtype=np.uint8)
    for row, label, x0, y0, x1, y1 in boxes:
        segmentation[row, y0 : y1 + 1, x0 : x1 + 1] = label + 1 if label == labels[row] else 0
    segmentation[1, 1, :2], segmentation[2] = 255, 255
    hot = (labels[:, None] == np.arange(3)).astype(np.uint8)
    hot[3, 2] = 1
    content = DatasetContent(
        name="toy", class_names=["cat", "dog", "emu"], multi_label=multi_label, sample_ids=IDS,
        split=np.array([0, 0, 0, 1, 2, 2, 2]), labels=hot if multi_label else labels, mean=np.full(3, 0.5),
        std=np.full(3, 0.25), images=generator.integers(0, 256, (count, 3, 10, 12), dtype=np.uint8),
        boxes=np.array(sorted(boxes)), segmentation=segmentation,
    )  # fmt: skip
    return make_artifact(
        store, "prepare-data", {"several": multi_label}, lambda folder: write_dataset(folder / DATASET_FILE, content)
    )


def read_again(tmp_path: Path, metadata: str) -> DatasetFile:
    """What was exported to ``tmp_path / "out"``, by the data set wsol."""
    params = WsolParams(metadata=metadata, images="images", class_names="class_names.txt").model_dump()
    return DatasetFile(prepare(tmp_path / metadata, "wsol", tmp_path / "out", params=params))


@pytest.mark.parametrize("multi_label", [False, True])
def test_what_is_exported_is_read_again_with_equal_ground_truth(
    store: Store, tmp_path: Path, multi_label: bool
) -> None:
    artifact = layout(store, multi_label=multi_label)
    lines = list(export(artifact, tmp_path / "out"))
    assert any("8 of 8 images" in line or "7 of 7 images" in line for line in lines)
    with (
        DatasetFile(artifact.file(DATASET_FILE)) as theirs,
        read_again(tmp_path, "metadata") as boxed,
        read_again(tmp_path, "metadata_masks") as masked,
    ):
        pairs = [
            (row, label)
            for row in range(len(IDS))
            for label in (np.flatnonzero(theirs.labels[row]) if multi_label else [theirs.labels[row]])
        ]
        names = [pair_id(IDS[row], int(label), multi_label=multi_label) for row, label in pairs]
        assert boxed.sample_ids == masked.sample_ids == names
        assert boxed.class_names == theirs.class_names
        for place, (row, label) in enumerate(pairs):
            assert boxed.split[place] == masked.split[place] == theirs.split[row]
            assert boxed.labels[place] == label
            np.testing.assert_array_equal(boxed.pixels([place]), theirs.pixels([row]))
            own = theirs.boxes[(theirs.boxes[:, 0] == row) & (theirs.boxes[:, 1] == label)]
            np.testing.assert_array_equal(boxed.boxes[boxed.boxes[:, 0] == place][:, 1:], own[:, 1:])
            np.testing.assert_array_equal(
                masked.class_masks([place], [label]), theirs.class_masks([row], [label]), err_msg=names[place]
            )


def test_lists_are_as_wsolevaluation_reads_them(dataset: Artifact, tmp_path: Path) -> None:
    list(export(dataset, tmp_path))
    folder, (boxes, segmentation) = tmp_path / "metadata" / "test", truth()
    names = [f"image/{row:04d}.png" for row in range(COUNT)]  # ids with folders stay ids
    assert (folder / "image_ids.txt").read_text().split() == names
    found = [line.split(",") for line in (folder / "localization.txt").read_text().split()]
    assert found == [[names[row], *map(str, box)] for row, _, *box in boxes.tolist()]
    labels = dict(line.split(",") for line in (folder / "class_labels.txt").read_text().split())
    assert labels == {name: str(row % 3) for row, name in enumerate(names)}
    assert set((folder / "image_sizes.txt").read_text().split()) == {f"{name},{SIDE},{SIDE}" for name in names}
    lines = (tmp_path / "metadata_masks" / "test" / "localization.txt").read_text().split()
    assert len(lines) == COUNT
    image, mask, ignore = lines[0].split(",")  # wsolevaluation opens both files of an image's first line
    own = segmentation[0] == 1
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / mask)) > 127, own)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / ignore)) > 127, segmentation[0] == 255)
    assert image == names[0]
    for row in (0, 5):
        picture = Image.open(tmp_path / "segmentation" / f"{row:04d}.png")
        assert picture.mode == "P"
        np.testing.assert_array_equal(np.asarray(picture), segmentation[row])


def test_samples_and_boxes_are_as_saliency_investigation_reads_them(store: Store, tmp_path: Path) -> None:
    list(export(layout(store), tmp_path))
    found: dict[str, Any] = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
    assert set(found) == {"train", "val", "train_train", "train_val", "val_bboxes", "train_val_bboxes"}
    for name, expected in (("val", IDS[4:]), ("train_val", IDS[3:4]), ("train_train", IDS[:3])):
        assert set(found[name]) == {"root", "samples", "classes", "class_to_idx"}
        samples = [(image_id(one), IDS.index(one) % 3) for one in expected]
        assert [tuple(sample) for sample in found[name]["samples"]] == samples
        assert all((Path(found[name]["root"]) / path).is_file() for path, _ in samples)
    assert found["train"]["classes"] == ["cat", "dog", "emu"]
    assert found["train"]["class_to_idx"] == {"cat": 0, "dog": 1, "emu": 2}
    together = [*found["train_train"]["samples"], *found["train_val"]["samples"]]
    assert sorted(found["train"]["samples"]) == sorted(together)
    assert found["train"]["samples"] != together  # shuffled, always alike
    # ends exclusive, keys without folder and suffix; the box of another class than the image's is left out
    assert found["train_val_bboxes"] == {"c d": [{"xmin": 3, "ymin": 1, "xmax": 7, "ymax": 5}]}
    assert set(found["val_bboxes"]) == set(stems([image_id(one) for one in IDS[4:]]))


def test_ids_that_are_no_paths_are_made_some() -> None:
    assert [image_id(one) for one in IDS[:4]] == ["train/a.png", "train/deep/b.jpg", "000003.png", "val/c d.png"]
    for one in (*IDS[4:], "/etc/x.png", "a//b.png", "a\\b.png", ".hidden/x.png", "", "x\ny.png", "con \n"):
        assert image_id(one) == f"{file_name(one)}.png"
    assert len({image_id(one) for one in IDS}) == len(IDS)
    assert stems(["a/1.png", "b/1.png", "a/2.png"]) == [file_name("a/1.png"), file_name("b/1.png"), "2"]


def test_palette_has_vocs_colours() -> None:
    labels = np.array([[0, 1, 15, 20, 255]], dtype=np.uint8)
    picture = Image.open(io.BytesIO(palette_png(labels))).convert("RGB")
    # Of the development kit: background, aeroplane, person, tvmonitor, void.
    expected = [(0, 0, 0), (128, 0, 0), (192, 128, 128), (0, 64, 128), (224, 224, 192)]
    assert [picture.getpixel((x, 0)) for x in range(5)] == expected


def test_masks_are_scaled_and_those_of_an_images_targets_merge(store: Store, dataset: Artifact, tmp_path: Path) -> None:
    values = distinct_values(2, SIDE)
    maps = toy_maps(store, dataset, values, rows=[("image/0000", 0), ("image/0000", 1)])
    list(export(maps, tmp_path))
    scaled = (values - values.min((1, 2), keepdims=True)) / np.ptp(values, axis=(1, 2), keepdims=True)
    scoremap = np.load(tmp_path / "scoremaps" / "image" / "0000.png.npy", allow_pickle=False)
    np.testing.assert_allclose(scoremap, scaled.max(axis=0), rtol=1e-6)
    assert scoremap.dtype == np.float64
    (kept,) = (tmp_path / "masks").rglob("*.npz")
    assert kept.name == "0000.npz"
    with np.load(kept, allow_pickle=False) as file:
        np.testing.assert_allclose(file["arr_0"], scoremap, rtol=1e-6)
    assert not (tmp_path / "class_masks").exists()


def test_masks_of_single_classes_are_as_nn_explainer_reads_them(store: Store, tmp_path: Path) -> None:
    """An image of two classes: for each of them, its masks of both; scores maps by pair, masks merged."""
    data, values = layout(store, multi_label=True), distinct_values(3, 12)[:, :10]
    maps = toy_maps(store, data, values, rows=[(IDS[3], 0), (IDS[3], 2), (IDS[4], 1)])
    with store.writer(
        "extract-attribution-maps", 1, "f" * 64, "joined", {"method": "gradient", "seed": 0}, {"dataset": data}
    ) as writer:
        assert writer is not None
        (writer.out / "maps.h5").write_bytes(maps.file("maps.h5").read_bytes())
    list(export(store.open("extract-attribution-maps", "f" * 64), tmp_path))
    made = {str(path.relative_to(tmp_path / "class_masks")) for path in (tmp_path / "class_masks").rglob("*.npz")}
    stem = file_name(IDS[4])
    assert made == {
        "target_class_0/masks_for_class_0/c d.npz", "target_class_0/masks_for_class_2/c d.npz",
        "target_class_2/masks_for_class_0/c d.npz", "target_class_2/masks_for_class_2/c d.npz",
        f"target_class_1/masks_for_class_1/{stem}.npz",
    }  # fmt: skip
    with np.load(tmp_path / "class_masks/target_class_0/masks_for_class_2/c d.npz", allow_pickle=False) as file:
        of_class = file["arr_0"]
    scoremaps = {str(path.relative_to(tmp_path / "scoremaps")) for path in (tmp_path / "scoremaps").rglob("*.npy")}
    assert scoremaps == {"0/val/c d.png.npy", "2/val/c d.png.npy", f"1/{stem}.png.npy"}
    np.testing.assert_allclose(
        np.load(tmp_path / "scoremaps/2/val/c d.png.npy", allow_pickle=False), of_class, rtol=1e-6
    )


def test_scores_and_features_are_exported(
    store: Store, dataset: Artifact, rows: list[tuple[str, int]], tmp_path: Path
) -> None:
    artifact = evaluate(store, dataset, distinct_values(COUNT, SIDE), rows, metrics=["pxap", "le"])
    assert MATRIX_FILE not in artifact.manifest.files
    lines = list(export(artifact, tmp_path))
    assert [Path(line.partition(":")[0]).name for line in lines] == ["scores.csv", "features.npz"]
    with np.load(tmp_path / "features.npz", allow_pickle=False) as file:
        assert set(file.files) == {"sample_ids", "targets", "pxap"}


def test_limit_bounds_the_pictures(dataset: Artifact, tmp_path: Path) -> None:
    said = list(export(dataset, tmp_path, limit=2))
    assert len(list((tmp_path / "segmentation").iterdir())) == 2
    assert len(list((tmp_path / "images").rglob("*.png"))) == 2
    assert len(list((tmp_path / "mask_files").rglob("*.png"))) == 2
    assert any("2 of 12 images" in line for line in said)
