"""Stage evaluate-f-fidelity: random gaps within and outside of an explanation, seen by a network that knows gaps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from roarline.artifacts.store import Writer
from roarline.errors import UserInputError
from roarline.evaluation.f_fidelity import Gap, f_fidelity, gaps
from roarline.imaging.ranking import rank_pixels
from roarline.seeds import derive_seed
from roarline.stages.job import Context, Job
from roarline.stages.surrogate_scores import OK, Batch, Scored, measure_rows, write_columns

STAGE = "evaluate-f-fidelity"
MEAN = "mean over explanation sizes"
_SETTING = "explanation_size="
_METRICS = ("ffid_plus", "ffid_minus")
_NOT_FINITE = "the classifier's output is NaN or infinite"


def run(job: Job, context: Context, writer: Writer) -> None:
    """Write ``scores.parquet``: ffid_plus and ffid_minus at every explanation size, and their means over sizes.

    Raises:
        UserInputError: Images are so small that less than a pixel would be taken away.
        (else as ``measure_rows``)
    """
    parameters = job.parameters

    def measure(batch: Batch) -> np.ndarray:
        """float64 [B, 2 · S]: FFid+ by size, then FFid−."""
        height, width = batch.images.shape[2:]
        ties = [derive_seed(parameters["seed"], "ties", sample_id) for sample_id in batch.sample_ids]
        pairs = list(zip(batch.sample_ids, batch.targets.tolist(), strict=True))
        values = f_fidelity(
            batch.score_of(parameters["score"]),
            batch.images,
            rank_pixels(batch.maps, ties, parameters["ties"]),
            batch.fill,
            _gaps(parameters, height * width),
            [
                [derive_seed(parameters["seed"], STAGE, "gaps", sample_id, target, draw) for sample_id, target in pairs]
                for draw in range(parameters["samples"])
            ],
        )
        return values.permute(1, 0, 2).flatten(1).cpu().numpy()

    def width(size: tuple[int, int]) -> int:
        return len(_METRICS) * len(_gaps(parameters, math.prod(size)))

    rows, values = measure_rows(job, context, writer, width, measure)
    write_columns(writer.out, rows, list(_columns(values, parameters["sizes"])))


def _gaps(parameters: Mapping[str, Any], pixels: int) -> list[Gap]:
    settings = {name: parameters[name] for name in ("alpha_plus", "alpha_minus", "beta")}
    try:
        return gaps(parameters["sizes"], pixels, **settings)
    except ValueError as error:
        raise UserInputError(f"{STAGE}: {error}") from error


def _columns(values: np.ndarray, sizes: list[float]) -> Iterator[Scored]:
    by_metric = values.reshape(len(values), len(_METRICS), len(sizes))
    for place, metric in enumerate(_METRICS):
        settings = {f"{_SETTING}{size:.12g}": by_metric[:, place, index] for index, size in enumerate(sizes)}
        if len(sizes) > 1:
            settings[MEAN] = by_metric[:, place].mean(axis=1)
        for setting, column in settings.items():
            yield Scored(metric, setting, column, [OK if good else _NOT_FINITE for good in np.isfinite(column)])
