"""Stage aggregate-scores: every score and every retrained network in one table, with intervals, differences, ranks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from roarline.artifacts.comparison_tables import write_comparisons
from roarline.artifacts.features import FEATURES_FILE, FeatureTable, read_features
from roarline.artifacts.score_table import ScoreTable, read_ground_truths, read_scores
from roarline.artifacts.store import Artifact, Writer
from roarline.artifacts.tables import GROUND_TRUTH_COLUMN, OK, SCORES_FILE, write_csv, write_parquet
from roarline.config.component import MetricComponent
from roarline.config.metrics import with_own_metrics
from roarline.errors import ArtifactError
from roarline.evaluation.feature_summary import FeatureColumn, feature_draws, summarise_features
from roarline.evaluation.summary import MEAN_SETTING, Column, Summary, summarise
from roarline.seeds import derive_seed
from roarline.stages.aggregate_cells import (
    FRACTION,
    REFERENCE,
    area_rows,
    cell_columns,
    means_over_fractions,
    read_grid,
)
from roarline.stages.aggregate_comparisons import Family, comparison_tables, means
from roarline.stages.job import Context, Job

STAGE = "aggregate-scores"
SUMMARY_CSV = "scores.csv"
_POINTS = (FRACTION, "threshold=", "explanation_size=", "layer=")
_MEANS = (MEAN_SETTING, "mean over thresholds", "mean over classes", "mean over explanation sizes")
_RANDOM, _CELLS = "random", "retraining"

FAMILIES = ("scores", "localization", "grids", "classes", "f_fidelity", "idsds", "sanity", "labels")
"""Roles of the inputs that score methods row by row: of evaluate-perturbation, evaluate-localization and so on."""


def run(job: Job, context: Context, writer: Writer) -> None:
    """Write ``scores.parquet`` and, with the same rows, ``scores.csv``; beside them the tables of comparisons.

    Raises:
        ArtifactError: An input is damaged, or methods were scored on different rows.
    """
    parameters, inputs = job.parameters, context.inputs(job)
    methods = [method["name"] for method in parameters["methods"]]
    metrics = with_own_metrics(parameters.get("own_metrics", []))
    settings: dict[str, Any] = {
        "baseline": next((m["name"] for m in parameters["methods"] if m["method"] == _RANDOM), None),
        "higher_is_better": lambda metric: metrics[metric].higher_is_better,
        "confidence": parameters["confidence"],
    }
    resamples: int = parameters["resamples"]
    seeds = {family: derive_seed(parameters["seed"], STAGE, family) for family in (*FAMILIES, _CELLS)}
    rows: list[Summary] = []
    areas: list[Summary] = []
    families: list[Family] = []
    kinds: dict[str, str] = {}
    total, done = len(inputs), 0
    for name in FAMILIES:
        scored = {method: inputs[f"{name}:{method}"] for method in methods if f"{name}:{method}" in inputs}
        with_rows = {method: artifact for method, artifact in scored.items() if SCORES_FILE in artifact.manifest.files}
        if with_rows:
            family = score_columns(with_rows)
            rows += summarise(family.columns, family.images, **settings, resamples=resamples, seed=seeds[name])
            families.append(family)
            kinds |= read_ground_truths(next(iter(with_rows.values())).file(SCORES_FILE))
        featured = {method: artifact for method, artifact in scored.items() if FEATURES_FILE in artifact.manifest.files}
        if featured:
            family = feature_columns(featured, resamples, seeds[name])
            rows += summarise_features(family.features, draws=family.draws, **settings)
            families.append(family)
            first = read_features(next(iter(featured.values())).file(FEATURES_FILE))
            kinds |= {metric: features.ground_truth for metric, features in first.metrics.items()}
        done += len(scored)
        context.progress(done, total, "inputs")
    if parameters["cells"]:
        grid = read_grid(parameters["cells"], inputs)
        columns, images = cell_columns(grid)
        rows += summarise(columns, images, **settings, resamples=resamples, seed=seeds[_CELLS])
        shared = {name: settings[name] for name in ("baseline", "confidence")}
        areas = area_rows(grid, **shared, resamples=resamples, seed=seeds[_CELLS])
        rows += areas
        families.append(Family(columns, images, grid.sample_ids))
    rows = _ordered(rows, list(metrics), [*methods, REFERENCE])
    table = _table(rows, metrics, kinds, parameters["dataset"], parameters["model"])
    write_parquet(writer.out / SCORES_FILE, table)
    write_csv(writer.out / SUMMARY_CSV, table)
    comparisons = comparison_tables(
        families,
        [
            (point["factor"], point["value"], means(score_columns(_swept(role, methods, inputs)).columns))
            for role, point in parameters.get("sweep", {}).items()
        ],
        methods=methods,
        directions={name: metric.higher_is_better for name, metric in metrics.items()},
        points=_POINTS,
        confidence=parameters["confidence"],
        resamples=resamples,
        seed=derive_seed(parameters["seed"], STAGE, "comparisons"),
        areas=_by_method(areas),
    )
    write_comparisons(writer.out, comparisons)
    context.progress(total, total, "inputs")


def _by_method(rows: Sequence[Summary]) -> dict[tuple[str, str], dict[str, float]]:
    """Of a metric and setting, method to its score."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows:
        if row.value is not None:
            found.setdefault((row.metric, row.setting), {})[row.method] = row.value
    return found


def _swept(role: str, methods: Sequence[str], inputs: Mapping[str, Artifact]) -> dict[str, Artifact]:
    """Method to its scores at one point of the sweep."""
    return {method: inputs[f"{role}:{method}"] for method in methods if f"{role}:{method}" in inputs}


def score_columns(artifacts: Mapping[str, Artifact]) -> Family:
    """The columns of all methods' scores, and the image of each row.

    Raises:
        ArtifactError: A file is damaged, or a method was scored on other rows than the first.
    """
    columns: list[Column] = []
    tables = {method: read_scores(artifact.file(SCORES_FILE)) for method, artifact in artifacts.items()}
    images, image_ids = _same_rows(tables, artifacts)
    for method, table in tables.items():
        found = [
            Column(
                method,
                metric,
                setting,
                torch.from_numpy(column.values)[None],
                reason=column.reasons.most_common(1)[0][0] if column.reasons else None,
            )
            for (metric, setting), column in table.columns.items()
        ]
        columns += [*found, *means_over_fractions(found)]
    return Family(columns, images, image_ids)


def feature_columns(artifacts: Mapping[str, Artifact], resamples: int, seed: int) -> Family:
    """The features of all methods, the image of each row, and the scores of resamples.

    Raises:
        ArtifactError: A file is damaged, or a method was scored on other rows than the first.
    """
    tables = {method: read_features(artifact.file(FEATURES_FILE)) for method, artifact in artifacts.items()}
    images, image_ids = _same_rows(tables, artifacts)
    columns: list[FeatureColumn] = []
    for method, table in tables.items():
        for metric, features in table.metrics.items():
            reasons = Counter(status for status in features.statuses if status != OK)
            columns.append(
                FeatureColumn(
                    method,
                    metric,
                    features.setting,
                    torch.from_numpy(features.values),
                    features.statistic,
                    None if features.groups is None else torch.from_numpy(features.groups),
                    reason=reasons.most_common(1)[0][0] if reasons else None,
                )
            )
    draws = feature_draws(columns, images, resamples=resamples, seed=seed)
    return Family([], images, image_ids, columns, draws)


def _same_rows(
    tables: Mapping[str, ScoreTable] | Mapping[str, FeatureTable], artifacts: Mapping[str, Artifact]
) -> tuple[Tensor, list[str]]:
    """(int64 [M] the image of each row, [N] ids of the images); all methods must have been scored on the same rows."""
    first = next(iter(tables))
    ids, targets = tables[first].sample_ids, tables[first].targets
    for method, table in tables.items():
        if table.sample_ids != ids or not np.array_equal(table.targets, targets):
            raise ArtifactError(
                f"{artifacts[method].path}: method {method!r} was scored on {len(table.sample_ids)} rows, {first!r} on "
                f"{len(ids)} or others; methods can be compared on the same images and targets only"
            )
    image_ids, image = np.unique(np.array(ids, dtype=str), return_inverse=True)
    return torch.from_numpy(image), image_ids.tolist()


def _ordered(rows: Sequence[Summary], metrics: Sequence[str], methods: Sequence[str]) -> list[Summary]:
    """By metric as in the table of metrics, then setting (means last), then method as in the config."""

    def key(row: Summary) -> tuple[int, int, float, str, int]:
        name, _, number = row.setting.partition("=")
        place = float(number.split()[0]) if f"{name}=" in _POINTS else 0.0
        return metrics.index(row.metric), row.setting in _MEANS, place, row.setting, methods.index(row.method)

    return sorted(rows, key=key)


def _table(
    rows: Sequence[Summary],
    metrics: Mapping[str, MetricComponent],
    kinds: Mapping[str, str],
    dataset: str,
    model: str,
) -> dict[str, list[Any]]:
    return {
        "dataset": [dataset] * len(rows),
        "model": [model] * len(rows),
        "method": [row.method for row in rows],
        "metric": [row.metric for row in rows],
        "setting": [row.setting for row in rows],
        "value": [row.value for row in rows],
        "ci_low": [row.interval and row.interval[0] for row in rows],
        "ci_high": [row.interval and row.interval[1] for row in rows],
        "n": [row.n for row in rows],
        "failed": [row.failed for row in rows],
        "higher_is_better": [metrics[row.metric].higher_is_better for row in rows],
        "unit": [metrics[row.metric].unit for row in rows],
        GROUND_TRUTH_COLUMN: [kinds.get(row.metric, "") for row in rows],
        "difference_to_random": [row.difference for row in rows],
        "difference_ci_low": [row.difference_interval and row.difference_interval[0] for row in rows],
        "difference_ci_high": [row.difference_interval and row.difference_interval[1] for row in rows],
        "rank": [row.rank for row in rows],
        "status": [row.status for row in rows],
    }
