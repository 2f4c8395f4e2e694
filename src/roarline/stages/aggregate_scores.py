"""Stage aggregate-scores: every score and every retrained network in one table, with intervals, differences, ranks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from roarline.artifacts.comparison_tables import write_comparisons
from roarline.artifacts.features import FEATURES_FILE, FeatureTable, read_feature_ground_truths, read_features
from roarline.artifacts.score_table import ScoreTable, read_ground_truths, read_scores
from roarline.artifacts.store import Artifact, Writer
from roarline.artifacts.tables import GROUND_TRUTH_COLUMN, OK, SCORES_FILE, write_csv, write_parquet
from roarline.config.component import MetricComponent
from roarline.config.metrics import with_own_metrics
from roarline.errors import ArtifactError
from roarline.evaluation.feature_summary import FeatureColumn, FeatureScore, score_features, summarise_features
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
            family = feature_scores(featured, resamples, seeds[name])
            rows += summarise_features(family.features, **settings)
            families.append(family)
            kinds |= read_feature_ground_truths(next(iter(featured.values())).file(FEATURES_FILE))
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
    rows, columns = _SameRows(), list[Column]()
    for method, artifact in artifacts.items():
        table = read_scores(artifact.file(SCORES_FILE))
        rows.take(method, table, artifact)
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
    return Family(columns, rows.images, rows.image_ids)


def feature_scores(artifacts: Mapping[str, Artifact], resamples: int, seed: int) -> Family:
    """What the features of all methods come to, and the image of each row; one method's features at a time.

    Raises:
        ArtifactError: A file is damaged, or a method was scored on other rows than the first.
    """
    rows, scores = _SameRows(), list[FeatureScore]()
    for method, artifact in artifacts.items():
        table = read_features(artifact.file(FEATURES_FILE))
        rows.take(method, table, artifact)
        for metric, features in table.metrics.items():
            reasons = Counter(status for status in features.statuses if status != OK)
            column = FeatureColumn(
                method,
                metric,
                features.setting,
                torch.from_numpy(features.values),
                features.statistic,
                None if features.groups is None else torch.from_numpy(features.groups),
                reason=reasons.most_common(1)[0][0] if reasons else None,
            )
            scores.append(score_features(column, rows.images, resamples=resamples, seed=seed))
    return Family([], rows.images, rows.image_ids, scores)


class _SameRows:
    """The rows that all methods must have been scored on: those of the first.

    Attributes:
        images: int64 [M], the image of each row.
        image_ids: [N].
    """

    def __init__(self) -> None:
        self.images, self.image_ids = torch.empty(0, dtype=torch.int64), list[str]()
        self._first: tuple[str, list[str], np.ndarray] | None = None

    def take(self, method: str, table: ScoreTable | FeatureTable, artifact: Artifact) -> None:
        """Take the rows of the first method; refuse others."""
        if self._first is None:
            self._first = method, table.sample_ids, table.targets
            image_ids, images = np.unique(np.array(table.sample_ids, dtype=str), return_inverse=True)
            self.images, self.image_ids = torch.from_numpy(images), image_ids.tolist()
            return
        first, sample_ids, targets = self._first
        if table.sample_ids != sample_ids or not np.array_equal(table.targets, targets):
            raise ArtifactError(
                f"{artifact.path}: method {method!r} was scored on {len(table.sample_ids)} rows, {first!r} on "
                f"{len(sample_ids)} or others; methods can be compared on the same images and targets only"
            )


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
