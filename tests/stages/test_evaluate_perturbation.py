"""evaluate-perturbation: its numbers, how it goes on after an interruption, and what it refuses."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from roarline.artifacts.curves import CURVES_FILE, read_curves
from roarline.artifacts.dataset import DATASET_FILE, DatasetContent, DatasetFile, write_dataset
from roarline.artifacts.store import Artifact, Store
from roarline.artifacts.tables import SCORES_FILE, read_parquet
from roarline.config.perturbation import EvaluatePerturbation
from roarline.data.loading import normalise
from roarline.errors import ArtifactError, DataError, MethodError, ModelError
from roarline.execution.run_job import run_job
from roarline.imaging.ranking import rank_pixels
from roarline.imaging.smoothing import gaussian_blur
from roarline.models.load import load_classifier
from roarline.stages import evaluate_perturbation as stage
from roarline.stages.job import Context
from tests.stages.toy_classifier import job_for, make_artifact, toy_classifier, toy_dataset
from tests.stages.toy_maps import distinct_values, toy_maps

SIDE, COUNT = 16, 12
PARAMETERS = {
    **EvaluatePerturbation(fractions=[0.0, 0.25, 0.6, 1.0], steps=5).model_dump(mode="json"),
    "sign": "signed", "seed": 0, "threads": 1,
}  # fmt: skip


@pytest.fixture
def inputs(store: Store) -> dict[str, Artifact]:
    """Twelve images, a network, tie-free maps."""
    dataset = toy_dataset(store)
    return {
        "dataset": dataset,
        "classifier": toy_classifier(store),
        "maps": toy_maps(store, dataset, distinct_values(COUNT, SIDE)),
    }


def evaluate(store: Store, inputs: dict[str, Artifact], context: Context | None = None, **parameters: Any) -> Artifact:
    """Run the stage; the artifact."""
    job = job_for(stage.STAGE, {**PARAMETERS, **parameters}, inputs)
    run_job(job, context or Context(store))
    return store.open(job.stage, job.key)


def scores(artifact: Artifact) -> dict[tuple[str, str], dict[tuple[str, int], float | None]]:
    """(metric, setting) to (sample id, target) to value."""
    table = read_parquet(artifact.file(SCORES_FILE))
    found: dict[tuple[str, str], dict[tuple[str, int], float | None]] = {}
    for sample, target, metric, setting, value, _ in zip(*table.values(), strict=True):
        found.setdefault((metric, setting), {})[sample, target] = value
    return found


def values(artifact: Artifact, metric: str, setting: str = "") -> np.ndarray:
    """In the file's order."""
    return np.array(list(scores(artifact)[metric, setting].values()), dtype=float)


def reference_scores(inputs: dict[str, Artifact], row: int, target: int) -> dict[tuple[str, str], float]:
    """One row's numbers by plain loops: sort, replace, one image a pass, add up trapezoids."""
    model, card = load_classifier(inputs["classifier"])
    with DatasetFile(inputs["dataset"].file(DATASET_FILE)) as dataset:
        image = normalise(torch.from_numpy(dataset.pixels([row])), card.mean, card.std)[0]
    order = np.argsort(-distinct_values(COUNT, SIDE)[row].ravel())  # most relevant first, no ties
    blurred = gaussian_blur(image, 0.1 * SIDE)

    def probability(gone: np.ndarray, fill: Tensor) -> float:
        altered = image.clone().reshape(3, -1)
        altered[:, gone.copy()] = fill.reshape(3, -1)[:, gone.copy()]
        return float(model(altered.reshape(1, 3, SIDE, SIDE)).softmax(dim=1)[0, target])

    def area(points: list[tuple[float, float]]) -> float:
        return sum((x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in itertools.pairwise(points))

    mean = torch.zeros_like(image)  # the data set's mean is the normalisation's
    pixels, fractions = SIDE * SIDE, PARAMETERS["fractions"]
    morf = [(f, probability(order[: int(f * pixels)], mean)) for f in fractions]
    lerf = [(f, probability(order[pixels - int(f * pixels) :], mean)) for f in fractions]
    fine = [step / 5 for step in range(6)]
    deletion = [(f, probability(order[: int(f * pixels)], mean)) for f in fine]
    insertion = [(f, probability(order[int(f * pixels) :], blurred)) for f in fine]
    before = probability(order[:0], mean)
    found = {
        ("morf", ""): area(morf), ("lerf", ""): area(lerf), ("srg", ""): area(lerf) - area(morf),
        ("deletion", ""): area(deletion), ("insertion", ""): area(insertion),
    }  # fmt: skip
    for name, points in (("morf_deviation", morf), ("lerf_deviation", lerf)):
        for fraction, after in points:
            found[name, f"removed_fraction={fraction:g}"] = 100 * abs(before - after) / before
    return found


def test_every_number_is_what_plain_loops_compute(store: Store, inputs: dict[str, Artifact]) -> None:
    found = scores(evaluate(store, inputs))
    for row in (0, 5, 11):
        expected = reference_scores(inputs, row, target=0)
        assert set(expected) == set(found)
        for name, value in expected.items():
            # float32 networks on other batches and memory layouts; deviations are in percent.
            tolerance = 1e-3 if "deviation" in name[0] else 1e-5
            assert found[name][f"image/{row:04d}", 0] == pytest.approx(value, rel=1e-4, abs=tolerance)


def test_files_have_a_row_for_each_image_metric_and_setting(store: Store, inputs: dict[str, Artifact]) -> None:
    artifact = evaluate(store, inputs)
    table = read_parquet(artifact.file(SCORES_FILE))
    assert list(table) == ["sample_id", "target", "metric", "setting", "value", "status"]
    assert len(table["value"]) == COUNT * (5 + 2 * 4)
    assert set(table["status"]) == {"ok"}
    curves = read_curves(artifact.file(CURVES_FILE))
    assert curves.sample_ids == [f"image/{index:04d}" for index in range(COUNT)]
    assert {name: scores.shape for name, (_, scores) in curves.by_metric.items()} == {
        "morf": (COUNT, 4), "lerf": (COUNT, 4), "insertion": (COUNT, 6), "deletion": (COUNT, 6)
    }  # fmt: skip
    fractions, morf = curves.by_metric["morf"]
    np.testing.assert_allclose(values(artifact, "morf"), np.trapezoid(morf.astype(float), fractions), atol=1e-12)


def test_only_what_was_asked_for_is_written(store: Store, inputs: dict[str, Artifact]) -> None:
    artifact = evaluate(store, inputs, metrics=["insertion", "insertion"])
    assert set(scores(artifact)) == {("insertion", "")}
    assert len(read_parquet(artifact.file(SCORES_FILE))["value"]) == COUNT
    assert set(read_curves(artifact.file(CURVES_FILE)).by_metric) == {"insertion"}


def test_morf_of_a_map_is_lerf_of_its_negative(store: Store, inputs: dict[str, Artifact]) -> None:
    negative = toy_maps(store, inputs["dataset"], -distinct_values(COUNT, SIDE))
    one, other = evaluate(store, inputs), evaluate(store, {**inputs, "maps": negative})
    np.testing.assert_array_equal(values(one, "morf"), values(other, "lerf"))
    np.testing.assert_array_equal(values(one, "srg"), -values(other, "srg"))


def test_a_monotone_map_of_the_values_changes_nothing(store: Store, inputs: dict[str, Artifact]) -> None:
    stretched = toy_maps(store, inputs["dataset"], (distinct_values(COUNT, SIDE) / 100) ** 3)
    assert evaluate(store, {**inputs, "maps": stretched}).digest == evaluate(store, inputs).digest


def test_sign_decides_how_values_are_read(store: Store, inputs: dict[str, Artifact]) -> None:
    magnitudes = toy_maps(store, inputs["dataset"], np.abs(distinct_values(COUNT, SIDE) + 0.25))
    signed = toy_maps(store, inputs["dataset"], distinct_values(COUNT, SIDE) + np.float32(0.25))
    absolute = evaluate(store, {**inputs, "maps": signed}, sign="absolute")
    assert absolute.digest == evaluate(store, {**inputs, "maps": magnitudes}).digest
    assert absolute.digest != evaluate(store, {**inputs, "maps": signed}).digest


def test_maps_with_channels_are_read_by_their_largest(store: Store, inputs: dict[str, Artifact]) -> None:
    channels = np.stack([distinct_values(COUNT, SIDE, seed) for seed in range(3)], axis=1)
    with_channels = toy_maps(store, inputs["dataset"], channels)
    reduced = toy_maps(store, inputs["dataset"], channels.max(axis=1))
    assert (
        evaluate(store, {**inputs, "maps": with_channels}).digest == evaluate(store, {**inputs, "maps": reduced}).digest
    )


def test_rows_are_joined_by_sample_id_not_by_position(store: Store, inputs: dict[str, Artifact]) -> None:
    order = np.random.default_rng(0).permutation(COUNT)
    rows = [(f"image/{index:04d}", 0) for index in order]
    shuffled = toy_maps(store, inputs["dataset"], distinct_values(COUNT, SIDE)[order], rows=rows)
    assert evaluate(store, {**inputs, "maps": shuffled}).digest == evaluate(store, inputs).digest


def test_a_logit_score_leaves_the_deviations_those_of_the_probability(
    store: Store, inputs: dict[str, Artifact]
) -> None:
    probability, logit = evaluate(store, inputs), evaluate(store, inputs, score="logit")
    assert (values(probability, "morf") != values(logit, "morf")).all()
    setting = "removed_fraction=0.6"
    np.testing.assert_array_equal(
        values(probability, "morf_deviation", setting), values(logit, "morf_deviation", setting)
    )


def test_original_compat_differs_only_where_nothing_is_removed(store: Store, inputs: dict[str, Artifact]) -> None:
    corrected, original = evaluate(store, inputs), evaluate(store, inputs, compat="original")
    assert (values(corrected, "morf_deviation", "removed_fraction=0") == 0).all()
    np.testing.assert_array_equal(
        values(original, "morf_deviation", "removed_fraction=0"),
        values(original, "morf_deviation", "removed_fraction=1"),
    )
    for name in scores(corrected):
        same = np.array_equal(values(corrected, *name), values(original, *name))
        assert same == (name not in {("morf", ""), ("srg", ""), ("morf_deviation", "removed_fraction=0")}), name


def test_limit_draws_the_same_images_for_every_method(store: Store, inputs: dict[str, Artifact]) -> None:
    other = toy_maps(store, inputs["dataset"], distinct_values(COUNT, SIDE, seed=9))
    some = [scores(evaluate(store, {**inputs, "maps": maps}, limit=5)) for maps in (inputs["maps"], other)]
    assert list(some[0]["morf", ""]) == list(some[1]["morf", ""])
    assert len(some[0]["morf", ""]) == 5
    everything = scores(evaluate(store, inputs))
    for sample, value in some[0]["morf", ""].items():
        assert value == pytest.approx(everything["morf", ""][sample], rel=1e-4)
    assert list(scores(evaluate(store, inputs, limit=5, seed=1))["morf", ""]) != list(some[0]["morf", ""])
    assert len(scores(evaluate(store, inputs, limit=500))["morf", ""]) == COUNT


def test_images_with_several_targets_have_several_rows(store: Store) -> None:
    labels = np.array([[1, 1, 0, 0], [0, 0, 1, 0], [0, 1, 0, 1]], dtype=np.uint8)
    dataset = toy_dataset(store, count=3, labels=labels)
    rows = [(f"image/{image:04d}", int(target)) for image in range(3) for target in np.flatnonzero(labels[image])]
    inputs = {
        "dataset": dataset,
        "classifier": toy_classifier(store, multi_label=True),
        "maps": toy_maps(store, dataset, distinct_values(len(rows), SIDE), rows=rows),
    }
    artifact = evaluate(store, inputs, metrics=["morf", "lerf"])
    assert list(scores(artifact)["morf", ""]) == rows
    curves = read_curves(artifact.file(CURVES_FILE))
    model, card = load_classifier(inputs["classifier"])
    with DatasetFile(dataset.file(DATASET_FILE)) as file:
        logits = model(normalise(torch.from_numpy(file.pixels([0, 0, 1, 2, 2])), card.mean, card.std))
    expected = logits.sigmoid()[torch.arange(5), torch.tensor([target for _, target in rows])]
    np.testing.assert_allclose(curves.by_metric["morf"][1][:, 0], expected.numpy(), rtol=1e-4)
    np.testing.assert_array_equal(curves.by_metric["morf"][1][:, 0], curves.by_metric["lerf"][1][:, 0])


def test_without_a_training_split_the_mean_is_the_classifiers(store: Store, inputs: dict[str, Artifact]) -> None:
    with DatasetFile(inputs["dataset"].file(DATASET_FILE)) as file:
        images, ids, labels = file.pixels(range(COUNT)), file.sample_ids, file.labels

    def publish(mean: np.ndarray | None) -> Artifact:
        content = DatasetContent(
            "toy", [f"class {index}" for index in range(4)], multi_label=False, sample_ids=ids, split=np.full(COUNT, 2),
            labels=labels, mean=mean, std=mean, images=images,
        )  # fmt: skip
        recipe = {"mean": None if mean is None else mean.tolist()}
        return make_artifact(
            store, "prepare-data", recipe, lambda folder: write_dataset(folder / DATASET_FILE, content)
        )

    unknown, same, other = (publish(mean) for mean in (None, np.full(3, 0.5), np.full(3, 0.1)))
    assert (
        evaluate(store, {**inputs, "dataset": unknown}).digest
        == evaluate(store, {**inputs, "dataset": same}).digest
        != evaluate(store, {**inputs, "dataset": other}).digest
    )


class Brittle(nn.Module):
    """Gives NaN for images whose first pixel is bright, whatever stands behind it."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(3, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        logits = self.head(images.mean(dim=(2, 3)))
        return torch.where(images[:, :1, 0, 0] > 0.5, torch.nan, logits)


def test_rows_whose_output_is_nan_fail_with_a_status(store: Store, inputs: dict[str, Artifact]) -> None:
    arch = "tests.stages.test_evaluate_perturbation.Brittle"
    brittle = toy_classifier(store, arch=arch, params={})
    artifact = evaluate(store, {**inputs, "classifier": brittle})
    with DatasetFile(inputs["dataset"].file(DATASET_FILE)) as file:
        bright = (file.pixels(range(COUNT))[:, 0, 0, 0] / 255 - 0.5) / 0.25 > 0.5
    assert 0 < bright.sum() < COUNT
    table = read_parquet(artifact.file(SCORES_FILE))
    assert len(table["value"]) == COUNT * (5 + 2 * 4)
    for metric in ("morf", "lerf", "insertion", "deletion"):
        statuses = [s for m, s in zip(table["metric"], table["status"], strict=True) if m == metric]
        assert [status != "ok" for status in statuses] == bright.tolist()
        assert {status for status in statuses if status != "ok"} == {"the classifier's output is NaN or infinite"}
    assert all(
        (value is None) == (status != "ok") for value, status in zip(table["value"], table["status"], strict=True)
    )


def test_a_target_of_probability_zero_has_no_deviation(store: Store, inputs: dict[str, Artifact]) -> None:
    arch = "tests.stages.test_evaluate_perturbation.Certain"
    artifact = evaluate(store, {**inputs, "classifier": toy_classifier(store, arch=arch, params={})})
    table = read_parquet(artifact.file(SCORES_FILE))
    for metric, value, status in zip(table["metric"], table["value"], table["status"], strict=True):
        if metric.endswith("_deviation"):
            assert (value, status) == (None, "the target's probability is 0 before anything is removed")
        else:
            assert (value, status) == (0.0, "ok")


class Certain(nn.Module):
    """Class 1 with a margin at which class 0 has probability 0 in float32."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.eye(num_classes)[1] * 500)

    def forward(self, images: Tensor) -> Tensor:
        return self.logits.expand(len(images), -1)


class InterruptedRunError(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize("after", [0, 1, 2])
def test_an_interrupted_run_goes_on_and_has_the_same_digest(
    store: Store, inputs: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    monkeypatch.setattr(stage, "rows_per_part", lambda height, width: 5)
    undisturbed = Store(tmp_path / "undisturbed")
    again = {
        "dataset": toy_dataset(undisturbed), "classifier": toy_classifier(undisturbed),
        "maps": toy_maps(undisturbed, toy_dataset(undisturbed), distinct_values(COUNT, SIDE)),
    }  # fmt: skip
    expected = evaluate(undisturbed, again).digest
    calls = 0

    def interrupt(done: int, total: int, unit: str) -> None:
        nonlocal calls
        calls += 1
        if calls > after:
            raise InterruptedRunError

    with pytest.raises(InterruptedRunError):
        evaluate(store, inputs, Context(store, progress=interrupt))
    seen: list[tuple[int, int]] = []
    artifact = evaluate(store, inputs, Context(store, progress=lambda done, total, unit: seen.append((done, total))))
    assert artifact.digest == expected
    assert seen[0] == (5 * max(0, after), COUNT)
    assert seen[-1] == (COUNT, COUNT)


def test_a_damaged_part_is_made_again(
    store: Store, inputs: dict[str, Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "rows_per_part", lambda height, width: 5)

    def damage_then_stop(done: int, total: int, unit: str) -> None:
        if done == 10:
            (part,) = store.root.rglob("00000000-*.npz")
            content = bytearray(part.read_bytes())
            content[len(content) // 2] ^= 1
            part.write_bytes(content)
            raise InterruptedRunError

    with pytest.raises(InterruptedRunError):
        evaluate(store, inputs, Context(store, progress=damage_then_stop))
    seen: list[int] = []
    artifact = evaluate(store, inputs, Context(store, progress=lambda done, total, unit: seen.append(done)))
    assert seen[0] == 5
    assert np.isfinite(values(artifact, "morf")).all()


def test_nn_explainer_bug_a_missing_mask_is_an_error(store: Store, inputs: dict[str, Artifact]) -> None:
    """peers.md: a missing mask was skipped, so that N differed between methods."""
    rows = [(f"image/{index:04d}", 0) for index in range(COUNT - 1)]
    short = toy_maps(store, inputs["dataset"], distinct_values(COUNT - 1, SIDE), rows=rows)
    with pytest.raises(ArtifactError, match="no map for sample 'image/0011'"):
        evaluate(store, {**inputs, "maps": short})


def test_nn_explainer_bug_a_nan_map_is_an_error(store: Store, inputs: dict[str, Artifact]) -> None:
    """peers.md: a NaN map was turned into zeros."""
    broken = distinct_values(COUNT, SIDE)
    broken[7, 3, 3] = np.nan
    with pytest.raises(ArtifactError, match=r"row 7 \(sample 'image/0007', target 0\) has NaN"):
        evaluate(store, {**inputs, "maps": toy_maps(store, inputs["dataset"], broken)})


def test_maps_of_other_images_are_refused(store: Store, inputs: dict[str, Artifact]) -> None:
    rows = [(f"image/{index:04d}", 0) for index in range(COUNT)] + [("elsewhere", 0)]
    foreign = toy_maps(store, inputs["dataset"], distinct_values(COUNT + 1, SIDE), rows=rows)
    with pytest.raises(ArtifactError, match="'elsewhere'"):
        evaluate(store, {**inputs, "maps": foreign})


def test_a_target_that_is_no_class_is_refused(store: Store, inputs: dict[str, Artifact]) -> None:
    rows = [(f"image/{index:04d}", 4 if index == 3 else 0) for index in range(COUNT)]
    wrong = toy_maps(store, inputs["dataset"], distinct_values(COUNT, SIDE), rows=rows)
    with pytest.raises(ArtifactError, match="row 3 has target 4 of 4 classes"):
        evaluate(store, {**inputs, "maps": wrong})


def test_maps_of_another_size_are_refused(store: Store, inputs: dict[str, Artifact]) -> None:
    small = toy_maps(store, inputs["dataset"], distinct_values(COUNT, 8))
    with pytest.raises(MethodError, match="8×8 px, images of 16×16 px"):
        evaluate(store, {**inputs, "maps": small})


def test_a_classifier_for_other_classes_is_refused(store: Store, inputs: dict[str, Artifact]) -> None:
    with pytest.raises(ModelError, match="7 classes"):
        evaluate(store, {**inputs, "classifier": toy_classifier(store, classes=7)})


def test_a_data_set_without_test_images_is_refused(store: Store, inputs: dict[str, Artifact]) -> None:
    dataset = toy_dataset(store, split=np.zeros(COUNT))
    with pytest.raises(DataError, match="no test images"):
        evaluate(store, {**inputs, "dataset": dataset})


def test_loader_threads_change_nothing(store: Store, inputs: dict[str, Artifact], tmp_path: Path) -> None:
    other = Store(tmp_path / "other")
    again = {
        "dataset": toy_dataset(other), "classifier": toy_classifier(other),
        "maps": toy_maps(other, toy_dataset(other), distinct_values(COUNT, SIDE)),
    }  # fmt: skip
    one = evaluate(store, inputs, Context(store, loader_threads=1))
    assert one.digest == evaluate(other, again, Context(other, loader_threads=4)).digest


def test_mixed_precision_is_close(store: Store, inputs: dict[str, Artifact]) -> None:
    """bfloat16 has 8 bits: logits of a small network move by about 1 %, probabilities by a quarter of that."""
    full, mixed = evaluate(store, inputs), evaluate(store, inputs, precision="bfloat16")
    assert full.digest != mixed.digest
    np.testing.assert_allclose(values(mixed, "morf"), values(full, "morf"), atol=0.02)


def test_no_more_than_a_part_is_ever_held_and_ranks_are_computed_once(
    store: Store, inputs: dict[str, Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    ranked: list[int] = []

    def counting(maps: Tensor, *arguments: Any) -> Tensor:
        ranked.append(len(maps))
        return rank_pixels(maps, *arguments)

    monkeypatch.setattr(stage, "rows_per_part", lambda height, width: 5)
    monkeypatch.setattr(stage, "rank_pixels", counting)
    evaluate(store, inputs)
    assert ranked == [5, 5, 2]


def test_quantus_bug_every_batch_is_scored(
    store: Store, inputs: dict[str, Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    """peers.md: only the first batch was scored; here three parts of many passes, each row with a number of its own."""
    monkeypatch.setattr(stage, "rows_per_part", lambda height, width: 5)
    monkeypatch.setattr(stage, "pass_size", lambda height, width, device: 2)
    found = values(evaluate(store, inputs), "morf")
    assert len(np.unique(found)) == COUNT
    expected = [reference_scores(inputs, row, target=0)["morf", ""] for row in (4, 9, 11)]
    np.testing.assert_allclose(found[[4, 9, 11]], expected, rtol=1e-4)


def test_parts_shrink_as_images_grow() -> None:
    assert stage.rows_per_part(8, 8) == 1024
    assert stage.rows_per_part(64, 64) == 1024
    assert stage.rows_per_part(128, 128) == 256
    assert stage.rows_per_part(224, 224) == 83
    assert stage.rows_per_part(2000, 3000) == 64
