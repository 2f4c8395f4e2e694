"""The difficult subset of the pointing game: by TorchRay's file, by the rule of objects, and who is left out of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from roarline.artifacts.dataset import DATASET_FILE, DatasetContent, write_dataset
from roarline.artifacts.features import FEATURES_FILE, read_features
from roarline.artifacts.store import Artifact, Store
from roarline.errors import DataError
from roarline.execution.run_job import run_job
from roarline.stages import evaluate_localization as stage
from roarline.stages.difficult_subset import read_flags
from roarline.stages.job import Context, Job
from roarline.stages.localization_metrics import DIFFICULT, NOT_IN_SUBSET
from tests.stages.test_evaluate_localization import PARAMETERS, Found, scores
from tests.stages.toy_classifier import job_for, make_artifact, toy_classifier
from tests.stages.toy_maps import toy_maps

SIDE, METRIC = 16, "pointing_game_difficult"
IDS = ["val/000001.jpg", "000002", "000003", "000004"]
ROWS = [(IDS[0], 0), (IDS[0], 1), (IDS[1], 0), (IDS[1], 1), (IDS[2], 0), (IDS[3], 1)]
BOXES = [
    [0, 0, 0, 0, 6, 8], [0, 1, 8, 8, 15, 15],  # 63 of 256 px, and exactly a quarter
    [1, 0, 0, 0, 4, 4], [1, 0, 8, 0, 15, 4], [1, 1, 0, 10, 3, 12],  # 25 + 40 px together: more than a quarter
    [2, 0, 0, 0, 3, 3],  # small, and alone
    [3, 1, 0, 0, 3, 3], [3, 2, 10, 10, 12, 12],  # small, beside another, and flagged
]  # fmt: skip
LABELS = [[1, 1, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 1, 1, 0]]


def data(store: Store) -> Artifact:
    segmentation = np.zeros((4, SIDE, SIDE), dtype=np.uint8)
    for row, label, x0, y0, x1, y1 in BOXES:
        segmentation[row, y0 : y1 + 1, x0 : x1 + 1] = label + 1
    content = DatasetContent(
        name="toy", class_names=[f"class {index}" for index in range(4)], multi_label=True, sample_ids=IDS,
        split=np.full(4, 2), labels=np.array(LABELS, dtype=np.uint8), mean=None, std=None,
        images=np.zeros((4, 3, SIDE, SIDE), dtype=np.uint8), boxes=np.array(BOXES),
        box_difficult=np.array([0] * 6 + [1, 0]), segmentation=segmentation,
    )  # fmt: skip
    return make_artifact(store, "prepare-data", {}, lambda folder: write_dataset(folder / DATASET_FILE, content))


def evaluate(store: Store, kind: str, file: Path | None = None) -> Artifact:
    """Maps that point at the upper left corner, where every object of class 0 is, and no other but image 3's."""
    dataset, values = data(store), np.zeros((len(ROWS), SIDE, SIDE), dtype=np.float32)
    values[:, 1, 1] = 1
    inputs = {
        "dataset": dataset,
        "classifier": toy_classifier(store),
        "maps": toy_maps(store, dataset, values, rows=ROWS),
    }
    metrics = ["pointing_game", METRIC]
    asked: dict[str, Any] = {"metrics": metrics, "ground_truth": dict.fromkeys(metrics, kind), "tolerance_px": 1}
    if file is not None:
        asked["difficult_subset"] = f"sha256:{file}"
    job = job_for(stage.STAGE, {**PARAMETERS, **asked}, inputs)
    local = {"difficult_subset": str(file)} if file else {}
    run_job(Job(job.stage, 2, job.key, job.label, job.parameters, job.inputs, local), Context(store))
    return store.open(job.stage, job.key)


def column(found: Found) -> list[tuple[float | None, str]]:
    return found[METRIC, ""]


@pytest.mark.parametrize(
    ("kind", "second", "flagged"),
    [("boxes", (None, NOT_IN_SUBSET), (None, DIFFICULT)), ("segmentation", (None, NOT_IN_SUBSET), (1.0, "ok"))],
)
def test_small_objects_beside_others(store: Store, kind: str, second: Any, flagged: Any) -> None:
    """A pair whose objects are all flagged is left out by boxes, as VOC's, and counts by masks, as COCO's crowds."""
    artifact = evaluate(store, kind)
    expected = [(1.0, "ok"), second, (None, NOT_IN_SUBSET), (0.0, "ok"), (None, NOT_IN_SUBSET), flagged]
    assert column(scores(artifact)) == expected
    every = scores(artifact)["pointing_game", ""]
    assert [status for _, status in every[:5]] == ["ok"] * 5
    assert every[5] == flagged
    features = read_features(artifact.file(FEATURES_FILE)).metrics[METRIC]
    assert features.setting == "mean over classes"
    values = dict(zip([(ids, target) for ids, target in sorted(ROWS)], features.values[:, 0], strict=True))
    assert values[IDS[0], 0] == 1
    assert np.isnan(values[IDS[0], 1])


def test_pairs_of_a_file(store: Store, tmp_path: Path) -> None:
    """Pairs with 0 are skipped; images that the file doesn't name are kept; names without folder and suffix agree."""
    file = tmp_path / "difficult.txt"
    file.write_text("000001\t0\t1\t0\t0\nCOCO/000002.jpg\t0\t0\t0\t0\n\n")
    found = column(scores(evaluate(store, "segmentation", file)))
    assert found == [
        (None, NOT_IN_SUBSET), (0.0, "ok"), (None, NOT_IN_SUBSET), (None, NOT_IN_SUBSET), (1.0, "ok"), (1.0, "ok")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\t0\t1\n", r"difficult\.txt:1: expected an image's name and 0 or 1 for each of 4 classes.*got 2 fields"),
        ("a\t0\t1\t0\t2\n", r"difficult\.txt:1: expected"),
        ("000009\t0\t1\t0\t0\n", r"difficult\.txt: names 1 images, none of which is of the data set.*'val/000001.jpg'"),
        ("", r"difficult\.txt: names 0 images"),
        (None, r"difficult\.txt: can't be read"),
    ],
)
def test_a_file_that_is_none_is_named(tmp_path: Path, text: str | None, message: str) -> None:
    file = tmp_path / "difficult.txt"
    if text is not None:
        file.write_text(text)
    with pytest.raises(DataError, match=message):
        read_flags(file, 4, IDS)
