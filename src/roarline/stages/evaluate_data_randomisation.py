"""Data randomisation, the part of evaluate-sanity that compares two networks' maps of the same rows.

One network learned the labels, the other the same labels in another order. Both have their own artifacts of maps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from roarline.artifacts.column_parts import ColumnParts
from roarline.artifacts.dataset import DATASET_FILE, DatasetFile
from roarline.artifacts.maps import MAPS_FILE, MapsFile
from roarline.artifacts.store import Writer
from roarline.config.sanity import DATA_RANDOMISATION
from roarline.errors import ArtifactError
from roarline.evaluation.randomisation import Planes, Reference
from roarline.seeds import derive_seed
from roarline.stages.job import Context, Job
from roarline.stages.sanity_columns import OK, Layout, write_scores
from roarline.stages.scored_rows import Rows, image_size, rows_per_part, rows_to_score

_STAGE = "evaluate-sanity"


def run(job: Job, context: Context, writer: Writer) -> None:
    """Write ``scores.parquet``.

    Raises:
        ArtifactError: A map is missing on one side.
        MethodError: Maps have another size than the images.
    """
    parameters, inputs = job.parameters, context.inputs(job)
    layout = Layout([DATA_RANDOMISATION], parameters["similarities"])
    with (
        DatasetFile(inputs["dataset"].file(DATASET_FILE)) as dataset,
        MapsFile(inputs["maps"].file(MAPS_FILE)) as maps,
        MapsFile(inputs["shuffled_maps"].file(MAPS_FILE)) as shuffled,
    ):
        rows = rows_to_score(dataset, maps, parameters["limit"], parameters["seed"])
        size = image_size(dataset, maps)
        others = other_rows(rows, shuffled)
        shapes = {"values": (len(layout.columns),), "codes": (len(layout.columns),)}
        parts = ColumnParts(writer.parts, len(rows), rows_per_part(*size), shapes)
        done = len(rows) - len(parts.missing_rows)
        for index in parts.missing:
            context.progress(done, len(rows), "rows")
            span = parts.spans[index]
            values = compare(rows, span, others, maps, shuffled, parameters, layout, torch.device(context.device))
            parts.write(index, {"values": values, "codes": np.full(values.shape, OK, dtype=np.int8)})
            done += span.stop - span.start
        context.progress(done, len(rows), "rows")
    write_scores(writer.out, rows, layout, parts.read())


def other_rows(rows: Rows, shuffled: MapsFile) -> np.ndarray:
    """int64 [M]: the row of the other artifact that has the same image and target.

    Raises:
        ArtifactError: There is none.
    """
    pairs = zip(shuffled.sample_ids, shuffled.targets.tolist(), strict=True)
    place = {pair: row for row, pair in enumerate(pairs)}
    wanted = list(zip(rows.sample_ids, rows.targets.tolist(), strict=True))
    missing = [pair for pair in wanted if pair not in place]
    if missing:
        sample_id, target = missing[0]
        raise ArtifactError(
            f"{shuffled.path}: {len(missing)} of {len(wanted)} rows have no map, e.g. sample {sample_id!r} for class "
            f"{target}; delete its folder and run again"
        )
    return np.array([place[pair] for pair in wanted], dtype=np.int64)


def compare(
    rows: Rows,
    span: slice,
    others: np.ndarray,
    maps: MapsFile,
    shuffled: MapsFile,
    parameters: Mapping[str, Any],
    layout: Layout,
    device: torch.device,
) -> np.ndarray:
    """float64 [B, columns]."""

    def planes(file: MapsFile, places: np.ndarray) -> Planes:
        return Planes.of(torch.from_numpy(file.maps(places)).float().to(device), parameters["sign"])

    similarities, how = parameters["similarities"], parameters["normalisation"]
    reference = Reference(planes(maps, rows.maps[span]), similarities, how, parameters["window_px"])
    other = planes(shuffled, others[span])
    pairs = list(zip(rows.sample_ids[span], rows.targets[span].tolist(), strict=True))
    seeds = [
        [derive_seed(parameters["seed"], _STAGE, "displacement", DATA_RANDOMISATION, 0, draw, *pair) for pair in pairs]
        for draw in range(parameters["chance_draws"])
    ]
    values = np.empty((len(pairs), len(layout.columns)))
    for places, found in (
        (layout.once(DATA_RANDOMISATION), reference.similarity(other)),
        (layout.chance(DATA_RANDOMISATION), reference.chance(other, seeds)),
    ):
        values[:, [layout.number(place) for place in places]] = found.cpu().numpy()
    return values
