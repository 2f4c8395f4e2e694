"""The stage ``prepare-data``: read, split, limit, resize, then pack the pixels or index the files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from roarline.artifacts.dataset import DATASET_FILE, SPLITS, DatasetContent, RowChunks, write_dataset
from roarline.artifacts.runs import CoveredMasks
from roarline.artifacts.store import Writer
from roarline.config.component import load_object
from roarline.config.datasets import DATASETS
from roarline.data.geometry import fit_boxes, fit_segmentation
from roarline.data.pixels import PixelStream
from roarline.data.raw import STREAMED, RawDataset
from roarline.data.splits import draw_count, draw_per_group, draw_share, strata
from roarline.data.staging import Staging
from roarline.errors import DataError
from roarline.seeds import derive_seed
from roarline.stages.job import Context, Job

_MB = 10**6


def run(job: Job, context: Context, writer: Writer) -> None:
    """Make a ``dataset`` artifact.

    The validation split is drawn from the training split, unless the raw data has one of its own; limits are drawn
    from what is then in each split. Mean and standard deviation are those of the training split that is left.

    Raises:
        DataError: The raw data is missing, unreadable or inconsistent; up to ten images are named at once.
    """
    parameters = job.parameters
    root = Path(job.local["root"]) if job.local.get("root") else None
    raw = read_raw(parameters, root)
    rows, split = choose(raw, parameters)
    resize_px, crop_px = parameters["resize_px"], parameters["crop_px"]
    stretched = parameters.get("aspect") == "stretch"
    recipe = [
        resize_px,
        crop_px,
        stretched,
        [raw.sample_ids[row] for row in rows],
        split.tolist(),
        _file_sizes(raw, rows),
    ]
    limit = parameters["pack_limit_mb"] * _MB
    with Staging(writer.parts, recipe, split == SPLITS.index("train"), limit) as staging:
        _stage(raw, root, rows, staging, parameters, context)
        _refuse_too_large(raw, staging, parameters["pack_limit_mb"])
        statistics = staging.statistics()
        content = DatasetContent(
            name=raw.name,
            class_names=list(raw.class_names),
            multi_label=raw.multi_label,
            sample_ids=[raw.sample_ids[row] for row in rows],
            split=split,
            labels=raw.labels[rows].astype(np.uint8 if raw.multi_label else np.int64),
            mean=statistics[0] if statistics else None,
            std=statistics[1] if statistics else None,
            resize_px=resize_px,
            crop_px=crop_px,
            stretched=stretched,
        )
        _add_pixels(content, raw, rows, staging)
        _add_ground_truth(content, raw, rows, staging, context.loader_threads)
        write_dataset(writer.out / DATASET_FILE, content)


def read_raw(parameters: dict[str, Any], root: Path | None) -> RawDataset:
    """Call the reader that the configuration names.

    Raises:
        DataError: It gives something else than a sound RawDataset.
    """
    name = parameters["dataset"]
    if name in DATASETS:
        component = DATASETS[name]
        raw = component.load()(root, component.params.model_validate(parameters["params"]), parameters["seed"])
    else:
        raw = load_object(parameters["dotted_path"])(root, parameters["params"], parameters["seed"])
    if not isinstance(raw, RawDataset):
        raise DataError(f"data set {name!r}: expected a roarline.data.raw.RawDataset, got {type(raw).__name__}")
    raw.check()
    return raw


def choose(raw: RawDataset, parameters: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Split and limit.

    Strata are classes; with several labels each sample counts for the rarest of its own.

    Returns:
        Rows of ``raw`` that are used, rising [N] int64, and the split of each [N] uint8, an index into SPLITS.

    Raises:
        DataError: A split that is needed is empty, or a class has too few images to be split.
    """
    seed, fraction = parameters["seed"], parameters["validation_fraction"]
    split = np.asarray([SPLITS.index(name) for name in raw.splits], dtype=np.uint8)
    train, validation, test = (np.flatnonzero(split == code) for code in range(3))
    if len(test) == 0:
        raise DataError(f"data set {raw.name!r}: no image is in the test split, on which everything is measured")
    if len(validation) and not len(train):
        raise DataError(f"data set {raw.name!r}: a validation split, but no image in the training split")
    held_out = parameters.get("validation_per_class")
    if len(train) and not len(validation) and (fraction > 0 or held_out is not None):
        seed_of_draw = derive_seed(seed, "prepare-data", "validation")
        if held_out is not None:
            annotated = parameters.get("validation_annotated", False)
            validation = _held_out(raw, train, held_out, seed_of_draw, annotated=annotated)
        else:
            ids, groups = [raw.sample_ids[row] for row in train.tolist()], strata(raw.labels[train])
            names = None if raw.multi_label else raw.class_names
            validation = train[draw_share(ids, groups, fraction, seed_of_draw, group_names=names)]
        split[validation] = SPLITS.index("validation")
    used = np.zeros(len(raw), dtype=bool)
    for code, name in enumerate(SPLITS):
        rows = np.flatnonzero(split == code)
        limit = parameters["limit"][name]
        if limit is not None and len(rows):
            ids = [raw.sample_ids[row] for row in rows.tolist()]
            draw = draw_per_group if parameters.get("limit_per_class") else draw_count
            rows = rows[draw(ids, strata(raw.labels[rows]), limit, derive_seed(seed, "prepare-data", "limit", name))]
        used[rows] = True
    rows = np.flatnonzero(used).astype(np.int64)
    return rows, split[rows]


def _held_out(raw: RawDataset, train: np.ndarray, count: int, seed: int, *, annotated: bool) -> np.ndarray:
    """Rows of ``raw``: so many training images of each class, or of those of them that have a box.

    Source of ``annotated``: saliency_investigation ``preproc.py``, which holds out 50 annotated images a class.
    """
    ids, groups = [raw.sample_ids[row] for row in train.tolist()], strata(raw.labels[train])
    may = np.isin(train, raw.boxes[:, 0]) if annotated and raw.boxes is not None else np.full(len(train), not annotated)
    if not may.any():
        raise DataError(
            f"data set {raw.name!r}: data.validation_annotated: no training image has a box; set data.params.boxes to "
            "annotations that speak of training images, too, or leave it out"
        )
    drawn = may.copy()
    drawn[may] = draw_per_group([name for name, one in zip(ids, may, strict=True) if one], groups[may], count, seed)
    emptied = np.setdiff1d(groups, groups[~drawn])
    if len(emptied):
        names = [raw.class_names[label] if label < len(raw.class_names) else "no label" for label in emptied.tolist()]
        raise DataError(
            f"data set {raw.name!r}: data.validation_per_class {count} leaves no training image of {len(emptied)} "
            f"classes: {', '.join(names[:10])}"
        )
    return train[drawn]


def _file_sizes(raw: RawDataset, rows: np.ndarray) -> list[int]:
    return [raw.files[row].size for row in rows] if raw.files is not None else []


def _stage(
    raw: RawDataset, root: Path | None, rows: np.ndarray, staging: Staging, parameters: dict[str, Any], context: Context
) -> None:
    stream = PixelStream(
        raw,
        root,
        parameters["resize_px"],
        parameters["crop_px"],
        parameters.get("aspect") == "stretch",
        context.loader_threads,
        shape=staging.shape,
    )
    number = np.full(len(raw), -1, dtype=np.int64)
    number[rows] = np.arange(len(rows))
    done = int(staging.done.sum())
    for batch in stream.batches(rows[~staging.done]):
        if done == 0:
            staging.shape = batch.pixels.shape[1:]
            _refuse_too_large(raw, staging, parameters["pack_limit_mb"])
        batch.rows = number[batch.rows]
        staging.add(batch)
        done += len(batch.rows)
        context.progress(done, len(rows), "images")
    staging.finish()


def _refuse_too_large(raw: RawDataset, staging: Staging, pack_limit_mb: int) -> None:
    """Pixels that lie in no file of their own must be packed."""
    indexed = raw.files is not None and all(file.offset != STREAMED for file in raw.files)
    if staging.kept or indexed or staging.shape is None:
        return
    size_mb = -(-len(staging.done) * int(np.prod(staging.shape)) // _MB)
    way = (
        "unpack the tar into a folder first (its files are then indexed)"
        if raw.files
        else "use fewer or smaller images"
    )
    raise DataError(
        f"data set {raw.name!r}: {len(staging.done)} images take {size_mb} MB, more than "
        f"data.pack_limit_mb {pack_limit_mb}; raise it to {size_mb}, set data.limit, or {way}"
    )


def _add_pixels(content: DatasetContent, raw: RawDataset, rows: np.ndarray, staging: Staging) -> None:
    if staging.shape is None:
        return
    content.image_size = (staging.shape[1], staging.shape[2])
    if staging.kept:
        content.images = RowChunks((len(rows), *staging.shape), staging.chunks())
    elif raw.files is not None:
        files = [raw.files[row] for row in rows]
        content.files = [file.path for file in files]
        content.file_offset = np.asarray([file.offset for file in files], dtype=np.int64)
        content.file_size = np.asarray([file.size for file in files], dtype=np.int64)
        content.file_sha256 = staging.sha256


def _add_ground_truth(
    content: DatasetContent, raw: RawDataset, rows: np.ndarray, staging: Staging, threads: int
) -> None:
    resize_px, crop_px, stretch = content.resize_px, content.crop_px, content.stretched
    if raw.boxes is not None:
        drawn_on = raw.box_image_sizes[rows] if raw.box_image_sizes is not None else None
        fitted = fit_boxes(
            raw.boxes, rows, staging.raw_sizes, resize_px, crop_px, stretch=stretch, drawn_on=drawn_on,
            truncate=raw.truncated_boxes,
        )  # fmt: skip
        content.boxes = fitted.boxes
        if raw.box_difficult is not None:
            content.box_difficult = raw.box_difficult[fitted.kept]
    if raw.segmentation is not None and content.image_size is not None:
        shape = (len(rows), *content.image_size)
        content.covered = CoveredMasks()
        chunks = fit_segmentation(
            raw.segmentation, rows, staging.raw_sizes, resize_px, crop_px, stretch=stretch, covered=content.covered,
            threads=threads,
        )  # fmt: skip
        content.segmentation = RowChunks(shape, chunks)
        if raw.soft_masks:
            chunks = fit_segmentation(
                raw.segmentation, rows, staging.raw_sizes, resize_px, crop_px, stretch=stretch, threads=threads,
                shares=True,
            )  # fmt: skip
            content.shares = RowChunks(shape, chunks)
