"""A small but complete experiment in a store, fabricated with the artifacts' own writers: no training, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from scipy.stats import kendalltau

from roarline.artifacts.classifier import CURVE_COLUMNS, CURVE_FILE, WEIGHTS_FILE, ClassifierCard
from roarline.artifacts.comparison_tables import COMPARISON_TABLES, write_comparisons
from roarline.artifacts.curves import CURVES_FILE, write_curves
from roarline.artifacts.dataset import DATASET_FILE, DatasetContent, write_dataset
from roarline.artifacts.keys import artifact_key
from roarline.artifacts.maps import MAPS_FILE, MapRows, join_parts, write_part
from roarline.artifacts.retraining import Place, RetrainedCell, write_predictions
from roarline.artifacts.store import Artifact, Store, Writer
from roarline.artifacts.tables import SCORES_FILE, write_csv, write_parquet
from roarline.config.methods import METHODS
from roarline.config.metrics import METRICS
from roarline.stages.job import Context, Job

PROVENANCE = {
    "roarline": "0.1.0", "git_commit": "0123456789ab", "python": "3.11.2", "torch": "2.12.1", "device": "CPU, test",
    "started": "2026-01-02T03:04:05+00:00", "duration_s": 1.5, "peak_memory_mb": 321.0,
}  # fmt: skip
SUMMARY_COLUMNS = (
    "dataset", "model", "method", "metric", "setting", "value", "ci_low", "ci_high", "n", "failed",
    "higher_is_better", "unit", "difference_to_random", "difference_ci_low", "difference_ci_high", "rank", "status",
)  # fmt: skip
REFERENCE = "(nothing removed)"


@dataclass(frozen=True)
class Recipe:
    """What to fabricate.

    Attributes:
        methods: Name to component; a component that the table of methods calls a baseline is one.
        scores: Metric to method to value, for the overall rows; where a method is missing, a value is made up.
        verdicts: (metric, method) to ``better``, ``worse`` or ``undecided``; default undecided.
        leakage: Method to the leakage probe's accuracy at every fraction; default 0.2.
        provenance: Of every artifact.
    """

    methods: Mapping[str, str] = field(
        default_factory=lambda: {
            "integrated_gradients": "integrated_gradients",
            "gradient": "gradient",
            "sobel": "sobel",
            "random": "random",
        }
    )
    modes: tuple[str, ...] = ("roar", "kar")
    metrics: tuple[str, ...] = ("morf", "lerf", "srg", "insertion", "deletion")
    fractions: tuple[float, ...] = (0.1, 0.5, 0.9)
    repeats: int = 3
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    verdicts: Mapping[tuple[str, str], str] = field(default_factory=dict)
    leakage: Mapping[str, float] = field(default_factory=dict)
    failures: Mapping[tuple[str, str], str] = field(default_factory=dict)
    class_names: tuple[str, ...] = ("zero", "one", "two", "three")
    multi_label: bool = False
    channels: int = 1
    size_px: int = 8
    samples: int = 24
    gallery_images: int = 4
    title: str = "test"
    description: str = ""
    provenance: Mapping[str, Any] = field(default_factory=lambda: dict(PROVENANCE))


def conflict() -> Recipe:
    """The default experiment, with a conflict between MoRF and ROAR that the leakage probe explains."""
    return Recipe(
        scores={
            "roar_accuracy": {"integrated_gradients": 0.8, "gradient": 0.62, "sobel": 0.65, "random": 0.68},
            "morf": {"integrated_gradients": 0.1, "gradient": 0.3, "sobel": 0.35, "random": 0.4},
        },
        verdicts={
            ("roar_accuracy", "integrated_gradients"): "worse",
            ("morf", "integrated_gradients"): "better",
            ("morf", "gradient"): "better",
        },
        leakage={"integrated_gradients": 0.75},
    )


def make(store: Store, recipe: Recipe) -> Job:
    """Fabricate everything that the report reads; the report's job itself is not run."""
    dataset = _dataset(store, recipe)
    classifier = _classifier(store, recipe)
    maps = {name: _maps(store, recipe, name) for name in recipe.methods}
    scores = {name: _scores(store, recipe, name) for name in recipe.methods} if recipe.metrics else {}
    places = list(_places(recipe)) if recipe.modes else []
    cells = {f"cell:{index}": _cell(store, place) for index, place in enumerate(places)}
    summary = _publish(store, "aggregate-scores", recipe, lambda writer: _write_summary(writer, recipe))
    inputs = {
        "summary": summary, "dataset": dataset, "classifier": classifier,
        **{f"maps:{name}": artifact for name, artifact in maps.items()},
        **{f"scores:{name}": artifact for name, artifact in scores.items()},
        **cells,
    }  # fmt: skip
    parameters = {
        "experiment": "test", "dataset": "made", "model": "small_cnn", "methods": method_parameters(recipe),
        "cells": {f"cell:{index}": place for index, place in enumerate(places)}, "seed": 0, "threads": 1,
        "title": recipe.title, "description": recipe.description, "gallery_images": recipe.gallery_images,
        "confidence": 0.95,
        "evaluate_roar": {"fractions": list(recipe.fractions), "repeats": recipe.repeats, "fill": "mean"}
        if recipe.modes else None,
        "evaluate_perturbation": {"fractions": [0.0, 0.5, 1.0], "fill": "mean", "score": "probability"}
        if recipe.metrics else None,
    }  # fmt: skip
    keys = {role: artifact.manifest.key for role, artifact in inputs.items()}
    return Job(
        stage="report", stage_version=1, key=artifact_key("report", 1, parameters, keys), label="report",
        parameters=parameters,
        inputs={role: (artifact.manifest.stage, artifact.manifest.key) for role, artifact in inputs.items()},
        local={"root": None},
    )  # fmt: skip


def run_report(store: Store, job: Job) -> Artifact:
    """Run the stage as the runner does."""
    from roarline.stages.report import run

    context = Context(store)
    with store.writer(job.stage, job.stage_version, job.key, job.label, job.parameters, context.inputs(job)) as writer:
        assert writer is not None
        run(job, context, writer)
    return store.open(job.stage, job.key)


def summary_columns(recipe: Recipe) -> dict[str, list[Any]]:
    """The summary's table: made-up values with intervals of ±0.02, ranks from the values."""
    rows: list[dict[str, Any]] = []
    for mode in recipe.modes:
        accuracy, leakage = f"{mode}_accuracy", f"{mode}_leakage"
        rows.append(_row(REFERENCE, accuracy, "removed_fraction=0", 0.95))
        settings = [f"removed_fraction={fraction:g}" for fraction in recipe.fractions]
        for setting in [*settings, "mean over fractions"] if len(settings) > 1 else settings:
            rows += _metric_rows(recipe, accuracy, setting)
            rows += _leakage_rows(recipe, leakage, setting)
    for metric in recipe.metrics:
        rows += _metric_rows(recipe, metric, "")
    return {name: [row[name] for row in rows] for name in SUMMARY_COLUMNS}


def _metric_rows(recipe: Recipe, metric: str, setting: str) -> list[dict[str, Any]]:
    given = recipe.scores.get(metric, {})
    # Accuracies fall with the removed fraction, and average to what is given for fractions that average to 0.5.
    tilt = 0.4 * (0.5 - float(setting.split("=")[1])) if "=" in setting else 0.0
    values = {name: given.get(name, 0.4 + 0.05 * index) + tilt for index, name in enumerate(recipe.methods)}
    ascending = sorted(values, key=lambda name: values[name], reverse=bool(METRICS[metric].higher_is_better))
    random = next((name for name, component in recipe.methods.items() if component == "random"), None)
    rows = []
    for name, value in values.items():
        row = _row(name, metric, setting, value)
        row["rank"] = 1 + ascending.index(name)
        if random is not None and name != random:
            sign = {"better": 1, "worse": -1}.get(recipe.verdicts.get((metric, name), "undecided"), 0)
            centre = sign * (1 if METRICS[metric].higher_is_better else -1) * 0.1
            row |= {
                "difference_to_random": centre, "difference_ci_low": centre - 0.03, "difference_ci_high": centre + 0.03,
            }  # fmt: skip
        if (metric, name) in recipe.failures:
            row |= {
                "status": recipe.failures[metric, name],
                "failed": 2,
                "value": None,
                "ci_low": None,
                "ci_high": None,
            }
            row["rank"] = None
        rows.append(row)
    return rows


def _leakage_rows(recipe: Recipe, metric: str, setting: str) -> list[dict[str, Any]]:
    rows = []
    for name, component in recipe.methods.items():
        value = recipe.leakage.get(name, 0.2)
        row = _row(name, metric, setting, value)
        if "random" in recipe.methods.values() and component != "random":
            row |= {
                "difference_to_random": value - 0.2, "difference_ci_low": value - 0.23,
                "difference_ci_high": value - 0.17,
            }  # fmt: skip
        rows.append(row)
    return rows


def _row(method: str, metric: str, setting: str, value: float) -> dict[str, Any]:
    return {
        "dataset": "made", "model": "small_cnn", "method": method, "metric": metric, "setting": setting,
        "value": value, "ci_low": value - 0.02, "ci_high": value + 0.02, "n": 20, "failed": 0,
        "higher_is_better": METRICS[metric].higher_is_better, "unit": METRICS[metric].unit,
        "difference_to_random": None, "difference_ci_low": None, "difference_ci_high": None, "rank": None,
        "status": "ok",
    }  # fmt: skip


def method_parameters(recipe: Recipe) -> list[dict[str, Any]]:
    """The job's list of methods, as the plan gives it."""
    found = []
    for name, component in recipe.methods.items():
        known = METHODS.get(component)
        found.append(
            {
                "name": name, "method": component, "sign": known.sign if known else "signed", "batched": True,
                "channels": known.channels if known else "sum", "baseline": bool(known and known.baseline),
                "params": {"steps": 32} if component == "integrated_gradients" else {},
            }
        )  # fmt: skip
    return found


def _publish(
    store: Store, stage: str, parameters: Any, write: Any, provenance: Mapping[str, Any] | None = None
) -> Artifact:
    recipe = {"made": repr(parameters)}
    key = artifact_key(stage, 1, recipe, {})
    with store.writer(stage, 1, key, f"{stage} made", recipe, {}) as writer:
        if writer is not None:
            write(writer)
            writer.provenance = dict(PROVENANCE if provenance is None else provenance)
    return store.open(stage, key)


def sample_ids(recipe: Recipe) -> list[str]:
    """Ids of the samples; the last two thirds are the test split."""
    return [f"sample/{index:03d}" for index in range(recipe.samples)]


def labels(recipe: Recipe) -> np.ndarray:
    """Classes in turn; for multi-label two classes each, and none for every seventh."""
    count, classes = recipe.samples, len(recipe.class_names)
    if not recipe.multi_label:
        return np.arange(count) % classes
    hot = np.zeros((count, classes), dtype=np.uint8)
    hot[np.arange(count), np.arange(count) % classes] = 1
    hot[np.arange(count), (np.arange(count) + 1) % classes] = 1
    hot[::7] = 0
    return hot


def _dataset(store: Store, recipe: Recipe) -> Artifact:
    rng = np.random.default_rng(0)
    shape = (recipe.samples, recipe.channels, recipe.size_px, recipe.size_px)
    split = np.where(np.arange(recipe.samples) < recipe.samples // 3, 0, 2)
    content = DatasetContent(
        name="made", class_names=list(recipe.class_names), multi_label=recipe.multi_label,
        sample_ids=sample_ids(recipe), split=split, labels=labels(recipe),
        mean=np.full(recipe.channels, 0.5), std=np.full(recipe.channels, 0.25),
        images=rng.integers(0, 256, shape, dtype=np.uint8),
    )  # fmt: skip
    return _publish(
        store,
        "prepare-data",
        recipe,
        lambda writer: write_dataset(writer.out / DATASET_FILE, content),
        recipe.provenance,
    )


def _classifier(store: Store, recipe: Recipe) -> Artifact:
    def write(writer: Writer) -> None:
        ClassifierCard(
            arch="small_cnn", params={"width": 16}, class_names=list(recipe.class_names),
            multi_label=recipe.multi_label, input_size=[recipe.size_px, recipe.size_px], mean=[0.5], std=[0.25],
            best_epoch=3, epochs=4, validation_accuracy=0.91, test_accuracy=0.875, parameters_count=12345,
        ).write(writer.out)  # fmt: skip
        save_file({"head.bias": np.zeros(len(recipe.class_names), dtype=np.float32)}, writer.out / WEIGHTS_FILE)
        curve = {
            "epoch": [1, 2, 3, 4], "learning_rate": [0.01] * 4, "train_loss": [2.0, 1.0, 0.5, 0.4],
            "train_accuracy": [0.3, 0.7, 0.93, 0.94], "validation_loss": [1.9, 1.1, 0.7, 0.8],
            "validation_accuracy": [0.3, 0.6, 0.91, 0.9],
        }  # fmt: skip
        write_csv(writer.out / CURVE_FILE, {name: curve[name] for name in CURVE_COLUMNS})

    return _publish(store, "train-cls", recipe, write, recipe.provenance)


def map_rows(recipe: Recipe, method: str) -> MapRows:
    """One row for each test image, for multi-label one for each class it has; signed unless a baseline."""
    rng = np.random.default_rng(len(method))
    hot = labels(recipe)
    test = [index for index in range(recipe.samples) if index >= recipe.samples // 3]
    pairs = [
        (index, int(target))
        for index in test
        for target in (np.flatnonzero(hot[index]) if recipe.multi_label else [hot[index]])
    ]
    maps = rng.normal(size=(len(pairs), recipe.size_px, recipe.size_px)).astype(np.float32)
    if recipe.methods[method] in METHODS and METHODS[recipe.methods[method]].baseline:
        maps = np.abs(maps)
    logits = np.stack(
        [np.random.default_rng(index).normal(size=len(recipe.class_names)).astype(np.float32) for index, _ in pairs]
    )
    ids = sample_ids(recipe)
    return MapRows([ids[index] for index, _ in pairs], np.array([target for _, target in pairs]), maps, logits)


def _maps(store: Store, recipe: Recipe, method: str) -> Artifact:
    def write(writer: Writer) -> None:
        part = writer.parts / "0.h5"
        write_part(part, map_rows(recipe, method))
        join_parts(
            writer.out / MAPS_FILE,
            [part],
            {
                "method": recipe.methods[method], "parameters": {}, "split": "test", "classifier_digest": "",
                "dataset_digest": "", "input_size": [recipe.size_px, recipe.size_px], "channels": "sum",
            },
        )  # fmt: skip

    return _publish(store, "extract-attribution-maps", (recipe, method), write, recipe.provenance)


def _scores(store: Store, recipe: Recipe, method: str) -> Artifact:
    rows = map_rows(recipe, method)

    def write(writer: Writer) -> None:
        count = len(rows.sample_ids)
        failing = {metric: why for (metric, name), why in recipe.failures.items() if name == method}
        columns: dict[str, list[Any]] = {
            name: [] for name in ("sample_id", "target", "metric", "setting", "value", "status")
        }
        for metric in recipe.metrics:
            for index in range(count):
                failed = metric in failing and index < 2
                values = (rows.sample_ids[index], int(rows.targets[index]), metric, "", None if failed else 0.5,
                          failing[metric] if failed else "ok")  # fmt: skip
                for name, value in zip(columns, values, strict=True):
                    columns[name].append(value)
        write_parquet(writer.out / SCORES_FILE, columns)
        fractions = np.linspace(0, 1, 11)
        steepness = 1 + 0.3 * list(recipe.methods).index(method) + 0.1 * np.random.default_rng(0).random((count, 1))
        falling = ((1 - fractions) ** steepness).astype(np.float32)
        curves = {metric: (fractions, falling) for metric in ("morf", "lerf", "deletion") if metric in recipe.metrics}
        if "insertion" in recipe.metrics:
            curves["insertion"] = (fractions, falling[:, ::-1].copy())
        write_curves(writer.out / CURVES_FILE, rows.sample_ids, rows.targets, curves)

    return _publish(store, "evaluate-perturbation", (recipe, method), write, recipe.provenance)


def _places(recipe: Recipe) -> Any:
    for mode in recipe.modes:
        for name in recipe.methods:
            for fraction in recipe.fractions:
                for repeat in range(recipe.repeats):
                    yield {"method": name, "mode": mode, "removed_fraction": fraction, "repeat": repeat, "probe": False}


def _cell(store: Store, place: Mapping[str, Any]) -> Artifact:
    def write(writer: Writer) -> None:
        RetrainedCell(
            place=Place(**{name: value for name, value in place.items() if name != "method"}),
            validation_accuracy=0.8, test_accuracy=0.75, best_epoch=2, epochs=3, n_test=2, removed_pixels=6,
        ).write(writer.out)  # fmt: skip
        write_predictions(writer.out, ["sample/008", "sample/009"], [0, 1], [0, 2], [1.0, 0.0])
        write_csv(writer.out / CURVE_FILE, {"epoch": [1, 2, 3], "train_loss": [2.0, 1.0, 0.5]})

    return _publish(store, "evaluate-roar", place, write)


def _write_summary(writer: Writer, recipe: Recipe) -> None:
    columns = summary_columns(recipe)
    write_parquet(writer.out / SCORES_FILE, columns)
    write_csv(writer.out / "scores.csv", columns)
    write_comparisons(writer.out, comparison_rows(recipe))


def comparison_rows(recipe: Recipe) -> dict[str, list[dict[str, Any]]]:
    """Tables in which neighbours of a metric's order share bars, and one other fill turns every order round."""
    table = summary_columns(recipe)
    ranks: dict[tuple[str, str], dict[str, int]] = {}
    for method, metric, setting, rank in zip(
        *(table[name] for name in ("method", "metric", "setting", "rank")), strict=True
    ):
        if rank is not None and "=" not in setting:
            ranks.setdefault((metric, setting), {})[method] = rank
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in COMPARISON_TABLES}
    for (metric, setting), places in ranks.items():
        name = {"metric": metric, "setting": setting}
        last = len(places)
        rows["metric_reliability"].append(
            dict.fromkeys(COMPARISON_TABLES["metric_reliability"])
            | {**name, "test": "signed-rank", "methods": last, "images": 16, "left_out": "", "alpha": 0.5,
               "alpha_low": 0.4, "alpha_high": 0.6}
        )  # fmt: skip
        rows["critical_difference"] += [
            {**name, "method": method, "place": float(place), "place_low": place - 0.3, "place_high": place + 0.3,
             "bars": "1" if place <= 2 else ""}
            for method, place in sorted(places.items(), key=lambda pair: pair[1])
        ]  # fmt: skip
        for factor, point, found in (
            ("base", "", places),
            ("fill", "zero", {method: last + 1 - place for method, place in places.items()}),
        ):
            rows["rank_stability"] += [
                {**name, "factor": factor, "point": point, "method": method, "value": 0.0, "place": float(place)}
                for method, place in found.items()
            ]
        rows["rank_stability_summary"].append(
            {
                **name,
                "factor": "fill",
                "points": 1,
                "methods": last,
                "kendall_w": 0.0,
                "tau_mean": -1.0,
                "tau_min": -1.0,
            }
        )
    for one, two in combinations(ranks, 2):
        shared = sorted(set(ranks[one]) & set(ranks[two]))
        tau = kendalltau([ranks[one][m] for m in shared], [ranks[two][m] for m in shared]).statistic
        rows["metric_agreement"].append(
            {"first_metric": one[0], "first_setting": one[1], "second_metric": two[0], "second_setting": two[1],
             "methods": len(shared), "kendall_tau_b": None if np.isnan(tau) else float(tau), "images": 16,
             "spearman_images": None}
        )  # fmt: skip
    return rows


def main() -> None:
    """Write a page to look at: ``python tests/report/make_experiment.py FOLDER``."""
    import sys

    folder = Path(sys.argv[1])
    artifact = run_report(Store(folder), make(Store(folder), Recipe()))
    print(artifact.path / "index.html")


if __name__ == "__main__":
    main()
