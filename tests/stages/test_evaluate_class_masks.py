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
from roarline.config.component import MapFilter
from roarline.config.localization import OF_CLASSES
from roarline.data.loading import normalise
from roarline.errors import ArtifactError, DataError
from roarline.execution.run_job import run_job
from roarline.models.load import load_classifier
from roarline.stages import evaluate_class_masks
from roarline.stages.evaluate_class_masks import MATRIX_FILE
from roarline.stages.export import export
from roarline.stages.filter_maps import apply_filter
from roarline.stages.job import Context
from roarline.stages.localization_metrics import NO_MASK, NOT_FINITE
from tests.stages.toy_classifier import job_for, toy_classifier, toy_dataset

SIDE, COUNT = 16, 9
PARAMETERS = {
    "method": "ground_truth", "batched": True, "channels": "sum", "sign": "signed", "params": {}, "mask": "none",
    "metrics": list(OF_CLASSES), "class_matrix": {"classes": ["class 0", "class 2"], "images": 100},
    "compat": "corrected", "precision": "float32", "seed": 0, "threads": 1,
}  # fmt: skip


def rectangles() -> np.ndarray:
    """uint8 [N, SIDE, SIDE], one of each image's class."""
    segmentation = np.zeros((COUNT, SIDE, SIDE), dtype=np.uint8)
    for row in range(COUNT):
        segmentation[row, 2 : 6 + row, 3:12] = row % 3 + 1
    return segmentation


@pytest.fixture
def inputs(store: Store) -> dict[str, Artifact]:
    """Images of classes 0, 1, 2 in turns, each with one rectangle of its class."""
    labels = np.arange(COUNT) % 3
    return {
        "dataset": toy_dataset(store, count=COUNT, labels=labels, segmentation=rectangles()),
        "classifier": toy_classifier(store),
    }


def evaluate(store: Store, inputs: dict[str, Artifact], **changes: Any) -> Artifact:
    job = job_for("evaluate-localization", {**PARAMETERS, **changes}, inputs)
    run_job(job, Context(store))
    return store.open(job.stage, job.key)


@pytest.mark.parametrize(("multi_label", "compat"), [(False, "corrected"), (True, "corrected"), (True, "original")])
def test_values_are_those_of_plain_loops(
    store: Store, inputs: dict[str, Artifact], multi_label: bool, compat: str
) -> None:
    """Labels that don't exclude each other have sigmoids, but in NN-Explainer's notebook."""
    if multi_label:
        labels = np.eye(4, dtype=np.uint8)[np.arange(COUNT) % 3]
        inputs["dataset"] = toy_dataset(store, count=COUNT, labels=labels, segmentation=rectangles())
    table = read_parquet(evaluate(store, inputs, compat=compat).file(SCORES_FILE))
    model, card = load_classifier(inputs["classifier"])

    def probability(image: torch.Tensor, label: int) -> float:
        logits = model(image[None])[0]
        shares = logits.sigmoid() if multi_label and compat == "corrected" else logits.softmax(dim=0)
        return float(shares[label])

    with DatasetFile(inputs["dataset"].file(DATASET_FILE)) as dataset:
        images = normalise(torch.from_numpy(dataset.pixels(range(COUNT))), card.mean, card.std)
        segmentation = torch.from_numpy(dataset.segmentation(range(COUNT)))
    own, other = table["metric"].index("own_class_probability"), table["metric"].index("other_class_probability")
    with torch.no_grad():
        for place, row in enumerate((0, 2, 3, 5, 6, 8)):  # images of classes 0 and 2
            masked = images[row] * (segmentation[row] > 0)  # perfect masks are binary: all thresholds agree
            assert table["sample_id"][own + place] == f"image/{row:04d}"
            assert table["target"][own + place] == row % 3
            assert table["value"][own + place] == pytest.approx(probability(masked, row % 3), rel=1e-5)
            nothing = probability(torch.zeros_like(masked), row % 3)  # the image has none of the other class
            assert table["value"][other + place] == pytest.approx(nothing, rel=1e-5)


def test_masks_are_the_maps_as_the_method_reads_and_filters_them(store: Store, inputs: dict[str, Artifact]) -> None:
    """A constant of -0.5 is a mask of 0.5 by magnitude; a blurred perfect mask is that of plain loops."""
    settings = {**PARAMETERS["class_matrix"], "keep_masks": True}
    half = {"method": "constant", "params": {"value": -0.5}, "sign": "absolute", "class_matrix": settings}
    for kept in read_class_masks(evaluate(store, inputs, **half).file(CLASS_MASKS_FILE)):
        assert (kept.masks == 0.5).all()
    how = {"kind": "blur", "sigma_px": 1.5}
    blurred = evaluate(store, inputs, filter=how, class_matrix=settings)
    for kept, row in zip(read_class_masks(blurred.file(CLASS_MASKS_FILE)), (0, 2, 3, 5, 6, 8), strict=True):
        for label, mask in zip((0, 2), kept.masks, strict=True):
            whole = torch.from_numpy(rectangles()[row] == label + 1).float()
            np.testing.assert_allclose(mask, apply_filter(whole[None], MapFilter(**how))[0], atol=1e-6)


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
        model, card = load_classifier(inputs["classifier"])
        with DatasetFile(inputs["dataset"].file(DATASET_FILE)) as dataset, torch.no_grad():
            pixels = torch.from_numpy(dataset.pixels(range(label, COUNT, 3)))
            whole = model(normalise(pixels, card.mean, card.std)).softmax(dim=1)[:, label]
        assert cells[f"class {label}", "(nothing masked)"] == pytest.approx(whole.mean().item(), rel=1e-5)
    assert set(matrix["images"]) == {3}


def test_a_single_class_has_nothing_to_compare_with(store: Store, inputs: dict[str, Artifact]) -> None:
    artifact = evaluate(store, inputs, class_matrix={"classes": ["class 1"], "images": 2})
    table = read_parquet(artifact.file(SCORES_FILE))
    assert len(table["value"]) == 2 * len(OF_CLASSES)
    for metric, value, status in zip(table["metric"], table["value"], table["status"], strict=True):
        assert (value is None) == (metric != "own_class_probability")
        assert (status == "ok") == (value is not None)


def test_a_map_that_is_no_mask_says_so_and_not_that_the_network_failed(
    store: Store, inputs: dict[str, Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice the perfect mask leaves [0, 1] where an object is: an image's own mask is none, those of others are."""
    plain = evaluate_class_masks.apply_sign
    monkeypatch.setattr(evaluate_class_masks, "apply_sign", lambda maps, sign: 2 * plain(maps, sign))
    table = read_parquet(evaluate(store, inputs).file(SCORES_FILE))
    assert table["value"] == [None] * len(table["value"])
    assert set(table["status"]) == {NO_MASK}
    # Masks of the class that an image hasn't are -1 everywhere: its own is a mask still.
    monkeypatch.setattr(
        evaluate_class_masks, "apply_sign", lambda maps, sign: maps - (maps.amax(dim=(1, 2), keepdim=True) == 0) * 1.0
    )
    table = read_parquet(evaluate(store, inputs, seed=1).file(SCORES_FILE))
    for metric, value, status in zip(table["metric"], table["value"], table["status"], strict=True):
        own = metric == "own_class_probability"
        assert (value is not None) == own, metric
        assert status == ("ok" if own else NO_MASK)


def test_a_network_that_says_nothing_is_named_as_the_reason(
    store: Store, inputs: dict[str, Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        evaluate_class_masks, "_run", lambda extraction, images: torch.full((len(images), 4), torch.nan)
    )
    table = read_parquet(evaluate(store, inputs).file(SCORES_FILE))
    assert set(table["status"]) == {NOT_FINITE}


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
