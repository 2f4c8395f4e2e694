"""evaluate-perturbation: ROAD, superpixels, patches and fills that draw, against plain loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from roarline.artifacts.curves import CURVES_FILE, read_curves
from roarline.artifacts.dataset import DATASET_FILE, DatasetFile
from roarline.artifacts.store import Artifact, Store
from roarline.artifacts.tables import SCORES_FILE, read_parquet
from roarline.config.perturbation import EvaluatePerturbation
from roarline.data.loading import normalise
from roarline.evaluation.perturb import Curve, altered_images
from roarline.execution.run_job import run_job
from roarline.imaging.hashed_noise import normal_noise, uniform_noise
from roarline.imaging.imputation import impute
from roarline.imaging.superpixels import find_superpixels
from roarline.models.load import load_classifier
from roarline.stages import evaluate_perturbation as stage
from roarline.stages import perturbation_inputs
from roarline.stages.draws import noise_seeds
from roarline.stages.job import Context
from roarline.stages.perturbation_inputs import RemovalInputs
from roarline.stages.recent import Recent
from tests.stages.toy_classifier import job_for, toy_classifier, toy_dataset
from tests.stages.toy_maps import distinct_values, toy_maps

SIDE, COUNT = 16, 5
NEW = ["road_morf", "road_lerf", "road_combined", "irof", "region_perturbation", "aopc"]
SECTION = {
    "fractions": [0.25, 0.6],
    "road": {"fractions": [0.2, 0.7], "noise": 0.05},
    "irof": {"segments": 9, "steps": 4, "fill": {"kind": "constant", "value": [0.2]}},
    "region_perturbation": {"patch_px": [5, 8], "fractions": [0.0, 0.5]},
    "metrics": NEW,
}


@pytest.fixture
def inputs(store: Store) -> dict[str, Artifact]:
    dataset = toy_dataset(store, count=COUNT)
    maps = toy_maps(store, dataset, distinct_values(COUNT, SIDE))
    return {"dataset": dataset, "classifier": toy_classifier(store), "maps": maps}


def evaluate(store: Store, inputs: dict[str, Artifact], **changes: Any) -> Artifact:
    section = EvaluatePerturbation.model_validate({**SECTION, **changes})
    settings = section.model_dump(mode="json", exclude={"metrics", *section.unused})
    parameters = {**settings, "metrics": section.table_metrics, "sign": "signed", "seed": 0, "threads": 1}
    job = job_for(stage.STAGE, parameters, inputs)
    run_job(job, Context(store))
    return store.open(job.stage, job.key)


def values(artifact: Artifact) -> dict[tuple[str, str], list[float | None]]:
    """(metric, setting) to the values of all rows."""
    table = read_parquet(artifact.file(SCORES_FILE))
    found: dict[tuple[str, str], list[float | None]] = {}
    for metric, setting, value in zip(table["metric"], table["setting"], table["value"], strict=True):
        found.setdefault((metric, setting), []).append(value)
    return found


class Reference:
    """One row by plain loops, one image a pass."""

    def __init__(self, inputs: dict[str, Artifact], row: int) -> None:
        self.model, self.card = load_classifier(inputs["classifier"])
        with DatasetFile(inputs["dataset"].file(DATASET_FILE)) as dataset:
            pixels = torch.from_numpy(dataset.pixels([row]))
        self.map = distinct_values(COUNT, SIDE)[row]
        self.image, self.pixels = normalise(pixels, self.card.mean, self.card.std), pixels / 255
        self.sample_id = f"image/{row:04d}"

    def seed(self, kind: str) -> Tensor:
        return noise_seeds(0, kind, [self.sample_id], "cpu")

    def normalised(self, pixels: Tensor) -> Tensor:
        mean, std = (torch.tensor(values).reshape(1, -1, 1, 1) for values in (self.card.mean, self.card.std))
        return (pixels - mean) / std

    def score(self, image: Tensor) -> float:
        return float(self.model(image).softmax(dim=1)[0, 0])

    def road(self, fraction: float, most_first: bool) -> float:
        order = np.argsort(-self.map.ravel() if most_first else self.map.ravel())
        mask = torch.zeros(SIDE * SIDE, dtype=torch.bool)
        mask[order[: int(fraction * SIDE * SIDE)]] = True
        std = torch.tensor(self.card.std).reshape(1, -1, 1, 1)
        noise = normal_noise(self.seed("imputation"), (3, SIDE, SIDE)) * 0.05 / std
        return self.score(impute(self.image, mask.reshape(1, SIDE, SIDE), noise))

    def regions(self, labels_HW: np.ndarray, fraction: float, fill: Tensor) -> float:
        means = np.array([self.map[labels_HW == label].mean() for label in range(labels_HW.max() + 1)])
        gone = np.argsort(-means)[: int(fraction * len(means) + 1e-9)]
        mask = torch.from_numpy(np.isin(labels_HW, gone))
        return self.score(torch.where(mask, fill, self.image))


def test_every_number_is_what_plain_loops_compute(store: Store, inputs: dict[str, Artifact]) -> None:
    found = values(evaluate(store, inputs))
    assert set(found) == {(name, "") for name in NEW if name != "region_perturbation"} | {
        ("region_perturbation", "patch_px=5"), ("region_perturbation", "patch_px=8")
    }  # fmt: skip
    for row in (0, 4):
        reference = Reference(inputs, row)
        before = reference.score(reference.image)
        morf, lerf = (np.mean([reference.road(f, first) for f in (0.2, 0.7)]) for first in (True, False))
        expected = {("road_morf", ""): morf, ("road_lerf", ""): lerf, ("road_combined", ""): (lerf - morf) / 2}
        labels = find_superpixels(reference.pixels, "slic", 9, compactness=20.0)[0].numpy()
        grey = reference.normalised(torch.full((1, 3, 1, 1), 0.2))
        curve = [reference.regions(labels, fraction, grey) for fraction in (0, 0.25, 0.5, 0.75, 1)]
        expected["irof", ""] = 1 - np.trapezoid(curve, dx=0.25) / before
        noise = reference.normalised(uniform_noise(reference.seed("uniform"), (3, SIDE, SIDE)))
        for side in (5, 8):
            across = -(-SIDE // side)
            y, x = np.mgrid[:SIDE, :SIDE] // side
            drops = [0.0, before - reference.regions(y * across + x, 0.5, noise)]
            expected["region_perturbation", f"patch_px={side}"] = np.mean(drops)
        order = np.argsort(-reference.map.ravel())
        drops = [0.0]
        for fraction in (0.25, 0.6):
            altered = reference.image.clone().reshape(3, -1)
            altered[:, order[: int(fraction * SIDE * SIDE)].copy()] = 0  # the data set's mean is the normalisation's
            drops.append(before - reference.score(altered.reshape(1, 3, SIDE, SIDE)))
        expected["aopc", ""] = np.mean(drops)
        for name, value in expected.items():
            # float32 networks on other batches and memory layouts, and imputation to 1e-5
            assert found[name][row] == pytest.approx(value, rel=1e-3, abs=2e-5), name


def test_curves_of_every_metric_are_kept(store: Store, inputs: dict[str, Artifact]) -> None:
    curves = read_curves(evaluate(store, inputs).file(CURVES_FILE)).by_metric
    assert {name: fractions.tolist() for name, (fractions, _) in curves.items()} == {
        "morf": [0.25, 0.6],
        "road_morf": [0.2, 0.7],
        "road_lerf": [0.2, 0.7],
        "irof": [0.0, 0.25, 0.5, 0.75, 1.0],
        "region_perturbation_5": [0.0, 0.5],
        "region_perturbation_8": [0.0, 0.5],
    }
    assert all(np.isfinite(scores).all() for _, scores in curves.values())


def test_what_is_timed_apart_stands_in_the_provenance(store: Store, inputs: dict[str, Artifact]) -> None:
    provenance = evaluate(store, inputs).manifest.provenance
    assert 0 <= provenance["superpixels_s"] <= provenance["duration_s"]
    assert 0 < provenance["imputation_s"] <= provenance["duration_s"]
    assert "imputation_s" not in evaluate(store, inputs, metrics=["aopc"]).manifest.provenance


def test_noise_is_the_same_for_every_method(store: Store, inputs: dict[str, Artifact]) -> None:
    """Nothing known and everything noise: what is left of the map is nothing."""
    other = toy_maps(store, inputs["dataset"], distinct_values(COUNT, SIDE, seed=9))
    everything = {"metrics": ["road_morf"], "road": {"fractions": [1.0], "noise": 0.5}}
    one, two = (values(evaluate(store, {**inputs, "maps": maps}, **everything)) for maps in (inputs["maps"], other))
    assert one == two
    assert len(set(one["road_morf", ""])) == COUNT
    plain = values(evaluate(store, inputs, metrics=["road_morf"], road={"fractions": [1.0], "noise": 0.0}))
    assert len({round(value or 0, 6) for value in plain["road_morf", ""]}) == 1  # the training split's mean colour


def test_logits_are_the_score_where_they_are_asked_for(store: Store, inputs: dict[str, Artifact]) -> None:
    probability, logit = evaluate(store, inputs), evaluate(store, inputs, score="logit")
    ours, curves = values(logit), read_curves(logit.file(CURVES_FILE)).by_metric
    np.testing.assert_allclose(ours["road_lerf", ""], curves["road_lerf"][1].astype(float).mean(axis=1), rtol=1e-6)
    assert ours["aopc", ""] != values(probability)["aopc", ""]
    statuses = read_parquet(logit.file(SCORES_FILE))
    negative = curves["irof"][1][:, 0] <= 0
    found = [s for m, s in zip(statuses["metric"], statuses["status"], strict=True) if m == "irof"]
    assert [status != "ok" for status in found] == negative.tolist()


def test_every_curve_takes_every_fill(store: Store, inputs: dict[str, Artifact]) -> None:
    for fill in ("uniform_noise", "noisy_linear", {"kind": "constant", "value": [0.1, 0.5, 0.9]}):
        fills = {"fill": fill, "insertion_fill": fill, "deletion_fill": fill, "irof": {"fill": fill, "segments": 9}}
        table = read_parquet(
            evaluate(store, inputs, metrics=["srg", "insertion", "deletion", "irof"], steps=3, **fills).file(
                SCORES_FILE
            )
        )
        assert set(table["status"]) == {"ok"}


def test_superpixels_are_found_once_an_image(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many targets it has, and whatever the method."""
    labels = np.array([[1, 1, 0, 0], [0, 0, 1, 0], [0, 1, 0, 1]], dtype=np.uint8)
    dataset = toy_dataset(store, count=3, labels=labels)
    rows = [(f"image/{image:04d}", int(target)) for image in range(3) for target in np.flatnonzero(labels[image])]
    classifier = toy_classifier(store, multi_label=True)
    cut: list[Tensor] = []

    def watched(images: Tensor, *how: Any, **more: Any) -> Tensor:
        cut.extend(images)
        return find_superpixels(images, *how, **more)

    monkeypatch.setattr(perturbation_inputs, "find_superpixels", watched)
    monkeypatch.setattr(perturbation_inputs, "_superpixels", Recent(2**20))
    for seed in (0, 1):
        maps = toy_maps(store, dataset, distinct_values(len(rows), SIDE, seed), rows=rows)
        artifact = evaluate(store, {"dataset": dataset, "classifier": classifier, "maps": maps}, metrics=["irof"])
        assert len(values(artifact)["irof", ""]) == 5
        assert np.isfinite(read_curves(artifact.file(CURVES_FILE)).by_metric["irof"][1]).all()
    with DatasetFile(dataset.file(DATASET_FILE)) as file:
        assert torch.equal(torch.stack(cut), torch.from_numpy(file.pixels([0, 1, 2])) / 255)


def test_the_training_splits_mean_fills_where_nothing_is_known(inputs: dict[str, Artifact]) -> None:
    """Not the mean that the classifier subtracts, which is another where weights came from elsewhere."""
    _, card = load_classifier(inputs["classifier"])
    section = EvaluatePerturbation.model_validate({**SECTION, "road": {"fractions": [1.0], "noise": 0.0}})
    curves = {fill: Curve((1.0,), "most_relevant_first", fill) for fill in ("noisy_linear", "mean")}
    altered, parameters = altered_images(curves, SIDE * SIDE), {**section.model_dump(mode="json"), "seed": 0}
    removal = RemovalInputs(altered, parameters, card, [0.2, 0.4, 0.6], torch.device("cpu"))
    images = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    fills = removal.fills(images, ["one", "two"])
    colour = ((torch.tensor([0.2, 0.4, 0.6]) - 0.5) / 0.25).reshape(1, 3, 1, 1).expand_as(images)
    imputed, mean = fills["noisy_linear"], fills["mean"]
    assert callable(imputed)
    assert isinstance(mean, Tensor)
    torch.testing.assert_close(imputed(images, torch.ones(2, SIDE, SIDE, dtype=torch.bool), slice(0, 2)), colour)
    torch.testing.assert_close(mean.expand_as(images), colour)
