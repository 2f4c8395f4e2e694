"""What evaluate-f-fidelity and evaluate-idsds share: scoring maps by asking a fine-tuned network about altered images.

Rows, each an (image, target) pair of the test split, are cut into parts of a fixed size; an interrupted run goes on
after the last whole part. Memory is that of a few passes, whatever the number of images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from roarline.artifacts.classifier import ClassifierCard
from roarline.artifacts.column_parts import ColumnParts, Columns
from roarline.artifacts.dataset import DATASET_FILE, DatasetFile
from roarline.artifacts.maps import MAPS_FILE, MapsFile
from roarline.artifacts.store import Writer
from roarline.artifacts.tables import SCORES_FILE, write_score_table
from roarline.data.loading import ImageReader, normalise
from roarline.evaluation.f_fidelity import Score, target_scores
from roarline.imaging.fills import fill_image
from roarline.imaging.reduction import apply_sign
from roarline.models.load import check_classes, load_classifier
from roarline.models.passes import memory_format, pass_size
from roarline.stages.fine_tuning import fill_colour
from roarline.stages.job import Context, Job
from roarline.stages.scored_rows import Rows, image_size, rows_per_part, rows_to_score

OK = "ok"


@dataclass(frozen=True)
class Batch:
    """Some rows on their device, as many as go through the network at once.

    Attributes:
        images: float32 [B, C, H, W], normalised.
        fill: What stands in gaps, broadcastable to the images.
        maps: float32 [B, H, W], signs applied: larger is more relevant.
        sample_ids: [B].
        targets: [B].
        logits_of: Images [B, C, H, W] to logits float32 [B, K].
        multi_label: True where the classifier names several classes an image.
    """

    images: Tensor
    fill: Tensor
    maps: Tensor
    sample_ids: list[str]
    targets: Tensor
    logits_of: Callable[[Tensor], Tensor]
    multi_label: bool

    def score_of(self, score: Score | str) -> Callable[[Tensor], Tensor]:
        """Images to the score of each row's target: ``decision``, ``probability`` or ``logit``."""

        def of(images: Tensor) -> Tensor:
            logits = self.logits_of(images)
            if score == "logit":
                return logits.gather(1, self.targets[:, None])[:, 0]
            kind: Score = "decision" if score == "decision" else "probability"
            return target_scores(logits, self.targets, kind, multi_label=self.multi_label)

        return of


Measure = Callable[[Batch], np.ndarray]
"""A batch to float64 [B, V]."""


@dataclass(frozen=True)
class Scored:
    """A column of ``scores.parquet``: [M] values, and [M] statuses, ``ok`` or why a row failed."""

    metric: str
    setting: str
    values: np.ndarray
    statuses: Sequence[str]


def measure_rows(
    job: Job, context: Context, writer: Writer, width: Callable[[tuple[int, int]], int], measure: Measure
) -> tuple[Rows, np.ndarray]:
    """Measure every row of a job's maps, resuming where an earlier run was interrupted.

    Args:
        width: (H, W) in px to V, how many numbers a row has.
        measure: Must treat rows alone, whatever the rest of the batch.

    Returns:
        The M rows, and float64 [M, V].

    Raises:
        ArtifactError: A map is missing, not finite or of an image that the data set doesn't have.
        MethodError: Maps have another size than the images.
        ModelError: The classifier is for other classes.
        DataError: The data set has no test images, or an image can't be read.
    """
    parameters, inputs = job.parameters, context.inputs(job)
    model, card = load_classifier(inputs["classifier"])
    device = torch.device(context.device)
    with (
        DatasetFile(inputs["dataset"].file(DATASET_FILE)) as dataset,
        MapsFile(inputs["maps"].file(MAPS_FILE)) as maps,
        ImageReader(dataset, job.local.get("root"), context.loader_threads) as reader,
    ):
        check_classes(card, dataset.class_names, dataset.name)
        rows = rows_to_score(dataset, maps, parameters["limit"], parameters["seed"])
        size = image_size(dataset, maps)
        batches = _Batches(model, card, device, parameters, fill_colour(dataset, card.mean), size)
        parts = ColumnParts(writer.parts, len(rows), rows_per_part(*size), {"values": (width(size),)})
        done = len(rows) - len(parts.missing_rows)
        for index in parts.missing:
            context.progress(done, len(rows), "rows")
            span = parts.spans[index]
            pixels = reader.read(rows.images[span])
            values = torch.from_numpy(maps.maps(rows.maps[span]))
            measured = [measure(batch) for batch in batches.of(pixels, values, rows, span)]
            parts.write(index, {"values": np.concatenate(measured)})
            done += span.stop - span.start
        context.progress(done, len(rows), "rows")
        columns: Columns = parts.read()
    return rows, columns["values"]


class _Batches:
    """From pixels and maps to batches on the device."""

    def __init__(
        self,
        model: nn.Module,
        card: ClassifierCard,
        device: torch.device,
        parameters: dict[str, Any],
        fill_mean: Sequence[float],
        size: tuple[int, int],
    ) -> None:
        self.card, self.device, self.parameters, self.fill_mean = card, device, parameters, fill_mean
        self.format = memory_format(card.arch)
        self.model = model.to(device).to(memory_format=self.format)  # type: ignore[call-overload]
        self.at_once = pass_size(*size, device)
        self.mixed = parameters["precision"] == "bfloat16"

    def of(self, pixels_BCHW: Tensor, maps: Tensor, rows: Rows, span: slice) -> list[Batch]:
        """The rows of a part; ``maps`` [B, H, W], or [B, C, H, W], where a pixel counts as its largest channel."""
        found = []
        for start in range(0, len(pixels_BCHW), self.at_once):
            some = slice(start, start + self.at_once)
            of_rows = slice(span.start + start, min(span.start + start + self.at_once, span.stop))
            images = normalise(pixels_BCHW[some].to(self.device, non_blocking=True), self.card.mean, self.card.std)
            values = apply_sign(maps[some].to(self.device, non_blocking=True), self.parameters["sign"])
            found.append(
                Batch(
                    images=images,
                    fill=fill_image(
                        images, self.parameters["fill"], self.card.mean, self.card.std, fill_mean=self.fill_mean
                    ),
                    maps=values.amax(dim=1) if values.ndim == 4 else values,
                    sample_ids=rows.sample_ids[of_rows],
                    targets=torch.from_numpy(rows.targets[of_rows]).to(self.device),
                    logits_of=self._logits,
                    multi_label=self.card.multi_label,
                )
            )
        return found

    def _logits(self, images_BCHW: Tensor) -> Tensor:
        with torch.inference_mode(), torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.mixed):
            logits: Tensor = self.model(images_BCHW.contiguous(memory_format=self.format))
        return logits.float()


def write_columns(folder: Path, rows: Rows, scored: Sequence[Scored]) -> None:
    """Write ``scores.parquet``, a row for each column and row, failures too."""
    columns = ((column.metric, column.setting, column.values, column.statuses) for column in scored)
    write_score_table(folder / SCORES_FILE, rows.sample_ids, rows.targets, columns)
