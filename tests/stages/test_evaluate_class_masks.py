"""The class-specific matrix as a stage: by plain loops, perfect masks, draws, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from roarline.artifacts.class_masks import CLASS_MASKS_FILE, read_class_masks
from roarline.artifacts.dataset import DATASET_FILE, DatasetFile
from roarline.artifacts.store import Artifact, Store
from roarline.artifacts.tables import SCORES_FILE, read_parquet
from roarline.config.localization import OF_CLASSES
from roarline.data.loading import normalise
from roarline.errors import ArtifactError, DataError
from roarline.execution.run_job import run_job
from roarline.models.load import load_classifier
from roarline.stages.evaluate_class_masks import MATRIX_FILE
from roarline.stages.export import export
from roarline.stages.job import Context
from tests.stages.toy_classifier import job_for, toy_classifier, toy_dataset

SIDE, COUNT = 16, 9
PARAMETERS = {
    "method": "ground_truth", "batched": True, "channels": "sum", "sign": "signed", "params": {}, "mask": "none",
    "metrics": list(OF_CLASSES), "class_matrix": {"classes": ["class 0", "class 2"], "images": 100},
    "compat": "corrected", "precision": "float32", "seed": 0, "threads": 1,
}  # fmt: skip


@pytest.fixture
def inputs(store: Store) -> dict[str, Artifact]:
    """Images of classes 0, 1, 2 in turns, each with one rectangle of its class."""
    segmentation = np.zeros((COUNT, SIDE, SIDE), dtype=np.uint8)
    for row in range(COUNT):
        segmentation[row, 2 : 6 + row, 3:12] = row % 3 + 1
    labels = np.arange(COUNT) % 3
    return {
        "dataset": toy_dataset(store, count=COUNT, labels=labels, segmentation=segmentation),
        "classifier": toy_classifier(store),
    }


def evaluate(store: Store, inputs: dict[str, Artifact], **changes: Any) -> Artifact:
    job = job_for("evaluate-localization", {**PARAMETERS, **changes}, inputs)
    run_job(job, Context(store))
    return store.open(job.stage, job.key)


def test_values_are_those_of_plain_loops(store: Store, inputs: dict[str, Artifact]) -> None:
    table = read_parquet(evaluate(store, inputs).file(SCORES_FILE))
    model, card = load_classifier(inputs["classifier"])
    with DatasetFile(inputs["dataset"].file(DATASET_FILE)) as dataset:
        images = normalise(torch.from_numpy(dataset.pixels(range(COUNT))), card.mean, card.std)
        segmentation = torch.from_numpy(dataset.segmentation(range(COUNT)))
    own, other = table["metric"].index("own_class_probability"), table["metric"].index("other_class_probability")
    with torch.no_grad():
        for place, row in enumerate((0, 2, 3, 5, 6, 8)):  # images of classes 0 and 2
            masked = images[row] * (segmentation[row] > 0)  # perfect masks are binary: all thresholds agree
            assert table["sample_id"][own + place] == f"image/{row:04d}"
            assert table["target"][own + place] == row % 3
            expected = model(masked[None]).softmax(dim=1)[0, row % 3].item()
            assert table["value"][own + place] == pytest.approx(expected, rel=1e-5)
            nothing = model(torch.zeros_like(images[:1])).softmax(dim=1)[0, row % 3].item()
            assert table["value"][other + place] == pytest.approx(nothing, rel=1e-5)  # the image has none of the other


def test_the_matrix_is_the_mean_over_images(store: Store, inputs: dict[str, Artifact]) -> None:
    artifact = evaluate(store, inputs)
    matrix, table = read_parquet(artifact.file(MATRIX_FILE)), read_parquet(artifact.file(SCORES_FILE))
    cells = dict(zip(zip(matrix["class_in_image"], matrix["mask_of"], strict=True), matrix["probability"], strict=True))
    assert {mask for _, mask in cells} == {"(nothing masked)", "class 0", "class 2"}
    for label in (0, 2):
        values = [
            value
            for metric, target, value in zip(table["metric"], table["target"], table["value"], strict=True)
            if metric == "own_class_probability" and target == label
        ]
        assert cells[f"class {label}", f"class {label}"] == pytest.approx(np.mean(values))
    assert set(matrix["images"]) == {3}


def test_a_single_class_has_nothing_to_compare_with(store: Store, inputs: dict[str, Artifact]) -> None:
    artifact = evaluate(store, inputs, class_matrix={"classes": ["class 1"], "images": 2})
    table = read_parquet(artifact.file(SCORES_FILE))
    assert len(table["value"]) == 2 * len(OF_CLASSES)
    for metric, value, status in zip(table["metric"], table["value"], table["status"], strict=True):
        assert (value is None) == (metric != "own_class_probability")
        assert (status == "ok") == (value is not None)


def test_unknown_classes_and_classes_without_images_are_refused(store: Store, inputs: dict[str, Artifact]) -> None:
    with pytest.raises(DataError, match=r"has no class 'cat', named in class_matrix\.classes"):
        evaluate(store, inputs, class_matrix={"classes": ["cat"], "images": 2})
    with pytest.raises(DataError, match="no test image of the classes"):
        evaluate(store, inputs, class_matrix={"classes": ["class 3"], "images": 2})


def test_kept_masks_are_exported_as_nn_explainer_reads_them(
    store: Store, inputs: dict[str, Artifact], tmp_path: Path
) -> None:
    """For each image and class that it has, the mask of every class: its object's for its own, else nothing."""
    settings = PARAMETERS["class_matrix"]
    kept = evaluate(store, inputs, class_matrix={**settings, "keep_masks": True})
    assert CLASS_MASKS_FILE not in evaluate(store, inputs).manifest.files
    said = list(export(kept, tmp_path))
    assert any("12 masks of every class" in line for line in said)
    with DatasetFile(inputs["dataset"].file(DATASET_FILE)) as dataset:
        segmentation = dataset.segmentation(range(COUNT))
    for row in (0, 2, 3, 5, 6, 8):  # images of classes 0 and 2
        for label in (0, 2):
            path = tmp_path / f"class_masks/target_class_{row % 3}/masks_for_class_{label}/{row:04d}.npz"
            with np.load(path, allow_pickle=False) as file:
                np.testing.assert_array_equal(file["arr_0"], segmentation[row] == label + 1)
    assert len(list((tmp_path / "class_masks").rglob("*.npz"))) == 12


def test_a_damaged_file_of_masks_is_named(tmp_path: Path) -> None:
    (tmp_path / CLASS_MASKS_FILE).write_bytes(b"no masks")
    with pytest.raises(ArtifactError, match=r"class_masks\.h5: damaged"):
        list(read_class_masks(tmp_path / CLASS_MASKS_FILE))
