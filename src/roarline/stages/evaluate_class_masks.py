"""The class-specific matrix, the part of evaluate-localization that needs maps of classes an image doesn't show.

For every image with one of the classes asked for, and for every one of them, the method's map is made, read as a mask,
cut at nine thresholds, and what is left of the image is shown to the classifier. Parts are fixed numbers of images.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from roarline.artifacts.class_masks import CLASS_MASKS_FILE, write_class_masks
from roarline.artifacts.column_parts import ColumnParts
from roarline.artifacts.dataset import DATASET_FILE, DatasetFile
from roarline.artifacts.store import Writer
from roarline.artifacts.tables import OK, SCORES_FILE, write_parquet, write_score_table
from roarline.attribution.call import find_method
from roarline.attribution.surroundings import Surroundings
from roarline.config.component import MapFilter, Smooth
from roarline.data.loading import ImageReader, normalise
from roarline.errors import DataError
from roarline.evaluation.class_masks import masked_class_probabilities, own_and_others
from roarline.imaging.reduction import apply_sign
from roarline.models.load import check_classes, load_classifier
from roarline.models.passes import pass_size
from roarline.stages.draws import draw_rows
from roarline.stages.extract_attribution_maps import Extraction
from roarline.stages.filter_maps import apply_filter
from roarline.stages.ground_truth import Objects
from roarline.stages.job import Context, Job
from roarline.stages.localization_metrics import NO_MASK, NOT_FINITE
from roarline.stages.mask_reading import as_masks
from roarline.stages.surroundings import explainer_of, surroundings_of

MATRIX_FILE = "class_matrix.parquet"
_STAGE = "evaluate-localization"
_OWN = "own_class_probability"
_NO_OTHER = "there is no other class to compare with"


def run(job: Job, context: Context, writer: Writer) -> None:
    """Write ``scores.parquet``, a row for each image and class that it has, and ``class_matrix.parquet``, the means.

    Where masks are to be kept, ``class_masks.h5``, too.

    Raises:
        DataError: A class is not of the data set, or no test image has one of them.
        MethodError: The method fails.
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
        classes = chosen_classes(dataset, parameters["class_matrix"]["classes"])
        rows, has = images_with(dataset, classes, parameters["class_matrix"]["images"], parameters["seed"])
        purpose, network = f"{_STAGE} {method.name}", explainer_of(inputs, model, dataset, size)
        surroundings = surroundings_of(reader, card, size, device, parameters["seed"], purpose, explainer=network)
        surroundings = _strict(surroundings, dataset, size)
        extraction = Extraction(model, card, method, {**parameters, "dtype": "float32"}, device, surroundings)
        count = pass_size(*size, device)
        shapes: dict[str, tuple[int, ...]] = {
            "masked": (len(classes), len(classes)), "whole": (len(classes),), "no_mask": (len(classes),)
        }  # fmt: skip
        if parameters["class_matrix"].get("keep_masks", False):
            shapes["masks"] = (len(classes), *size)
        parts = ColumnParts(writer.parts, len(rows), count, shapes)
        done = len(rows) - len(parts.missing_rows)
        for index in parts.missing:
            context.progress(done, len(rows), "images")
            span = parts.spans[index]
            found = _part(extraction, reader, rows[span], classes, parameters, dataset.multi_label)
            parts.write(index, {name: found[name] for name in shapes})
            done += span.stop - span.start
        context.progress(done, len(rows), "images")
        ids, names = [dataset.sample_ids[row] for row in rows], [dataset.class_names[label] for label in classes]
    columns = parts.read()
    write_rows(writer.out, ids, classes, has, columns["masked"], columns["no_mask"] > 0, parameters["metrics"])
    write_matrix(writer.out, names, has, columns["masked"], columns["whole"])
    if "masks" in columns:
        write_class_masks(writer.out / CLASS_MASKS_FILE, ids, classes, has, columns["masks"])


def chosen_classes(dataset: DatasetFile, names: Sequence[str] | None) -> list[int]:
    """Numbers of the classes that masks are made of; all of the data set's where none are named.

    Raises:
        DataError: A name is no class.
    """
    unknown = [name for name in names or [] if name not in dataset.class_names]
    if unknown:
        raise DataError(f"data set {dataset.name!r} has no class {unknown[0]!r}, named in class_matrix.classes")
    return list(range(dataset.num_classes)) if names is None else [dataset.class_names.index(name) for name in names]


def images_with(dataset: DatasetFile, classes: Sequence[int], limit: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Test images that have one of the classes, a draw from the seed: rows [N] and which they have, bool [N, T].

    Raises:
        DataError: There is none.
    """
    rows = dataset.rows("test")
    labels = dataset.labels[rows]
    hot = labels[:, classes] > 0 if labels.ndim == 2 else labels[:, None] == np.array(classes)
    rows = draw_rows(rows[hot.any(axis=1)], limit, seed, f"{_STAGE} classes")
    if not len(rows):
        raise DataError(f"data set {dataset.name!r} has no test image of the classes of class_matrix")
    labels = dataset.labels[rows]
    return rows, labels[:, classes] > 0 if labels.ndim == 2 else labels[:, None] == np.array(classes)


def write_rows(
    folder: Path,
    ids: Sequence[str],
    classes: Sequence[int],
    has_NT: np.ndarray,
    masked_NTT: np.ndarray,
    no_mask_NT: np.ndarray,
    metrics: Sequence[str],
) -> None:
    """Write a row for each image and class that it has; one without a value has a status that says why.

    Args:
        masked_NTT: Probability of each class (first) under the mask of each class (second).
        no_mask_NT: Where the map of a class is no mask.
    """
    own, others = (values.numpy() for values in own_and_others(torch.from_numpy(masked_NTT)))
    found = {_OWN: own, "other_class_probability": others, "class_specificity": own - others}
    places = np.argwhere(has_NT)
    columns = []
    for metric in metrics:
        values = found[metric][places[:, 0], places[:, 1]]
        missing = no_mask_NT if metric == _OWN else np.broadcast_to(no_mask_NT.any(axis=1, keepdims=True), has_NT.shape)
        why = _NO_OTHER if metric != _OWN and len(classes) == 1 else NOT_FINITE
        statuses = [
            OK if np.isfinite(value) else NO_MASK if missing[image, label] else why
            for value, (image, label) in zip(values.tolist(), places, strict=True)
        ]
        columns.append((metric, "", values, statuses))
    targets = np.array(classes, dtype=np.int64)[places[:, 1]]
    write_score_table(folder / SCORES_FILE, [ids[image] for image in places[:, 0]], targets, columns)


def write_matrix(
    folder: Path, names: Sequence[str], has_NT: np.ndarray, masked_NTT: np.ndarray, whole_NT: np.ndarray
) -> None:
    """Write the means over the images of each class; NaN where one of them has no value.

    Args:
        masked_NTT: As of ``write_rows``.
        whole_NT: Probability of each class with nothing masked.
    """
    matrix: dict[str, list[Any]] = {"class_in_image": [], "mask_of": [], "probability": [], "images": []}
    for place, name in enumerate(names):
        images = has_NT[:, place]
        if not images.any():
            continue
        means = [float(whole_NT[images, place].mean()), *masked_NTT[images, place].mean(axis=0).tolist()]
        matrix["class_in_image"] += [name] * len(means)
        matrix["mask_of"] += ["(nothing masked)", *names]
        matrix["probability"] += means
        matrix["images"] += [int(images.sum())] * len(means)
    write_parquet(folder / MATRIX_FILE, matrix)


def _part(
    extraction: Extraction,
    reader: ImageReader,
    rows: np.ndarray,
    classes: Sequence[int],
    parameters: Mapping[str, Any],
    multi_label: bool,
) -> dict[str, np.ndarray]:
    pixels, ids = reader.read(rows), [reader.dataset.sample_ids[row] for row in rows]
    exclusive = not multi_label or parameters["compat"] == "original"
    at_once = pass_size(pixels.shape[2], pixels.shape[3], extraction.device)

    def probabilities_of(images: Tensor) -> Tensor:
        with torch.inference_mode():
            starts = range(0, len(images), at_once)
            logits = torch.cat([_run(extraction, images[start : start + at_once]) for start in starts]).double()
        return logits.softmax(dim=1) if exclusive else logits.sigmoid()

    masks = []
    for label in classes:
        launched = extraction.launch(pixels, np.full(len(rows), label), ids)
        maps = torch.from_numpy(extraction.fetch(launched, ids).maps)
        if "filter" in parameters:
            maps = apply_filter(maps, MapFilter(**parameters["filter"]))
        maps = apply_sign(maps, parameters["sign"])
        masks.append(as_masks(maps.amax(dim=1) if maps.ndim == 4 else maps, parameters["mask"]))
    images = normalise(pixels.to(extraction.device), extraction.card.mean, extraction.card.std)
    stacked = torch.stack(masks, dim=1).to(images.device)
    masked = masked_class_probabilities(probabilities_of, images, stacked)[:, :, classes].transpose(1, 2)
    no_mask = torch.isnan(stacked).flatten(2).any(dim=2)
    return {
        "masked": masked.masked_fill(no_mask[:, None, :], torch.nan).cpu().numpy(),
        "whole": probabilities_of(images)[:, classes].cpu().numpy(),
        "no_mask": no_mask.cpu().numpy(),
        "masks": stacked.float().cpu().numpy(),
    }


def _run(extraction: Extraction, images: Tensor) -> Tensor:
    logits: Tensor = extraction.model(images.contiguous(memory_format=extraction.memory_format))
    return logits


def _strict(surroundings: Surroundings, dataset: DatasetFile, size: tuple[int, int]) -> Surroundings:
    """Ground truth of a class that an image hasn't is empty here, and not that of the classes it has."""
    if not dataset.segmented and dataset.boxes is None:
        return surroundings
    objects = Objects(dataset, size)
    places = {sample_id: row for row, sample_id in enumerate(dataset.sample_ids)}

    def masks(ids: Sequence[str], targets: Tensor) -> Tensor:
        rows = np.array([places[sample_id] for sample_id in ids], dtype=np.int64)
        return objects.of(rows, targets.cpu().numpy(), targets.device).masks.float()

    return dataclasses.replace(surroundings, ground_truth=masks)
