"""Stage evaluate-localization: do maps lie on the objects, and how concentrated are they?

Rows, each an (image, target) pair of the test split, are cut into parts of a fixed size; an interrupted run goes on
after the last whole part. A row without ground truth, or whose map is no mask, is a row with a status.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from roarline.artifacts.classifier import ClassifierCard
from roarline.artifacts.column_parts import ColumnParts, Columns
from roarline.artifacts.dataset import DATASET_FILE, DatasetFile
from roarline.artifacts.features import FEATURES_FILE, Features, write_features
from roarline.artifacts.maps import MAPS_FILE, MapsFile
from roarline.artifacts.store import Artifact, Writer
from roarline.artifacts.tables import SCORES_FILE, write_score_table
from roarline.config.localization import DIFFICULT_SUBSET
from roarline.config.metrics import METRICS
from roarline.data.loading import ImageReader, normalise
from roarline.imaging.reduction import apply_sign
from roarline.models.load import check_classes, load_classifier
from roarline.models.passes import memory_format, pass_size
from roarline.seeds import derive_seed
from roarline.stages import evaluate_class_masks, evaluate_grids
from roarline.stages.difficult_subset import Flags, in_difficult_subset, read_flags
from roarline.stages.ground_truth import Kind, Objects, Truth, known_kind
from roarline.stages.job import Context, Job
from roarline.stages.localization_batch import Batch, Batches
from roarline.stages.localization_metrics import (
    FEATURES,
    OK,
    STATUSES,
    columns_of,
    features_of,
    statuses_of,
    values_of,
    widths_of,
)
from roarline.stages.mask_reading import as_masks
from roarline.stages.scored_rows import Rows, image_size, rows_per_part, rows_to_score

STAGE = "evaluate-localization"
CLASS_MEAN = "mean over classes"
_BY_CLASS = ("pointing_game", DIFFICULT_SUBSET)


@dataclass(frozen=True)
class Network:
    """A classifier on its device, for the metrics that ask it."""

    card: ClassifierCard
    device: torch.device
    logits_of: Callable[[Tensor], Tensor]
    format: torch.memory_format


def run(job: Job, context: Context, writer: Writer) -> None:
    """Write ``scores.parquet`` and, where a metric is a function of means, ``features.h5``.

    Raises:
        ArtifactError: A map is missing, not finite or of an image that the data set doesn't have.
        DataError: The data set has no test images, or not the ground truth that a metric needs; or the file of the
            difficult subset is of another one.
        MethodError: Maps have another size than the images.
        ModelError: The classifier is for other classes.
    """
    for kind, other in (("grid", evaluate_grids), ("class_matrix", evaluate_class_masks)):
        if kind in job.parameters:
            other.run(job, context, writer)
            return
    parameters, inputs = job.parameters, context.inputs(job)
    metrics = parameters["metrics"]
    asks = any("network" in METRICS[metric].needs for metric in metrics)
    device = torch.device(context.device)
    with (
        DatasetFile(inputs["dataset"].file(DATASET_FILE)) as dataset,
        MapsFile(inputs["maps"].file(MAPS_FILE)) as maps,
        ImageReader(dataset, job.local.get("root"), context.loader_threads) as reader,
    ):
        network = _network(inputs["classifier"], dataset, device) if asks else None
        rows = rows_to_score(dataset, maps, parameters["limit"], parameters["seed"])
        size = image_size(dataset, maps)
        kinds = _kinds(dataset, parameters)
        objects = _objects(dataset, size, kinds, parameters)
        file = job.local.get("difficult_subset")
        flags = None
        if file and DIFFICULT_SUBSET in metrics:
            flags = read_flags(Path(file), dataset.num_classes, dataset.sample_ids)
        parts = ColumnParts(writer.parts, len(rows), rows_per_part(*size), _shapes(metrics, parameters))
        done = len(rows) - len(parts.missing_rows)
        for index in parts.missing:
            context.progress(done, len(rows), "rows")
            span = parts.spans[index]
            images = reader.read(rows.images[span]) if network else None
            batches = batches_of(rows, span, maps, dataset, objects, kinds, images, network, parameters, device, flags)
            parts.write(index, _columns(metrics, batches))
            done += span.stop - span.start
        context.progress(done, len(rows), "rows")
    write_scores(writer.out, rows, parts.read(), metrics, kinds)


def batches_of(
    rows: Rows,
    span: slice,
    maps: MapsFile,
    dataset: DatasetFile,
    objects: Mapping[Kind, Objects],
    kinds: Mapping[str, Kind],
    images: Tensor | None,
    network: Network | None,
    parameters: Mapping[str, Any],
    device: torch.device,
    flags: Flags | None = None,
) -> Batches:
    """Some rows, for every metric; ``flags`` say which are in the difficult subset, where a file does."""
    values = apply_sign(torch.from_numpy(maps.maps(rows.maps[span])).to(device), parameters["sign"])
    values = values.amax(dim=1) if values.ndim == 4 else values
    images_at, targets = rows.images[span], rows.targets[span]
    truths = {kind: found.of(images_at, targets, device) for kind, found in objects.items()}
    normalised = None
    if images is not None and network is not None:
        normalised = normalise(images.to(device), network.card.mean, network.card.std)
        normalised = normalised.contiguous(memory_format=network.format)
    pairs = zip(rows.sample_ids[span], targets.tolist(), strict=True)
    batch = Batch(
        maps=values,
        masks=as_masks(values, parameters["mask"]),
        truth=next(iter(truths.values())),
        targets=torch.from_numpy(targets).to(device),
        seeds=[derive_seed(parameters["seed"], STAGE, "draws", sample_id, target) for sample_id, target in pairs],
        right=_right(maps.logits[rows.maps[span]], dataset.labels[images_at], targets),
        settings=parameters,
        multi_label=dataset.multi_label,
        images=normalised,
        logits_of=network.logits_of if network else None,
        in_subset=_in_subset(dataset, images_at, targets, truths, kinds, flags),
    )
    return Batches(batch, truths, kinds, perfect=parameters.get("perfect", False))


def write_scores(folder: Path, rows: Rows, columns: Columns, metrics: Sequence[str], kinds: Mapping[str, Kind]) -> None:
    """Write a row for each metric, setting and row, failures too, and the features.

    Args:
        kinds: Of each metric that needs ground truth, which it was given; written beside its values.
    """
    settings = columns_of(metrics)
    scored = list(dict.fromkeys(metric for metric, _ in settings))
    if settings:
        found = (
            (metric, setting, columns["values"][:, place], _texts(columns["statuses"][:, scored.index(metric)]))
            for place, (metric, setting) in enumerate(settings)
        )
        path = folder / SCORES_FILE
        write_score_table(path, rows.sample_ids, rows.targets, found, lambda metric: kinds.get(metric, ""))
    features: dict[str, Features] = {}
    for metric in metrics:
        kind = kinds.get(metric, "")
        if metric in FEATURES:
            statuses = _texts(columns[f"status of {metric}"])
            values = _failed_as_nan(columns[f"features of {metric}"], statuses)
            features[metric] = Features(values, statuses, FEATURES[metric][1], ground_truth=kind)
        elif metric in _BY_CLASS:
            statuses = _texts(columns["statuses"][:, scored.index(metric)])
            values = _failed_as_nan(columns["values"][:, [settings.index((metric, ""))]], statuses)
            features[metric] = Features(values, statuses, "mean_value", CLASS_MEAN, rows.targets, kind)
    if features:
        write_features(folder / FEATURES_FILE, rows.sample_ids, rows.targets, features)


def _in_subset(
    dataset: DatasetFile,
    rows: np.ndarray,
    targets: np.ndarray,
    truths: Mapping[Kind, Truth],
    kinds: Mapping[str, Kind],
    flags: Flags | None,
) -> np.ndarray | None:
    kind = kinds.get(DIFFICULT_SUBSET)
    return None if kind is None else in_difficult_subset(dataset, rows, targets, truths[kind], kind, flags)


def _texts(statuses: np.ndarray) -> list[str]:
    return [STATUSES[status] for status in statuses.tolist()]


def _failed_as_nan(values: np.ndarray, statuses: list[str]) -> np.ndarray:
    failed = np.array([status != OK for status in statuses], dtype=bool)
    return np.where(failed[:, None], np.nan, values)


def _columns(metrics: Sequence[str], batches: Batches) -> Columns:
    settings, values = columns_of(metrics), values_of(metrics, batches)
    scored = list(dict.fromkeys(metric for metric, _ in settings))
    first = {metric: next(place for place, column in enumerate(settings) if column[0] == metric) for metric in scored}
    statuses = [statuses_of(metric, batches.of(metric), values[:, first[metric]]) for metric in scored]
    columns = {
        "values": values,
        "statuses": np.array(statuses, dtype=np.uint8).reshape(len(scored), len(values)).T,
    }
    for metric in metrics:
        if metric in FEATURES:
            features = features_of(metric, batches.of(metric))
            columns[f"features of {metric}"] = features
            columns[f"status of {metric}"] = statuses_of(metric, batches.of(metric), features.sum(axis=1))
    return columns


def _shapes(metrics: Sequence[str], parameters: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    settings = columns_of(metrics)
    shapes: dict[str, tuple[int, ...]] = {
        "values": (len(settings),),
        "statuses": (len({metric for metric, _ in settings}),),
    }
    for metric, width in widths_of(metrics, parameters).items():
        shapes[f"features of {metric}"] = (width,)
        shapes[f"status of {metric}"] = ()
    return shapes


def _kinds(dataset: DatasetFile, parameters: Mapping[str, Any]) -> dict[str, Kind]:
    asked = parameters["ground_truth"]
    return {metric: known_kind(dataset, asked[metric], metric) for metric in parameters["metrics"] if metric in asked}


def _objects(
    dataset: DatasetFile, size: tuple[int, int], kinds: Mapping[str, Kind], parameters: Mapping[str, Any]
) -> dict[Kind, Objects]:
    """By kind; those of metrics that need none are never asked."""
    wanted: list[Kind] = sorted(set(kinds.values())) or ["boxes"]
    return {kind: Objects(dataset, size, kind, void_is_object=parameters["compat"] == "original") for kind in wanted}


def _network(artifact: Artifact, dataset: DatasetFile, device: torch.device) -> Network:
    model, card = load_classifier(artifact)
    check_classes(card, dataset.class_names, dataset.name)
    layout = memory_format(card.arch)
    model = model.to(device).to(memory_format=layout)  # type: ignore[call-overload]

    def logits_of(images_BCHW: Tensor) -> Tensor:
        at_once = pass_size(images_BCHW.shape[2], images_BCHW.shape[3], device)
        with torch.inference_mode():
            passes = [
                model(images_BCHW[start : start + at_once].contiguous(memory_format=layout))
                for start in range(0, len(images_BCHW), at_once)
            ]
        return torch.cat(passes)

    return Network(card, device, logits_of, layout)


def _right(logits_BK: np.ndarray, labels_B: np.ndarray, targets_B: np.ndarray) -> np.ndarray:
    """bool [B]: the classifier decides for a label that the image has; with several labels, for the target itself."""
    if labels_B.ndim == 1:
        return np.asarray(logits_BK.argmax(axis=1) == labels_B)
    return np.asarray(logits_BK[np.arange(len(targets_B)), targets_B] > 0)
