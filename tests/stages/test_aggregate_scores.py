"""aggregate-scores: what the summary says, row by row, and what it refuses."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from roarline.artifacts.retraining import write_predictions
from roarline.artifacts.store import Artifact, Store
from roarline.artifacts.tables import SCORES_FILE, read_csv, read_parquet, write_parquet
from roarline.errors import ArtifactError
from roarline.execution.run_job import run_job
from roarline.stages import aggregate_scores as stage
from roarline.stages.job import Context, Job
from tests.stages.toy_classifier import job_for, make_artifact

METHODS = {"good": "gradient", "bad": "sobel", "chance": "random"}
COLUMNS = [
    "dataset", "model", "method", "metric", "setting", "value", "ci_low", "ci_high", "n", "failed", "higher_is_better",
    "unit", "ground_truth", "difference_to_random", "difference_ci_low", "difference_ci_high", "rank", "status",
]  # fmt: skip

Values = Mapping[tuple[str, str], np.ndarray]


def publish_scores(
    store: Store, method: str, columns: Values, *, ids: list[str] | None = None, targets: list[int] | None = None
) -> Artifact:
    """Scores of one method; NaN is a failed row."""

    def write(folder: Path) -> None:
        table: dict[str, list[Any]] = {
            name: [] for name in ("sample_id", "target", "metric", "setting", "value", "status")
        }
        for (metric, setting), values in columns.items():
            for row, value in enumerate(values.tolist()):
                failed = math.isnan(value)
                table["sample_id"].append(ids[row] if ids else f"s{row:03d}")
                table["target"].append(targets[row] if targets else 0)
                table["metric"].append(metric)
                table["setting"].append(setting)
                table["value"].append(None if failed else value)
                table["status"].append("broke" if failed else "ok")
        write_parquet(folder / SCORES_FILE, table)

    recipe = {"method": method, "columns": repr(columns), "ids": ids, "targets": targets}
    return make_artifact(store, "evaluate-perturbation", recipe, write)


def publish_cell(store: Store, place: Mapping[str, Any], correct: np.ndarray, ids: list[str] | None = None) -> Artifact:
    """Predictions of one retrained network."""
    names = ids or [f"s{row:03d}" for row in range(len(correct))]

    def write(folder: Path) -> None:
        zeros = [0] * len(names)
        write_predictions(folder, names, zeros, zeros, correct.tolist())

    return make_artifact(store, "evaluate-roar", {**place, "correct": correct.tolist(), "ids": names}, write)


def grid(store: Store, accuracies: Mapping[tuple[str | None, str, float, bool], list[np.ndarray]]) -> Any:
    """(places, inputs) of cells: (method, mode, fraction, probe) to right and wrong predictions, one a repeat."""
    places, inputs = {}, {}
    for (method, mode, fraction, probe), repeats in accuracies.items():
        for repeat, correct in enumerate(repeats):
            role = f"cell:{len(places)}"
            places[role] = {
                "method": method, "mode": mode, "removed_fraction": fraction, "repeat": repeat, "probe": probe
            }  # fmt: skip
            inputs[role] = publish_cell(store, places[role], correct)
    return places, inputs


def aggregate_job(inputs: dict[str, Artifact], places: Any = None, **changes: Any) -> Job:
    parameters = {
        "experiment": "e", "dataset": "toy", "model": "net", "seed": 0, "threads": 1, "confidence": 0.95,
        "resamples": 300, "cells": places or {},
        "methods": [{"name": name, "method": method} for name, method in METHODS.items()], **changes,
    }  # fmt: skip
    return job_for(stage.STAGE, parameters, inputs)


def aggregate(store: Store, inputs: dict[str, Artifact], places: Any = None, **changes: Any) -> Artifact:
    job = aggregate_job(inputs, places, **changes)
    run_job(job, Context(store))
    return store.open(job.stage, job.key)


def rows_of(artifact: Artifact) -> list[dict[str, Any]]:
    table = read_parquet(artifact.file(SCORES_FILE))
    return [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]


def row_of(artifact: Artifact, method: str, metric: str, setting: str = "") -> dict[str, Any]:
    (row,) = [r for r in rows_of(artifact) if (r["method"], r["metric"], r["setting"]) == (method, metric, setting)]
    return row


@pytest.fixture
def scored(store: Store, rng: np.random.Generator) -> dict[str, Artifact]:
    """MoRF of three methods over 40 images: good is 0.1 below chance, image by image; bad is chance itself."""
    chance = rng.random(40)
    values = {"good": chance - 0.1, "bad": chance, "chance": chance}
    return {f"scores:{name}": publish_scores(store, name, {("morf", ""): column}) for name, column in values.items()}


def flags(rng: np.random.Generator, accuracy: float, images: int = 50) -> np.ndarray:
    return (rng.random(images) < accuracy).astype(float)


def test_scores_have_value_interval_paired_difference_and_rank(store: Store, scored: dict[str, Artifact]) -> None:
    artifact = aggregate(store, scored)
    good, bad, chance = (row_of(artifact, name, "morf") for name in METHODS)
    assert good["difference_to_random"] == pytest.approx(-0.1)
    assert good["difference_ci_low"] == pytest.approx(-0.1)
    assert good["difference_ci_high"] == pytest.approx(-0.1)
    assert good["ci_low"] < good["value"] < good["ci_high"]
    assert (bad["difference_to_random"], bad["difference_ci_low"], bad["difference_ci_high"]) == (0, 0, 0)
    assert [row["rank"] for row in (good, bad, chance)] == [1, 2, 2]  # lower is better; equal values share a place
    assert chance["difference_to_random"] is None
    assert {(row["n"], row["failed"], row["status"]) for row in (good, bad, chance)} == {(40, 0, "ok")}
    assert (good["dataset"], good["model"], good["higher_is_better"], good["unit"]) == ("toy", "net", False, "")


def test_original_roar_bug_results_are_saved(store: Store, scored: dict[str, Artifact]) -> None:
    """peers.md: results were printed and not saved; here as CSV and as Parquet, with the same rows."""
    artifact = aggregate(store, scored)
    parquet, csv = read_parquet(artifact.file(SCORES_FILE)), read_csv(artifact.file(stage.SUMMARY_CSV))
    assert list(parquet) == list(csv) == COLUMNS
    assert [float(value) for value in csv["value"]] == parquet["value"]
    assert csv["difference_to_random"][2] == ""


def test_failed_rows_are_counted_and_named_where_nothing_is_left(store: Store, rng: np.random.Generator) -> None:
    some, every = rng.random(10), np.full(10, np.nan)
    some[[2, 5]] = np.nan
    columns = {"good": some, "bad": every, "chance": rng.random(10)}
    artifact = aggregate(
        store, {f"scores:{name}": publish_scores(store, name, {("lerf", ""): v}) for name, v in columns.items()}
    )
    good, bad = row_of(artifact, "good", "lerf"), row_of(artifact, "bad", "lerf")
    assert (good["n"], good["failed"], good["status"]) == (8, 2, "ok")
    assert good["value"] == pytest.approx(np.nanmean(some))
    both = ~np.isnan(some)
    assert good["difference_to_random"] == pytest.approx((some - columns["chance"])[both].mean())
    assert (bad["value"], bad["ci_low"], bad["rank"], bad["n"], bad["failed"]) == (None, None, None, 0, 10)
    assert bad["status"] == "all 10 rows failed: broke"


def test_fractions_get_a_mean_row(store: Store, rng: np.random.Generator) -> None:
    columns = {("morf_deviation", f"removed_fraction={f}"): rng.random(20) for f in ("0.1", "0.5")}
    artifact = aggregate(store, {"scores:good": publish_scores(store, "good", columns)})
    mean = row_of(artifact, "good", "morf_deviation", "mean over fractions")
    assert mean["value"] == pytest.approx(np.mean([values.mean() for values in columns.values()]))
    assert (mean["n"], mean["unit"]) == (20, "%")


def test_rows_of_one_image_are_one_cluster(store: Store, rng: np.random.Generator) -> None:
    """Twenty images twice each, with equal values: as uncertain as twenty, not as forty."""
    values, images = rng.random(20), [f"s{index:03d}" for index in range(20)]
    once = publish_scores(store, "good", {("morf", ""): values}, ids=images)
    twice = publish_scores(
        store, "good", {("morf", ""): np.repeat(values, 2)}, ids=[i for i in images for _ in "ab"], targets=[0, 1] * 20
    )
    one, two = (row_of(aggregate(store, {"scores:good": artifact}), "good", "morf") for artifact in (once, twice))
    assert (one["n"], two["n"]) == (20, 40)
    assert (two["ci_low"], two["ci_high"]) == pytest.approx((one["ci_low"], one["ci_high"]))


def test_order_of_rows_changes_nothing(store: Store, rng: np.random.Generator) -> None:
    values, order = rng.random(30), rng.permutation(30)
    ids = [f"s{index:03d}" for index in range(30)]
    plain = publish_scores(store, "good", {("morf", ""): values}, ids=ids)
    mixed = publish_scores(store, "good", {("morf", ""): values[order]}, ids=[ids[i] for i in order])
    assert plain.digest != mixed.digest
    assert aggregate(store, {"scores:good": plain}).digest == aggregate(store, {"scores:good": mixed}).digest


def test_same_key_same_digest(store: Store, scored: dict[str, Artifact], tmp_path: Path) -> None:
    job = aggregate_job(scored)
    digests = set()
    for name in ("one", "two"):
        out = Store(tmp_path / name)
        with out.writer(job.stage, 1, job.key, job.label, job.parameters, {}) as writer:
            assert writer is not None
            stage.run(job, Context(store), writer)
        digests.add(out.open(job.stage, job.key).digest)
    assert len(digests) == 1


def test_cells_become_accuracies_leakages_and_a_reference(store: Store, rng: np.random.Generator) -> None:
    accuracies: dict[tuple[str | None, str, float, bool], list[np.ndarray]] = {
        (None, "reference", 0.0, False): [flags(rng, 0.95) for _ in range(3)]
    }
    for method, accuracy in (("good", 0.4), ("bad", 0.7), ("chance", 0.8)):
        for mode in ("roar", "kar"):
            for fraction in (0.1, 0.9):
                accuracies[method, mode, fraction, False] = [flags(rng, accuracy) for _ in range(3)]
                accuracies[method, mode, fraction, True] = [flags(rng, 0.2)]
    places, inputs = grid(store, accuracies)
    artifact = aggregate(store, inputs, places)
    rows = rows_of(artifact)
    found = {(row["method"], row["metric"], row["setting"]) for row in rows}
    settings = ("removed_fraction=0.1", "removed_fraction=0.9", "mean over fractions")
    metrics = ("roar_accuracy", "kar_accuracy", "roar_leakage", "kar_leakage")
    expected = {(method, metric, setting) for method in METHODS for metric in metrics for setting in settings}
    expected |= {("(nothing removed)", metric, "removed_fraction=0") for metric in metrics[:2]}
    assert found == expected
    assert len(rows) == len(expected)
    good = row_of(artifact, "good", "roar_accuracy", "removed_fraction=0.9")
    assert good["value"] == pytest.approx(np.mean(accuracies["good", "roar", 0.9, False]))
    assert good["n"] == 150
    difference = np.mean(accuracies["good", "roar", 0.9, False]) - np.mean(accuracies["chance", "roar", 0.9, False])
    assert good["difference_to_random"] == pytest.approx(difference)
    assert good["rank"] == 1  # lower is better
    assert row_of(artifact, "good", "kar_accuracy", "removed_fraction=0.9")["rank"] == 3  # higher is better
    mean = row_of(artifact, "good", "roar_accuracy", "mean over fractions")
    both = [np.mean(accuracies["good", "roar", fraction, False]) for fraction in (0.1, 0.9)]
    assert mean["value"] == pytest.approx(np.mean(both))
    assert mean["rank"] == 1
    leakage = row_of(artifact, "good", "roar_leakage", "removed_fraction=0.1")
    assert (leakage["rank"], leakage["higher_is_better"], leakage["n"]) == (None, None, 50)
    reference = row_of(artifact, "(nothing removed)", "roar_accuracy", "removed_fraction=0")
    assert (reference["rank"], reference["difference_to_random"], reference["n"]) == (None, None, 150)


def test_spread_of_repeats_widens_the_interval_and_cancels_where_it_is_shared(
    store: Store, rng: np.random.Generator
) -> None:
    """Repeats of 50, 60 and 70 %; good is worse than chance by the same 10 of 100 images in every one."""
    rights = [np.arange(100) < 50 + 10 * repeat for repeat in range(3)]
    chance = [right.astype(float) for right in rights]
    good = [np.where(np.arange(100) < 10, 0.0, right) for right in chance]
    places, inputs = grid(store, {("good", "roar", 0.5, False): good, ("chance", "roar", 0.5, False): chance})
    artifact = aggregate(store, inputs, places, resamples=2000)
    row = row_of(artifact, "good", "roar_accuracy", "removed_fraction=0.5")
    single_places, single = grid(store, {("good", "roar", 0.5, False): good[1:2]})
    alone = row_of(aggregate(store, single, single_places), "good", "roar_accuracy", "removed_fraction=0.5")
    # Student's t with 2 degrees of freedom times 0.1 / √3 is ± 0.25; the images alone give ± 1.96 · √(0.25 / 100).
    assert row["ci_high"] - row["ci_low"] > 0.45
    assert alone["ci_high"] - alone["ci_low"] == pytest.approx(2 * 1.96 * math.sqrt(0.25 / 100), rel=0.15)
    # The difference is the same in every repeat: only its images are uncertain, ± 1.96 · √(0.09 / 100).
    width = row["difference_ci_high"] - row["difference_ci_low"]
    assert row["difference_to_random"] == pytest.approx(-0.1)
    assert width == pytest.approx(2 * 1.96 * math.sqrt(0.09 / 100), rel=0.15)


def test_rows_follow_the_tables_of_metrics_and_methods(store: Store, rng: np.random.Generator) -> None:
    scores = {
        f"scores:{name}": publish_scores(store, name, {("lerf", ""): rng.random(5), ("morf", ""): rng.random(5)})
        for name in reversed(METHODS)
    }
    accuracies: Any = {("good", "roar", fraction, False): [flags(rng, 0.5)] for fraction in (0.9, 0.1)}
    places, cells = grid(store, accuracies)
    rows = rows_of(aggregate(store, {**scores, **cells}, places))
    assert [(row["metric"], row["method"]) for row in rows[:6]] == [
        (metric, method) for metric in ("morf", "lerf") for method in METHODS
    ]
    assert [row["setting"] for row in rows[6:]] == [
        "removed_fraction=0.1",
        "removed_fraction=0.9",
        "mean over fractions",
    ]


def test_methods_scored_on_other_rows_are_refused(store: Store, rng: np.random.Generator) -> None:
    inputs = {
        "scores:good": publish_scores(store, "good", {("morf", ""): rng.random(5)}),
        "scores:bad": publish_scores(store, "bad", {("morf", ""): rng.random(4)}),
    }
    with pytest.raises(ArtifactError, match="'bad' was scored on 4 rows, 'good' on 5"):
        aggregate(store, inputs)


@pytest.mark.parametrize("ids", [["x", "y"], ["s000"], ["s000", "s001", "s002"]])
def test_road_evaluation_bug_a_missing_prediction_becomes_class_0(
    store: Store, rng: np.random.Generator, ids: list[str]
) -> None:
    """peers.md; here networks that were tested on other, fewer or more images are refused."""
    places, inputs = grid(store, {("good", "roar", 0.1, False): [flags(rng, 0.5, 2), flags(rng, 0.5, 2)]})
    inputs["cell:1"] = publish_cell(store, places["cell:1"], flags(rng, 0.5, len(ids)), ids=ids)
    with pytest.raises(ArtifactError, match="other images"):
        aggregate(store, inputs, places)


def test_without_a_random_method_there_is_no_difference(store: Store, scored: dict[str, Artifact]) -> None:
    methods = [{"name": name, "method": "gradient"} for name in METHODS]
    rows = rows_of(aggregate(store, scored, methods=methods))
    assert all(row["difference_to_random"] is None for row in rows)


def test_the_size_of_the_demo_takes_little_more_than_its_bootstraps(store: Store, rng: np.random.Generator) -> None:
    """Six methods with five metrics on 450 images, 180 networks: at most 2.5 times scipy's bootstrap of each number.

    Processor times of one run: an absolute time would say how busy the machine is.
    """
    methods = [{"name": f"m{index}", "method": "random" if index == 5 else "sobel"} for index in range(6)]
    metrics = ("morf", "lerf", "srg", "insertion", "deletion")
    inputs = {
        f"scores:{m['name']}": publish_scores(store, m["name"], {(metric, ""): rng.random(450) for metric in metrics})
        for m in methods
    }
    published = [publish_cell(store, {"repeat": repeat}, flags(rng, 0.5, 450)) for repeat in range(3)]
    places, cells = {}, {}
    for m, mode, fraction, repeat in itertools.product(methods, ("roar", "kar"), (0.1, 0.3, 0.5, 0.7, 0.9), range(3)):
        role = f"cell:{len(places)}"  # many cells, three files: writing 180 would take the test most of its time
        places[role] = {
            "method": m["name"], "mode": mode, "removed_fraction": fraction, "repeat": repeat, "probe": False
        }  # fmt: skip
        cells[role] = published[repeat]
    job = aggregate_job({**inputs, **cells}, places, methods=methods, resamples=2000)
    one = scipy_bootstrap_s(rng)
    start = time.process_time()
    run_job(job, Context(store))
    took = time.process_time() - start
    one = (one + scipy_bootstrap_s(rng)) / 2
    rows = rows_of(store.open(job.stage, job.key))
    intervals = len(rows) + sum(row["difference_to_random"] is not None for row in rows)
    assert intervals == 6 * (5 + 2 * 6) + 5 * (5 + 2 * 6)  # with a mean over the fractions, and differences to random
    assert took < 2.5 * intervals * one


def scipy_bootstrap_s(rng: np.random.Generator) -> float:
    """Processor time of one interval of 450 images."""
    start = time.process_time()
    for _ in range(40):
        stats.bootstrap((rng.random(450),), np.mean, n_resamples=2000, method="percentile", rng=rng)
    return (time.process_time() - start) / 40


def test_tables_say_what_objects_a_metric_was_judged_by(store: Store, scored: dict[str, Artifact]) -> None:
    def write(folder: Path) -> None:
        names = ("sample_id", "target", "metric", "setting", "value", "status", "ground_truth")
        rows = [("s0", 0, "le", "", 1.0, "ok", "boxes"), ("s0", 0, "gini_sparseness", "", 0.5, "ok", "")]
        columns = zip(*rows, strict=True)
        write_parquet(folder / SCORES_FILE, {name: list(column) for name, column in zip(names, columns, strict=True)})

    inputs = {f"localization:{name}": make_artifact(store, name, {}, write) for name in METHODS}
    table = read_parquet(aggregate(store, scored | inputs).file(SCORES_FILE))
    found = dict(zip(table["metric"], table["ground_truth"], strict=True))
    assert found.pop("le") == "boxes"
    assert set(found.values()) == {""}
