"""GridPG and DiFull, the part of evaluate-localization whose images are composed: maps are made here, of grids.

A grid is n × n test images of different classes, each of which the classifier is sure of. GridPG takes the network as
it is; DiFull one that sees a single cell (``models.disconnected``), so that anything attributed elsewhere is wrong. The
score is the share of the positive relevance in the target's cell. Each cell is a part from which a run goes on.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from roarline.artifacts.classifier import ClassifierCard
from roarline.artifacts.column_parts import ColumnParts
from roarline.artifacts.dataset import DATASET_FILE, DatasetFile
from roarline.artifacts.store import Writer
from roarline.artifacts.tables import OK, SCORES_FILE, write_score_table
from roarline.attribution.call import find_method
from roarline.attribution.surroundings import Surroundings
from roarline.config.component import MapFilter, Smooth
from roarline.data.loading import ImageReader, normalise
from roarline.errors import DataError, ModelError
from roarline.evaluation.grid_cells import cell_mask, draw_grids
from roarline.evaluation.relevance import relevance_mass
from roarline.imaging.reduction import apply_sign
from roarline.models.disconnected import disconnected, joined
from roarline.models.load import check_classes, load_classifier
from roarline.models.passes import pass_size
from roarline.seeds import derive_seed
from roarline.stages.extract_attribution_maps import Extraction
from roarline.stages.filter_maps import apply_filter
from roarline.stages.job import Context, Job
from roarline.stages.surroundings import explainer_of, surroundings_of

_STAGE = "evaluate-localization"
_DIFULL = "difull"
_AT_ONCE_PX = 2**22
_SAME = 1e-3


@dataclass(frozen=True)
class Grids:
    """Rows of the data set [G, n · n], and the class of each cell [G, n · n]."""

    rows: np.ndarray
    classes: np.ndarray
    side: int


def run(job: Job, context: Context, writer: Writer) -> None:
    """Write ``scores.parquet``: a row for each grid, cell and metric.

    Raises:
        DataError: The classifier is sure of too few images of different classes.
        ModelError: The classifier takes no larger images, or (DiFull) can't be cut into cells.
        MethodError: The method fails on grids.
    """
    parameters, inputs = job.parameters, context.inputs(job)
    model, card = load_classifier(inputs["classifier"])
    device = torch.device(context.device)
    smooth = Smooth(**parameters["smooth"]) if "smooth" in parameters else None
    name = parameters.get("dotted_path", parameters["method"])
    method = find_method(name, parameters["params"], batched=parameters["batched"], smooth=smooth)
    with (
        DatasetFile(inputs["dataset"].file(DATASET_FILE)) as dataset,
        ImageReader(dataset, job.local.get("root"), context.loader_threads) as reader,
    ):
        check_classes(card, dataset.class_names, dataset.name)
        size = dataset.image_size
        if size is None:
            raise DataError(f"images of {dataset.name!r} differ in size; set data.resize_px and data.crop_px")
        purpose, network = f"{_STAGE} {method.name}", explainer_of(inputs, model, dataset, size)
        surroundings = surroundings_of(reader, card, size, device, parameters["seed"], purpose, explainer=network)
        extraction = Extraction(model, card, method, {**parameters, "dtype": "float32"}, device, surroundings)
        grids = compose(extraction, reader, parameters)
        check_network(extraction, _pixels(reader, grids, slice(0, 1)), grids.side, parameters["metrics"])
        metrics, count = parameters["metrics"], len(grids.rows)
        parts = ColumnParts(writer.parts, grids.rows.size, count, {"values": (len(metrics),)})
        done = grids.rows.size - len(parts.missing_rows)
        for cell in parts.missing:
            context.progress(done, grids.rows.size, "grids")
            parts.write(cell, {"values": score_cell(extraction, surroundings, reader, grids, cell, parameters, size)})
            done += count
        context.progress(done, grids.rows.size, "grids")
    values = parts.read()["values"]
    ids = [f"grid/{grid:06d}" for _ in range(grids.side**2) for grid in range(count)]
    columns = ((metric, "", values[:, place], [OK] * len(values)) for place, metric in enumerate(metrics))
    write_score_table(writer.out / SCORES_FILE, ids, grids.classes.T.ravel(), columns)


def compose(extraction: Extraction, reader: ImageReader, parameters: Mapping[str, Any]) -> Grids:
    """Draw the grids, the same for every method.

    Raises:
        DataError: Not one grid can be made.
    """
    grid, dataset, card = parameters["grid"], reader.dataset, extraction.card
    rows = dataset.rows("test")
    if not len(rows):
        raise DataError(f"data set {dataset.name!r} has no test images to compose grids of")
    order = np.random.default_rng(derive_seed(parameters["seed"], _STAGE, "grids")).permutation(rows)
    wanted = grid["count"] * grid["side"] ** 2
    sure: list[int] = []
    targets: list[int] = []
    batch = pass_size(*(dataset.image_size or (1, 1)), extraction.device)
    for batch_rows, pixels in reader.batches(order, batch):
        known = _sure_of(_probabilities(extraction, card, pixels, dataset.multi_label), dataset.labels[batch_rows])
        for row, (target, probability) in zip(batch_rows.tolist(), known, strict=True):
            if probability >= grid["confidence"]:
                sure.append(row)
                targets.append(target)
        if len(sure) >= wanted:
            break
    labels = dataset.labels[sure] if sure else np.empty((0, dataset.num_classes))
    hot = labels > 0 if labels.ndim == 2 else np.eye(dataset.num_classes, dtype=bool)[labels]
    seeds = [derive_seed(parameters["seed"], _STAGE, "grid", index) for index in range(grid["count"])]
    chosen = draw_grids(hot, np.array(targets, dtype=np.int64), grid["side"], grid["count"], seeds)
    if not len(chosen):
        raise DataError(
            f"data set {dataset.name!r}: the classifier gives {len(sure)} test images their class with a probability "
            f"of {grid['confidence']:g} or more, and no {grid['side'] ** 2} of them are of classes apart; lower "
            "evaluate-localization.grid.confidence or grid.side"
        )
    return Grids(np.array(sure)[chosen], np.array(targets)[chosen], grid["side"])


def check_network(extraction: Extraction, pixels: Tensor, side: int, metrics: list[str]) -> None:
    """Refuse networks that take no grids, or whose cells can't be told apart.

    Args:
        pixels: uint8 [1, C, n · H, n · W].
    """
    card, model = extraction.card, extraction.model
    images = normalise(pixels.to(extraction.device), card.mean, card.std)
    height, width = images.shape[2] // side, images.shape[3] // side
    try:
        with torch.inference_mode():
            model(images)
            alone = model(images[:, :, :height, :width].contiguous())
            if _DIFULL not in metrics:
                return
            with disconnected(model, side, 0):
                apart = model(images)
    except (RuntimeError, ValueError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise ModelError(
            f"{card.arch}: can't look at grids of {side} × {side} images, {images.shape[2]}×{images.shape[3]} px "
            f"({error}); leave grid_pointing_game and difull out"
        ) from error
    if apart.shape != alone.shape or not torch.allclose(apart, alone, rtol=_SAME, atol=_SAME):
        raise ModelError(
            f"{card.arch}: its cells can't be taken apart, since it mixes pixels by other operations than convolution "
            "and pooling; leave difull out"
        )


def score_cell(
    extraction: Extraction,
    surroundings: Surroundings,
    reader: ImageReader,
    grids: Grids,
    cell: int,
    parameters: Mapping[str, Any],
    size: tuple[int, int],
) -> np.ndarray:
    """float64 [G, metrics]: the share of the positive relevance in one cell, for the class of that cell."""
    side, mask = grids.side, cell_mask(size, grids.side, cell)
    extraction.surroundings = _of_grids(surroundings, side, mask)
    at_once = max(1, _AT_ONCE_PX // mask.numel())
    found = []
    for start in range(0, len(grids.rows), at_once):
        span = slice(start, start + at_once)
        pixels, targets = _pixels(reader, grids, span), grids.classes[span, cell]
        ids = [f"grid/{grid:06d}" for grid in range(start, start + len(targets))]
        columns = []
        for metric in parameters["metrics"]:
            cut = metric == _DIFULL
            with disconnected(extraction.model, side, cell) if cut else contextlib.nullcontext():
                launched = extraction.launch(pixels, targets, ids)
            maps = torch.from_numpy(extraction.fetch(launched, ids).maps)
            if "filter" in parameters:
                maps = apply_filter(maps, MapFilter(**parameters["filter"]))
            maps = apply_sign(maps, parameters["sign"])
            maps = maps.amax(dim=1) if maps.ndim == 4 else maps
            columns.append(relevance_mass(maps, mask.expand_as(maps)).numpy())
        found.append(np.stack(columns, axis=1))
    return np.concatenate(found)


def _of_grids(surroundings: Surroundings, side: int, mask_HW: Tensor) -> Surroundings:
    """What methods may ask of grids: references are grids too, and the ground truth is the cell."""
    references = surroundings.references
    return dataclasses.replace(
        surroundings,
        references=None if references is None else lambda count: joined(references(count * side**2), side),
        ground_truth=lambda ids, targets: mask_HW.float().to(targets.device).expand(len(ids), *mask_HW.shape),
    )


def _pixels(reader: ImageReader, grids: Grids, span: slice) -> Tensor:
    """uint8 [G, C, n · H, n · W]."""
    return joined(reader.read(grids.rows[span].ravel()), grids.side)


def _probabilities(extraction: Extraction, card: ClassifierCard, pixels: Tensor, multi_label: bool) -> np.ndarray:
    """float64 [B, K]."""
    images = normalise(pixels.to(extraction.device), card.mean, card.std)
    with torch.inference_mode():
        logits = extraction.model(images.contiguous(memory_format=extraction.memory_format)).double()
    found: np.ndarray = (logits.sigmoid() if multi_label else logits.softmax(dim=1)).cpu().numpy()
    return found


def _sure_of(probabilities_BK: np.ndarray, labels: np.ndarray) -> list[tuple[int, float]]:
    """For each image the class that it has and is surest of, and how sure; 0 where another class is surer."""
    found = []
    for probabilities, label in zip(probabilities_BK, labels, strict=True):
        own = np.flatnonzero(label) if labels.ndim == 2 else np.array([label])
        target = int(own[probabilities[own].argmax()]) if len(own) else 0
        right = len(own) > 0 and probabilities.argmax() == target
        found.append((target, float(probabilities[target]) if right else 0.0))
    return found
