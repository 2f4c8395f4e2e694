"""evaluate-sanity: what mathematics says of a linear network, controls, statuses, interruptions, shuffled labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.stats import spearmanr

from roarline.artifacts.classifier import WEIGHTS_FILE
from roarline.artifacts.dataset import DATASET_FILE, DatasetFile
from roarline.artifacts.maps import MAPS_FILE, MapsFile
from roarline.artifacts.store import Artifact, Store
from roarline.artifacts.tables import SCORES_FILE, read_parquet
from roarline.config.metrics import METRICS
from roarline.config.sanity import EvaluateSanity
from roarline.data.loading import ImageReader
from roarline.errors import ArtifactError
from roarline.execution.run_job import run_job
from roarline.models.load import load_classifier
from roarline.models.randomisation import RandomWeights, layers_by_use
from roarline.seeds import derive_seed
from roarline.stages import evaluate_sanity as stage
from roarline.stages.job import Context
from roarline.stages.sanity_columns import (
    CASCADING,
    EFFICIENT,
    INDEPENDENT,
    ONE_CLASS,
    RANDOM_LOGIT,
    SILENT,
    SMOOTH,
    STATUSES,
    UNUSABLE,
    Layout,
)
from roarline.stages.splits import Normalization, split_images
from tests.stages.toy_classifier import job_for, make_artifact, toy_classifier, toy_dataset
from tests.stages.toy_maps import distinct_values, toy_maps

SIDE, COUNT, CLASSES = 12, 6, 4
WITH_NETWORK = [CASCADING, INDEPENDENT, SMOOTH, EFFICIENT, RANDOM_LOGIT]
_SECTION = EvaluateSanity(chance_draws=2, repeats=1, depth=None).model_dump(mode="json")
COMPARISON = ("similarities", "normalisation", "window_px", "chance_draws", "limit")
PARAMETERS = {
    **{name: _SECTION[name] for name in (*COMPARISON, "order", "depth", "repeats", "bins")},
    "metrics": WITH_NETWORK, "noisy_copies": {"samples": 2, "noise": 0.1}, "precision": "float32", "seed": 0,
    "threads": 1, "batched": True, "channels": "sum", "sign": "signed", "params": {},
}  # fmt: skip
Found = dict[tuple[str, str], list[tuple[float | None, str]]]


def scores(artifact: Artifact) -> Found:
    """(metric, setting) to (value, status) of each row."""
    table, found = read_parquet(artifact.file(SCORES_FILE)), Found()
    columns = (table[name] for name in ("metric", "setting", "value", "status"))
    for metric, setting, value, status in zip(*columns, strict=True):
        found.setdefault((metric, setting), []).append((value, status))
    return found


@pytest.fixture
def dataset(store: Store) -> Artifact:
    return toy_dataset(store, count=COUNT, side=SIDE)


def linear(store: Store, classes: int = CLASSES) -> Artifact:
    """A linear classifier whose bias is 0."""
    plain = toy_classifier(
        store, side=SIDE, classes=classes, arch="tests.stages.linear_network.build", params={"side": SIDE}
    )

    def write(folder: Path) -> None:
        for file in plain.path.iterdir():
            if file.is_file() and file.name not in (WEIGHTS_FILE, "manifest.json"):
                (folder / file.name).write_bytes(file.read_bytes())
        state = load_file(plain.file(WEIGHTS_FILE))
        save_file(state | {"linear.bias": torch.zeros(classes)}, folder / WEIGHTS_FILE)

    return make_artifact(store, "train-cls", {"linear without bias": classes}, write)


def inputs_of(store: Store, dataset: Artifact, classifier: Artifact | None = None) -> dict[str, Artifact]:
    rows = [(f"image/{row:04d}", row % CLASSES) for row in range(COUNT)]
    maps = toy_maps(store, dataset, distinct_values(COUNT, SIDE), rows=rows)
    return {"dataset": dataset, "classifier": classifier or toy_classifier(store, side=SIDE), "maps": maps}


def evaluate(store: Store, inputs: dict[str, Artifact], method: str, **changes: Any) -> Found:
    job = job_for(stage.STAGE, {**PARAMETERS, "method": method, **changes}, inputs)
    run_job(job, Context(store))
    return scores(store.open(job.stage, job.key))


def values(column: list[tuple[float | None, str]]) -> list[float]:
    assert all(status == "ok" for _, status in column)
    return [value for value, _ in column if value is not None]


@pytest.mark.parametrize("method", ["random", "sobel", "centre_gaussian", "constant"])
def test_what_never_looks_at_the_network_stays_as_it_is_and_fails(store: Store, dataset: Artifact, method: str) -> None:
    found = evaluate(store, inputs_of(store, dataset), method)
    for (metric, setting), column in found.items():
        if metric == EFFICIENT:
            expected: list[Any] = [(None, STATUSES[SILENT])] * COUNT if method == "constant" else [(0.0, "ok")] * COUNT
            assert column == expected
        elif setting.startswith("above chance"):
            assert np.mean(values(column)) > 0, (metric, setting)
        else:
            assert values(column) == [1.0] * COUNT, (metric, setting)


def test_the_gradient_of_a_linear_network_is_its_weight_before_and_after(store: Store, dataset: Artifact) -> None:
    inputs = inputs_of(store, dataset, linear(store))
    found = evaluate(store, inputs, "gradient")
    model, _ = load_classifier(inputs["classifier"])
    learned = model.linear.weight.detach().clone()  # type: ignore[union-attr, operator]
    layers = layers_by_use(model, (3, SIDE, SIDE))
    weights = RandomWeights(model, layers, lambda module: derive_seed(0, stage.STAGE, "weights", module, 0))
    with weights.restoring():
        weights.randomise(layers[0])
        drawn = model.linear.weight.detach().clone()  # type: ignore[union-attr, operator]

    def summed(weight: torch.Tensor) -> np.ndarray:
        return weight.reshape(CLASSES, 3, -1).sum(dim=1).numpy()

    # The stage's sums over channels may be those of another order: a rank or two may change.
    for metric in (CASCADING, INDEPENDENT):
        for row, value in enumerate(values(found[metric, "layer=1 linear, spearman"])):
            target = row % CLASSES
            expected = spearmanr(summed(learned)[target], summed(drawn)[target]).statistic
            assert value == pytest.approx(expected, abs=1e-4)
    assert found[CASCADING, "layer=1 linear, ssim"] == found[CASCADING, "all randomised, ssim"]
    assert found[CASCADING, "mean over layers, ssim"] == found[CASCADING, "all randomised, ssim"]
    for row, value in enumerate(values(found[RANDOM_LOGIT, "spearman"])):
        target = row % CLASSES
        others = [
            spearmanr(summed(learned)[target], summed(learned)[other]).statistic
            for other in range(CLASSES)
            if other != target
        ]
        assert min(abs(value - other) for other in others) < 1e-4


def test_scores_lie_in_their_ranges_and_every_row_has_every_setting(store: Store, dataset: Artifact) -> None:
    found = evaluate(store, inputs_of(store, dataset), "gradient", sign="absolute")
    assert {metric for metric, _ in found} == set(WITH_NETWORK)
    layers = [setting for metric, setting in found if metric == CASCADING and setting.endswith("ssim")]
    assert layers == [
        "layer=1 linear, ssim", "layer=2 conv3, ssim", "layer=3 conv2, ssim", "layer=4 conv1, ssim",
        "mean over layers, ssim", "all randomised, ssim", "above chance, ssim",
    ]  # fmt: skip
    for (metric, setting), column in found.items():
        assert len(column) == COUNT
        low, high = METRICS[metric].range
        if not setting.startswith("above"):
            assert all(value is not None and (low or -1) <= value for value, _ in column)
            assert high is None or all(value is not None and value <= high + 1e-12 for value, _ in column)
    assert found[CASCADING, "layer=1 linear, hog"] == found[INDEPENDENT, "layer=1 linear, hog"]


def test_quantus_the_mean_over_layers_leaves_out_the_network_as_it_was(store: Store, dataset: Artifact) -> None:
    """Quantus's average counts the correlation of the original map with itself, which is 1."""
    found = evaluate(store, inputs_of(store, dataset), "gradient", metrics=[CASCADING])
    layers = [
        values(column) for (_, setting), column in found.items() if setting.startswith("layer=") and ", hog" in setting
    ]
    assert values(found[CASCADING, "mean over layers, hog"]) == pytest.approx(np.mean(layers, axis=0).tolist())
    assert len(layers) == 4


def test_bottom_up_begins_at_the_input_and_ends_with_the_same_network(store: Store, dataset: Artifact) -> None:
    inputs = inputs_of(store, dataset)
    down = evaluate(store, inputs, "gradient", metrics=[CASCADING])
    up = evaluate(store, inputs, "gradient", metrics=[CASCADING], order="bottom_up")
    assert (CASCADING, "layer=1 conv1, ssim") in up
    assert up[CASCADING, "all randomised, spearman"] == down[CASCADING, "all randomised, spearman"]


def test_a_rows_scores_do_not_depend_on_the_other_rows(store: Store, dataset: Artifact) -> None:
    inputs = inputs_of(store, dataset)
    every = evaluate(store, inputs, "smoothgrad", params={"samples": 2}, metrics=[CASCADING, RANDOM_LOGIT])
    alone = evaluate(store, inputs, "smoothgrad", params={"samples": 2}, metrics=[CASCADING, RANDOM_LOGIT], limit=1)
    for place, column in alone.items():
        (value,) = values(column)
        assert min(abs(value - other) for other in values(every[place])) < 1e-4  # float32 maps of another batch


def test_repeats_draw_other_weights_and_their_mean_counts(store: Store, dataset: Artifact) -> None:
    inputs = inputs_of(store, dataset)
    once = evaluate(store, inputs, "gradient", metrics=[CASCADING], similarities=["spearman"])
    twice = evaluate(store, inputs, "gradient", metrics=[CASCADING], similarities=["spearman"], repeats=2)
    assert values(once[CASCADING, "all randomised, spearman"]) != values(twice[CASCADING, "all randomised, spearman"])


def test_noisy_copies_of_a_linear_network_change_nothing(store: Store, dataset: Artifact) -> None:
    found = evaluate(store, inputs_of(store, dataset, linear(store)), "gradient", similarities=["spearman"])
    smooth, plain = (values(found[metric, "all randomised, spearman"]) for metric in (SMOOTH, CASCADING))
    assert smooth == pytest.approx(plain, abs=1e-4)


def test_maps_that_are_no_numbers_are_rows_with_a_status(store: Store, dataset: Artifact) -> None:
    path = "tests.stages.linear_network.not_a_number"
    changes = {"dotted_path": path, "metrics": [CASCADING, EFFICIENT, RANDOM_LOGIT]}
    found = evaluate(store, inputs_of(store, dataset, linear(store)), path, **changes)
    for (metric, _), column in found.items():
        if metric == RANDOM_LOGIT:
            assert all(status == "ok" for _, status in column)
        else:
            assert column == [(None, STATUSES[UNUSABLE])] * COUNT


def test_a_classifier_of_one_class_has_no_other_to_compare_with(store: Store) -> None:
    dataset = toy_dataset(store, count=COUNT, side=SIDE, classes=1)
    inputs = {
        "dataset": dataset, "classifier": toy_classifier(store, side=SIDE, classes=1),
        "maps": toy_maps(store, dataset, distinct_values(COUNT, SIDE)),
    }  # fmt: skip
    found = evaluate(store, inputs, "gradient", metrics=[RANDOM_LOGIT])
    assert all(column == [(None, STATUSES[ONE_CLASS])] * COUNT for column in found.values())


def test_filtered_and_smoothed_methods_are_called_as_extraction_calls_them(store: Store, dataset: Artifact) -> None:
    inputs = inputs_of(store, dataset)
    smooth = {"samples": 2, "noise": 0.1, "kind": "squared"}
    blurred = evaluate(store, inputs, "gradient", filter={"kind": "blur", "sigma_px": 2.0}, smooth=smooth)
    plain = evaluate(store, inputs, "gradient", smooth=smooth)
    assert blurred != plain
    assert plain[SMOOTH, "all randomised, ssim"] == plain[CASCADING, "all randomised, ssim"]  # smooth as it is


def test_an_interrupted_run_goes_on_with_the_next_part(
    store: Store, dataset: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "rows_per_part", lambda height, width: 2)
    inputs = inputs_of(store, dataset)
    parameters = {**PARAMETERS, "method": "gradient", "metrics": [CASCADING]}
    measured: list[list[str]] = []
    original = stage.Sanity.measure

    def stops(self: stage.Sanity, pixels: torch.Tensor, chunk: stage.Chunk) -> dict[str, np.ndarray]:
        if len(measured) == 2:
            measured.append([])
            raise KeyboardInterrupt
        measured.append(chunk.sample_ids)
        return original(self, pixels, chunk)

    monkeypatch.setattr(stage.Sanity, "measure", stops)
    job = job_for(stage.STAGE, parameters, inputs)
    with pytest.raises(KeyboardInterrupt):
        run_job(job, Context(store))
    run_job(job, Context(store))
    assert [ids for ids in measured if ids] == [[f"image/{2 * n:04d}", f"image/{2 * n + 1:04d}"] for n in range(3)]
    monkeypatch.setattr(stage.Sanity, "measure", original)
    whole = evaluate(store, inputs, "gradient", metrics=[CASCADING], threads=2)  # another key, the same numbers
    assert scores(store.open(job.stage, job.key)) == whole


def test_columns_follow_from_metrics_similarities_and_layers() -> None:
    layout = Layout([CASCADING, EFFICIENT], ["ssim", "hog"], [f"layer{number}" for number in range(11)])
    assert len(layout.columns) == 11 * 2 + 2 + 1
    assert layout.at_layer(CASCADING, 0)[0] == (CASCADING, "layer=01 layer0, ssim")
    measured, codes = np.ones((1, 25)), np.zeros((1, 25), dtype=np.int64)
    measured[0, layout.number((CASCADING, "chance, ssim"))] = 0.25
    codes[0, layout.number((CASCADING, "layer=03 layer2, ssim"))] = UNUSABLE
    found, failed = layout.scores(measured, codes)
    assert found[CASCADING, "above chance, ssim"] == 0.75
    assert failed[CASCADING, "mean over layers, ssim"] == UNUSABLE
    assert failed[CASCADING, "all randomised, ssim"] == failed[CASCADING, "mean over layers, hog"] == 0


def test_data_randomisation_compares_two_networks_maps_of_the_same_rows(store: Store, dataset: Artifact) -> None:
    rows = [(f"image/{row:04d}", row % CLASSES) for row in range(COUNT)]
    first, second = distinct_values(COUNT, SIDE), distinct_values(COUNT, SIDE, seed=1)
    second[2] = first[2]
    shuffled = toy_maps(store, dataset, second[::-1].copy(), rows=rows[::-1])
    inputs = {"dataset": dataset, "maps": toy_maps(store, dataset, first, rows=rows), "shuffled_maps": shuffled}
    parameters = {name: PARAMETERS[name] for name in (*COMPARISON, "sign", "seed", "threads")}
    job = job_for(stage.STAGE, {**parameters, "metrics": ["data_randomisation"]}, inputs)
    run_job(job, Context(store))
    found = scores(store.open(job.stage, job.key))
    expected = [spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(first, second, strict=True)]
    assert values(found["data_randomisation", "spearman"]) == pytest.approx(expected)
    assert values(found["data_randomisation", "ssim"])[2] == 1
    inputs["shuffled_maps"] = toy_maps(store, dataset, second[:4].copy(), rows=rows[:4])
    with pytest.raises(ArtifactError, match=r"2 of 6 rows have no map, e\.g\. sample 'image/0004' for class 0"):
        run_job(job_for(stage.STAGE, {**parameters, "metrics": ["data_randomisation"]}, inputs), Context(store))


def test_maps_of_the_shuffled_network_are_of_the_rows_that_it_is_told(store: Store, dataset: Artifact) -> None:
    rows = [(f"image/{row:04d}", target) for row in range(COUNT) for target in (row % CLASSES, (row + 1) % CLASSES)]
    known = toy_maps(store, dataset, distinct_values(len(rows), SIDE), rows=rows)
    inputs = {"dataset": dataset, "classifier": toy_classifier(store, side=SIDE), "targets": known}
    extraction = {
        "method": "gradient", "params": {}, "batched": True, "channels": "sum", "split": "test", "dtype": "float32",
        "target": "predicted", "precision": "float32", "seed": 0, "threads": 1,
    }  # fmt: skip
    job = job_for("extract-attribution-maps", extraction, inputs)
    run_job(job, Context(store))
    with MapsFile(store.open(job.stage, job.key).file(MAPS_FILE)) as maps:
        assert sorted(zip(maps.sample_ids, maps.targets.tolist(), strict=True)) == sorted(rows)


def test_shuffled_labels_are_the_same_labels_in_another_order(store: Store) -> None:
    labels = np.arange(40) % CLASSES
    dataset = toy_dataset(store, count=40, side=SIDE, split=np.zeros(40, dtype=np.int64), labels=labels)
    with DatasetFile(dataset.file(DATASET_FILE)) as file, ImageReader(file, None, 1) as reader:
        images = split_images(file, reader, "train", Normalization([0.5] * 3, [0.25] * 3), "cpu")
        shuffled, again = images.with_shuffled_labels(0), images.with_shuffled_labels(0)
    assert sorted(shuffled.labels.tolist()) == sorted(images.labels.tolist())
    assert shuffled.labels.tolist() != images.labels.tolist()
    assert shuffled.labels.tolist() == again.labels.tolist()
    assert shuffled.sample_ids == images.sample_ids
