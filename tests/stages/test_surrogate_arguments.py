"""evaluate-f-fidelity and evaluate-idsds do what their configuration says: other arguments, by plain loops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor

from roarline.artifacts.dataset import DATASET_FILE, DatasetFile
from roarline.artifacts.score_table import read_scores
from roarline.artifacts.store import Artifact, Store
from roarline.artifacts.tables import SCORES_FILE
from roarline.execution.run_job import run_job
from roarline.imaging.patches import patch_index
from roarline.imaging.ranking import rank_pixels
from roarline.models.load import load_classifier
from roarline.seeds import derive_seed
from roarline.stages.job import Context
from tests.stages.test_surrogates import F_FIDELITY, IDSDS
from tests.stages.toy_classifier import job_for, toy_classifier, toy_dataset
from tests.stages.toy_maps import distinct_values, toy_maps

SIDE, COUNT, PIXELS = 8, 5, 64
ROWS = [(f"image/{row:04d}", row % 3) for row in range(COUNT)]
FILLS = {"mean": 0.0, "zero": -2.0}  # (0.5 - 0.5) / 0.25 and (0 - 0.5) / 0.25
Score = Callable[[Tensor, int], float]


@pytest.fixture
def maps() -> np.ndarray:
    """Distinct magnitudes, most of which are negative."""
    return distinct_values(COUNT, SIDE, seed=3) - 0.25


def inputs(store: Store, maps: np.ndarray, *, multi_label: bool) -> dict[str, Artifact]:
    labels = np.eye(4, dtype=np.uint8)[np.arange(COUNT) % 3] if multi_label else np.arange(COUNT) % 3
    dataset = toy_dataset(store, count=COUNT, side=SIDE, labels=labels)
    classifier = toy_classifier(store, side=SIDE, multi_label=multi_label)
    return {"dataset": dataset, "classifier": classifier, "maps": toy_maps(store, dataset, maps, rows=ROWS)}


def images_and_score(known: dict[str, Artifact], kind: str, *, multi_label: bool) -> tuple[Tensor, Score]:
    """Normalised images, and what the network says of one of them and a target."""
    model, _ = load_classifier(known["classifier"])
    with DatasetFile(known["dataset"].file(DATASET_FILE)) as file:
        images = (torch.from_numpy(file.pixels(range(COUNT))).float() / 255 - 0.5) / 0.25

    def score(image: Tensor, target: int) -> float:
        with torch.no_grad():
            logits = model.eval()(image[None])[0]
        if kind == "logit":
            return logits[target].item()
        if kind == "probability":
            return (logits.sigmoid() if multi_label else logits.softmax(dim=0))[target].item()
        return float(logits[target] > 0 if multi_label else logits.argmax() == target)

    return images, score


def column(store: Store, stage: str, parameters: dict[str, Any], known: dict[str, Artifact]) -> dict[Any, list[float]]:
    job = job_for(stage, parameters, known)
    run_job(job, Context(store))
    table = read_scores(store.open(stage, job.key).file(SCORES_FILE))
    return {name: found.values.tolist() for name, found in table.columns.items()}


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize(
    ("score", "fill", "sign"), [("probability", "zero", "absolute"), ("decision", "mean", "signed")]
)
def test_f_fidelity(store: Store, maps: np.ndarray, multi_label: bool, score: str, fill: str, sign: str) -> None:
    """Of 64 pixels β allows 32: all of α⁻ for the larger explanation, less than it for the smaller."""
    known = inputs(store, maps, multi_label=multi_label)
    asked = {"beta": 0.5, "alpha_plus": 0.25, "alpha_minus": 0.75, "sizes": [0.25, 0.5], "samples": 4, "seed": 6}
    parameters = {**F_FIDELITY, **asked, "score": score, "fill": fill, "sign": sign}
    found = column(store, "evaluate-f-fidelity", parameters, known)
    images, says = images_and_score(known, score, multi_label=multi_label)
    counts = {0.25: {"ffid_plus": 4, "ffid_minus": 32}, 0.5: {"ffid_plus": 8, "ffid_minus": 24}}
    moved = 0.0
    for row, (sample_id, target) in enumerate(ROWS):
        relevance = np.abs(maps[row]).ravel() if sign == "absolute" else maps[row].ravel()
        whole = says(images[row], target)
        for size, gone in counts.items():
            inside = set(np.argsort(-relevance)[: int(size * PIXELS)].tolist())
            for metric, count in gone.items():
                after = []
                for draw in range(4):
                    seed = derive_seed(6, "evaluate-f-fidelity", "gaps", sample_id, target, draw)
                    order = rank_pixels(torch.zeros(1, SIDE, SIDE), [seed]).flatten().tolist()
                    part = [pixel for pixel in order if (pixel in inside) == (metric == "ffid_plus")]
                    altered = images[row].flatten(1).clone()
                    altered[:, part[:count]] = FILLS[fill]
                    after.append(says(altered.reshape(images[row].shape), target))
                expected = whole - np.mean(after)
                moved += abs(expected)
                value = found[metric, f"explanation_size={size:g}"][row]
                assert value == pytest.approx(expected, abs=1e-5), (metric, size)  # float32 passes, batched otherwise
    assert moved > 0.1  # else nothing was tested


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize(("score", "fill", "sign"), [("probability", "zero", "absolute"), ("logit", "mean", "signed")])
def test_idsds(store: Store, maps: np.ndarray, multi_label: bool, score: str, fill: str, sign: str) -> None:
    known = inputs(store, maps, multi_label=multi_label)
    parameters = {**IDSDS, "grid": 3, "score": score, "fill": fill, "sign": sign}
    found = column(store, "evaluate-idsds", parameters, known)["idsds", ""]
    images, says = images_and_score(known, score, multi_label=multi_label)
    patches = patch_index(SIDE, SIDE, 3, torch.device("cpu")).numpy()
    for row, (_, target) in enumerate(ROWS):
        relevance = np.abs(maps[row]) if sign == "absolute" else maps[row]
        drops, sums = [], []
        for patch in range(9):
            altered = images[row].clone()
            altered[:, patches == patch] = FILLS[fill]
            drops.append(says(images[row], target) - says(altered, target))
            sums.append(relevance[patches == patch].sum())
        assert found[row] == pytest.approx(spearmanr(drops, sums).statistic)
