"""GridPG and DiFull: what is composed, what perfect, random and gradient maps score, what is refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from roarline.artifacts.dataset import DATASET_FILE, DatasetFile
from roarline.artifacts.store import Artifact, Store
from roarline.artifacts.tables import SCORES_FILE, read_parquet
from roarline.config.component import MapFilter
from roarline.data.loading import normalise
from roarline.errors import DataError, ModelError
from roarline.evaluation.grid_cells import cell_mask, draw_grids
from roarline.execution.run_job import run_job
from roarline.models.load import load_classifier
from roarline.stages import evaluate_grids
from roarline.stages.filter_maps import apply_filter
from roarline.stages.job import Context
from tests.stages.toy_classifier import job_for, toy_classifier, toy_dataset

PARAMETERS = {
    "batched": True, "channels": "sum", "sign": "absolute", "params": {}, "metrics": ["grid_pointing_game", "difull"],
    "grid": {"side": 2, "count": 5, "confidence": 0.0}, "precision": "float32", "seed": 0, "threads": 1,
}  # fmt: skip


@pytest.fixture
def inputs(store: Store) -> dict[str, Artifact]:
    """An untrained network that calls several classes; labels are what it says."""
    plain = toy_dataset(store, count=40, labels=np.zeros(40, dtype=np.int64))
    classifier = toy_classifier(store)
    model, card = load_classifier(classifier)
    with DatasetFile(plain.file(DATASET_FILE)) as file, torch.no_grad():
        said = model(normalise(torch.from_numpy(file.pixels(range(40))), card.mean, card.std)).argmax(dim=1).numpy()
    return {"dataset": toy_dataset(store, count=40, labels=said), "classifier": classifier}


def evaluate(store: Store, inputs: dict[str, Artifact], method: str, **changes: Any) -> dict[str, list[float]]:
    """Metric to values, in the file's order."""
    job = job_for("evaluate-localization", {**PARAMETERS, "method": method, **changes}, inputs)
    run_job(job, Context(store))
    table = read_parquet(store.open(job.stage, job.key).file(SCORES_FILE))
    found: dict[str, list[float]] = {}
    for metric, value, status in zip(table["metric"], table["value"], table["status"], strict=True):
        assert status == "ok"
        found.setdefault(metric, []).append(value)
    return found


@pytest.fixture(autouse=True)
def any_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """An untrained network may call few classes: two in a grid of 1 × 2 wouldn't be square, so let classes repeat."""

    def drawn(labels: Any, targets: np.ndarray, side: int, count: int, seeds: list[int]) -> np.ndarray:
        draws = [np.random.default_rng(seed).permutation(len(targets))[: side**2] for seed in seeds[:count]]
        return np.array(draws)

    monkeypatch.setattr(evaluate_grids, "draw_grids", drawn)


def test_perfect_maps_score_one_and_constant_ones_the_area(store: Store, inputs: dict[str, Artifact]) -> None:
    perfect = evaluate(store, inputs, "ground_truth")
    constant = evaluate(store, inputs, "constant", params={"value": 1.0})
    for metric in PARAMETERS["metrics"]:  # type: ignore[attr-defined]
        assert perfect[metric] == [1.0] * 20
        assert constant[metric] == pytest.approx([0.25] * 20)


def test_gradients_never_leave_the_cell_of_a_network_that_sees_no_other(
    store: Store, inputs: dict[str, Artifact]
) -> None:
    found = evaluate(store, inputs, "gradient")
    assert found["difull"] == [1.0] * 20
    assert max(found["grid_pointing_game"]) < 1  # as it is, the network sees all of the grid


def test_an_interrupted_run_goes_on_with_the_next_cell(
    store: Store, inputs: dict[str, Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = evaluate(store, inputs, "gradient")
    scored, original = [], evaluate_grids.score_cell

    def failing(*args: Any) -> Any:
        scored.append(args[4])
        if len(scored) == 3:
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(evaluate_grids, "score_cell", failing)
    with pytest.raises(KeyboardInterrupt):
        evaluate(store, inputs, "gradient", threads=2)
    again = evaluate(store, inputs, "gradient", threads=2)
    assert scored == [0, 1, 2, 2, 3]
    for metric, values in whole.items():
        assert again[metric] == pytest.approx(values, rel=1e-5)


def test_images_that_the_classifier_is_not_sure_of_are_left_out(
    store: Store, inputs: dict[str, Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate_grids, "draw_grids", draw_grids)
    with pytest.raises(DataError, match=r"gives 0 test images .* lower evaluate-localization.grid.confidence"):
        evaluate(store, inputs, "gradient", grid={"side": 2, "count": 5, "confidence": 1.0})


@pytest.mark.parametrize("sure", [False, True])
@pytest.mark.parametrize("multi_label", [False, True])
def test_grids_are_of_images_that_the_classifier_is_right_and_sure_about(
    store: Store, inputs: dict[str, Artifact], monkeypatch: pytest.MonkeyPatch, multi_label: bool, sure: bool
) -> None:
    """Every other image has a label that the network doesn't give it; of the rest those above the confidence."""
    model, card = load_classifier(inputs["classifier"])
    with DatasetFile(inputs["dataset"].file(DATASET_FILE)) as file, torch.no_grad():
        logits = model(normalise(torch.from_numpy(file.pixels(range(40))), card.mean, card.std)).double()
    said = logits.argmax(dim=1).numpy()
    labels = (said + np.arange(40) % 2) % 4
    dataset = toy_dataset(store, count=40, labels=np.eye(4, dtype=np.uint8)[labels] if multi_label else labels)
    probabilities = (logits.sigmoid() if multi_label else logits.softmax(dim=1)).amax(dim=1).numpy()
    confidence = float(np.median(probabilities[::2])) if sure else 1e-9
    expected = said[::2][probabilities[::2] >= confidence]
    assert len(expected) == (10 if sure else 20)
    seen: list[np.ndarray] = []
    drawn = evaluate_grids.draw_grids

    def watching(hot: np.ndarray, targets: np.ndarray, *rest: Any) -> np.ndarray:
        seen.append(targets)
        assert hot[np.arange(len(targets)), targets].all()
        return drawn(hot, targets, *rest)

    monkeypatch.setattr(evaluate_grids, "draw_grids", watching)
    grid = {"side": 2, "count": 50, "confidence": confidence}
    evaluate(store, {**inputs, "dataset": dataset}, "constant", params={"value": 1.0}, grid=grid)
    assert sorted(seen[0].tolist()) == sorted(expected.tolist())


def test_maps_of_grids_are_read_and_filtered_as_the_method_s(store: Store, inputs: dict[str, Artifact]) -> None:
    """The cell's mask turned negative has all its relevance there by magnitude, none of its own; blurred, less."""
    plain = evaluate_grids.Extraction.fetch

    def negative(self: Any, *args: Any) -> Any:
        rows = plain(self, *args)
        return dataclasses.replace(rows, maps=-rows.maps)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate_grids.Extraction, "fetch", negative)
        assert evaluate(store, inputs, "ground_truth")["grid_pointing_game"] == [1.0] * 20
        signed = evaluate(store, inputs, "ground_truth", sign="signed")["grid_pointing_game"]
    assert signed == pytest.approx([0.25] * 20)  # no positive value: read as uniform
    blurred = evaluate(store, inputs, "ground_truth", filter={"kind": "blur", "sigma_px": 2.0})["grid_pointing_game"]
    for cell, share in enumerate(blurred[:: len(blurred) // 4]):
        mask = cell_mask((16, 16), 2, cell)
        soft = apply_filter(mask.float()[None], MapFilter(kind="blur", sigma_px=2.0))[0]
        assert share == pytest.approx((soft * mask).sum().item() / soft.sum().item(), rel=1e-5)
        assert share < 0.95


def classify_by(network: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stage gets this network with the toy classifier's card."""
    load = evaluate_grids.load_classifier
    monkeypatch.setattr(evaluate_grids, "load_classifier", lambda artifact: (network.eval(), load(artifact)[1]))


def test_networks_of_a_fixed_size_are_refused(
    store: Store, inputs: dict[str, Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fixed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(3 * 16 * 16, 4)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.linear(images.flatten(1))  # type: ignore[no-any-return]

    classify_by(Fixed(), monkeypatch)
    with pytest.raises(ModelError, match="can't look at grids of 2 × 2 images, 32×32 px"):
        evaluate(store, inputs, "gradient")


def test_networks_that_mix_cells_by_other_means_are_refused_for_difull_alone(
    store: Store, inputs: dict[str, Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Scaled(torch.nn.Module):
        """Takes the standard deviation of the whole grid off every cell."""

        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.Sequential(
                torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
            )

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            scaled = images - images.std(dim=(2, 3), keepdim=True)
            return self.layers(scaled)  # type: ignore[no-any-return]

    torch.manual_seed(0)
    classify_by(Scaled(), monkeypatch)
    with pytest.raises(ModelError, match=r"its cells can't be taken apart.*leave difull out"):
        evaluate(store, inputs, "gradient")
    assert len(evaluate(store, inputs, "gradient", metrics=["grid_pointing_game"])["grid_pointing_game"]) == 20


def test_references_of_a_method_are_grids_too(store: Store, inputs: dict[str, Artifact]) -> None:
    """gradient_shap goes from training images to the image: on a grid, from grids."""
    split = np.where(np.arange(40) < 20, 0, 2)
    dataset = toy_dataset(store, count=40, labels=np.arange(40) % 4, split=split)
    params = {"samples": 2, "reference_images": 8}
    found = evaluate(store, {**inputs, "dataset": dataset}, "gradient_shap", params=params)
    assert found["difull"] == [1.0] * 20


def test_classes_of_a_grid_are_apart() -> None:
    generator = np.random.default_rng(0)
    labels = generator.random((60, 8)) < 0.2
    targets = generator.integers(0, 8, 60)
    labels[np.arange(60), targets] = True
    grids = draw_grids(labels, targets, 2, 30, list(range(30)))
    assert len(grids) > 5
    for grid in grids:
        for cell in grid:
            assert sum(labels[other, targets[cell]] for other in grid) == 1


def test_cells_are_counted_row_by_row() -> None:
    mask = cell_mask((2, 3), 2, 2)
    assert mask.shape == (4, 6)
    assert mask[2:, :3].all()
    assert mask.sum() == 6
