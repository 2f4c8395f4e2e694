"""export in other projects' layouts: read back as they read it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from roarline.artifacts.store import Artifact, Store
from roarline.stages.evaluate_class_masks import MATRIX_FILE
from roarline.stages.export import export, file_name
from roarline.stages.export_layouts import palette_png
from tests.stages.test_evaluate_localization import COUNT, SIDE, dataset, evaluate, rows, truth
from tests.stages.toy_maps import distinct_values, toy_maps

__all__ = ["dataset", "rows"]  # fixtures


def test_ground_truth_comes_back_as_wsolevaluation_and_voc_read_it(dataset: Artifact, tmp_path: Path) -> None:
    lines = list(export(dataset, tmp_path))
    assert any("wsolevaluation" in line for line in lines)
    folder, (boxes, segmentation) = tmp_path / "metadata" / "test", truth()
    names = [file_name(f"image/{row:04d}") for row in range(COUNT)]
    assert (folder / "image_ids.txt").read_text().split() == names
    found = [line.split(",") for line in (folder / "localization.txt").read_text().split()]
    assert found == [[names[row], *map(str, box)] for row, _, *box in boxes.tolist()]
    labels = dict(line.split(",") for line in (folder / "class_labels.txt").read_text().split())
    assert labels == {name: str(row % 3) for row, name in enumerate(names)}
    assert set((folder / "image_sizes.txt").read_text().split()) == {f"{name},{SIDE},{SIDE}" for name in names}
    exclusive = json.loads((tmp_path / "bboxes.json").read_text())
    row, _, x0, y0, x1, y1 = boxes[3].tolist()
    assert exclusive[names[row]] == [{"xmin": x0, "ymin": y0, "xmax": x1 + 1, "ymax": y1 + 1}]
    for row in (0, 5):
        picture = Image.open(tmp_path / "segmentation" / f"{names[row]}.png")
        assert picture.mode == "P"
        np.testing.assert_array_equal(np.asarray(picture), segmentation[row])


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
    name = file_name("image/0000")
    scoremap = np.load(tmp_path / "scoremaps" / f"{name}.npy", allow_pickle=False)
    np.testing.assert_allclose(scoremap, scaled.max(axis=0), rtol=1e-6)
    (kept,) = (tmp_path / "masks").rglob("*.npz")
    with np.load(kept, allow_pickle=False) as file:
        np.testing.assert_allclose(file["arr_0"], scoremap, rtol=1e-6)


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
    list(export(dataset, tmp_path, limit=2))
    assert len(list((tmp_path / "segmentation").iterdir())) == 2
