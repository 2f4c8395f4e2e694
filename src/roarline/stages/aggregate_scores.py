"""Stage aggregate-scores: every score and every retrained network in one table, with intervals, differences, ranks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from roarline.artifacts.retraining import PREDICTIONS_FILE, read_correct
from roarline.artifacts.score_table import ScoreTable, read_scores
from roarline.artifacts.store import Artifact, Writer
from roarline.artifacts.tables import SCORES_FILE, write_csv, write_parquet
from roarline.config.component import MetricComponent
from roarline.config.metrics import with_own_metrics
from roarline.errors import ArtifactError
from roarline.evaluation.summary import MEAN_SETTING, Column, Summary, mean_over_settings, summarise
from roarline.seeds import derive_seed
from roarline.stages.job import Context, Job

STAGE = "aggregate-scores"
REFERENCE = "(nothing removed)"
SUMMARY_CSV = "scores.csv"
_FRACTION = "removed_fraction="
_RANDOM = "random"


def run(job: Job, context: Context, writer: Writer) -> None:
    """Write ``scores.parquet`` and, with the same rows, ``scores.csv``.

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
        "resamples": parameters["resamples"],
    }
    rows: list[Summary] = []
    scored = {name: inputs[f"scores:{name}"] for name in methods if f"scores:{name}" in inputs}
    total = len(scored) + len(parameters["cells"])
    if scored:
        columns, images = score_columns(scored)
        rows += summarise(columns, images, **settings, seed=derive_seed(parameters["seed"], STAGE, "scores"))
    context.progress(len(scored), total, "inputs")
    if parameters["cells"]:
        columns, images = cell_columns(parameters["cells"], inputs)
        rows += summarise(columns, images, **settings, seed=derive_seed(parameters["seed"], STAGE, "retraining"))
    context.progress(total, total, "inputs")
    rows = _ordered(rows, list(metrics), [*methods, REFERENCE])
    table = _table(rows, metrics, parameters["dataset"], parameters["model"])
    write_parquet(writer.out / SCORES_FILE, table)
    write_csv(writer.out / SUMMARY_CSV, table)


def score_columns(artifacts: Mapping[str, Artifact]) -> tuple[list[Column], Tensor]:
    """The columns of all methods' scores, and the image of each row.

    Raises:
        ArtifactError: A file is damaged, or a method was scored on other rows than the first.
    """
    columns: list[Column] = []
    first: tuple[str, ScoreTable] | None = None
    for method, artifact in artifacts.items():
        table = read_scores(artifact.file(SCORES_FILE))
        if first is None:
            first = method, table
        elif table.sample_ids != first[1].sample_ids or not np.array_equal(table.targets, first[1].targets):
            raise ArtifactError(
                f"{artifact.path}: method {method!r} was scored on {len(table.sample_ids)} rows, {first[0]!r} on "
                f"{len(first[1].sample_ids)} or others; methods can be compared on the same images and targets only"
            )
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
        columns += [*found, *_means_over_fractions(found)]
    _, image = np.unique(np.array(first[1].sample_ids if first else [], dtype=str), return_inverse=True)
    return columns, torch.from_numpy(image)


def cell_columns(cells: Mapping[str, Mapping[str, Any]], inputs: Mapping[str, Artifact]) -> tuple[list[Column], Tensor]:
    """The columns of all retrained networks: for each a row of right and wrong predictions; every image is a cluster.

    Args:
        cells: Role of the input to the cell's place in the grid.

    Raises:
        ArtifactError: A file is damaged, or networks were tested on different images.
    """
    grouped: dict[tuple[str | None, str, float, bool], dict[int, Tensor]] = {}
    ids: list[str] = []
    for role, place in cells.items():
        path = inputs[role].file(PREDICTIONS_FILE)
        sample_ids, correct = read_correct(path)
        order = sorted(range(len(sample_ids)), key=sample_ids.__getitem__)
        sorted_ids = [sample_ids[row] for row in order]
        ids = ids or sorted_ids
        if sorted_ids != ids:
            raise ArtifactError(f"{path}: tested on other images than the first network of the grid")
        key = (place["method"], place["mode"], float(place["removed_fraction"]), bool(place["probe"]))
        grouped.setdefault(key, {})[int(place["repeat"])] = torch.from_numpy(correct[order])
    modes = list(dict.fromkeys(mode for method, mode, _, _ in grouped if method is not None))
    columns: dict[tuple[str, str], list[Column]] = {}
    for (method, mode, fraction, probe), repeats in grouped.items():
        values, numbers = torch.stack([repeats[repeat] for repeat in sorted(repeats)]), tuple(sorted(repeats))
        for metric in [_metric(mode, probe)] if method is not None else [_metric(mode, False) for mode in modes]:
            name, setting = method or REFERENCE, f"{_FRACTION}{fraction:.12g}"
            column = Column(name, metric, setting, values, numbers, ranked=method is not None)
            columns.setdefault((name, metric), []).append(column)
    found = [column for group in columns.values() for column in [*group, *_means_over_fractions(group)]]
    return found, torch.arange(len(ids))


def _metric(mode: str, probe: bool) -> str:
    return f"{mode}_{'leakage' if probe else 'accuracy'}"


def _means_over_fractions(columns: Sequence[Column]) -> Iterator[Column]:
    """For each metric that has several fractions, the mean over them."""
    for metric in dict.fromkeys(column.metric for column in columns):
        group = [c for c in columns if c.metric == metric and c.setting.startswith(_FRACTION)]
        if len(group) > 1:
            yield mean_over_settings(group)


def _ordered(rows: Sequence[Summary], metrics: Sequence[str], methods: Sequence[str]) -> list[Summary]:
    """By metric as in the table of metrics, then setting (the mean last), then method as in the config."""

    def key(row: Summary) -> tuple[int, int, float, int]:
        fraction = float(row.setting.removeprefix(_FRACTION)) if row.setting.startswith(_FRACTION) else 0.0
        return metrics.index(row.metric), row.setting == MEAN_SETTING, fraction, methods.index(row.method)

    return sorted(rows, key=key)


def _table(
    rows: Sequence[Summary], metrics: Mapping[str, MetricComponent], dataset: str, model: str
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
        "difference_to_random": [row.difference for row in rows],
        "difference_ci_low": [row.difference_interval and row.difference_interval[0] for row in rows],
        "difference_ci_high": [row.difference_interval and row.difference_interval[1] for row in rows],
        "rank": [row.rank for row in rows],
        "status": [row.status for row in rows],
    }
