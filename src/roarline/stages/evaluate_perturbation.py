"""Stage evaluate-perturbation: alter images and watch the classifier's score, or the map; own metrics ride along.

Rows, each an (image, target) pair of the test split, are cut into parts of a fixed size; an interrupted run goes on
after the last whole part. Memory is that of a few parts, whatever the number of images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from roarline.artifacts.classifier import ClassifierCard
from roarline.artifacts.curves import CURVES_FILE, write_curves
from roarline.artifacts.dataset import DATASET_FILE, DatasetFile
from roarline.artifacts.maps import MAPS_FILE, MapsFile
from roarline.artifacts.score_parts import RowValues, ScoreParts
from roarline.artifacts.store import Writer
from roarline.artifacts.tables import SCORES_FILE, write_score_table
from roarline.data.loading import ImageReader, normalise
from roarline.evaluation.outcomes import OUTCOMES
from roarline.evaluation.perturb import AlteredImages, Curve, MaskFill, altered_images, target_outputs
from roarline.evaluation.perturbation_scores import (
    CURVES_OF,
    NEED_UNTOUCHED,
    CurveScores,
    MetricScores,
    Untouched,
    curves_for,
    metric_scores,
)
from roarline.imaging.ranking import rank_pixels
from roarline.imaging.reduction import apply_sign
from roarline.imaging.region_ranks import RegionRanks
from roarline.models.folding import fold_batch_norms
from roarline.models.load import check_classes, load_classifier
from roarline.models.passes import is_published, memory_format, pass_size
from roarline.seeds import derive_seed
from roarline.stages.job import Context, Job, Progress
from roarline.stages.measured_rows import Column, Measure, MeasuredRows, Network
from roarline.stages.noisy_maps import noisy_maps
from roarline.stages.perturbation_inputs import RemovalInputs, curve_settings
from roarline.stages.perturbation_measures import find_measures, measure_rows
from roarline.stages.scored_rows import Rows, image_size, rows_per_part, rows_to_score

STAGE = "evaluate-perturbation"


@dataclass(frozen=True)
class Measured:
    """Metrics of curves, the curves that they need, and the altered images that those need; measures of other kinds."""

    metrics: list[str]
    curves: dict[str, Curve]
    altered: AlteredImages
    measures: list[Measure]

    @property
    def columns(self) -> list[Column]:
        """(metric, setting) of every number that the measures give."""
        return [column for measure in self.measures for column in measure.columns]

    @staticmethod
    def of(parameters: Mapping[str, Any], pixels: int) -> Measured:
        """From the job's parameters and H · W."""
        metrics = [metric for metric in dict.fromkeys(parameters["metrics"]) if metric in CURVES_OF]
        curves = curves_for(metrics, curve_settings(parameters))
        altered = altered_images(curves, pixels, untouched=bool(set(metrics) & set(NEED_UNTOUCHED)))
        return Measured(metrics, curves, altered, find_measures(parameters))


def run(job: Job, context: Context, writer: Writer) -> None:
    """Write ``scores.parquet`` and ``curves.h5``.

    Raises:
        ArtifactError: A map is missing, not finite or of an image that the data set doesn't have.
        MethodError: Maps have another size than the images.
        ModelError: The classifier is for other classes.
        MetricError: A metric of the user's own fails or returns anything but a number a row.
        DataError: The data set has no test images, or an image can't be read.
    """
    parameters, inputs = job.parameters, context.inputs(job)
    model, card = load_classifier(inputs["classifier"])
    with (
        DatasetFile(inputs["dataset"].file(DATASET_FILE)) as dataset,
        MapsFile(inputs["maps"].file(MAPS_FILE)) as maps,
        ImageReader(dataset, job.local.get("root"), context.loader_threads) as reader,
    ):
        check_classes(card, dataset.class_names, dataset.name)
        rows = rows_to_score(dataset, maps, parameters["limit"], parameters["seed"])
        size = image_size(dataset, maps)
        measured, device = Measured.of(parameters, size[0] * size[1]), torch.device(context.device)
        if "attribution" in parameters:
            measured.measures.append(noisy_maps(parameters, inputs, reader, size, device))
        folded = fold_batch_norms(model, (3, *size)) if is_published(card.arch) else None
        scoring = Scoring(model, card, measured, parameters, _fill_mean(dataset, card), device, folded=folded)
        altered = len(measured.altered.removals)
        parts = ScoreParts(writer.parts, len(rows), rows_per_part(*size), altered, len(measured.columns))
        values = score_rows(scoring, rows, reader, maps, parts, context.progress)
        writer.provenance |= {f"{name}_s": round(spent, 3) for name, spent in scoring.removal.watch.take().items()}
    write_scores(writer.out, rows, values, measured, parameters["score"])


def score_rows(
    scoring: Scoring, rows: Rows, reader: ImageReader, maps: MapsFile, parts: ScoreParts, progress: Progress
) -> RowValues:
    """Score the rows whose parts are missing; the values of all M rows."""
    done = parts.rows_present
    progress(done, len(rows), "rows")
    batches = reader.batches(rows.images[parts.missing_rows], parts.part_rows)
    for index, (_, pixels) in zip(parts.missing, batches, strict=True):
        span = parts.spans[index]
        values = torch.from_numpy(maps.maps(rows.maps[span]))
        parts.write(index, scoring.score(pixels, values, rows.targets[span], rows.sample_ids[span]))
        done += len(pixels)
        progress(done, len(rows), "rows")
    return parts.read()


class Scoring:
    """A classifier on its device, and what is to be done to its images.

    Args:
        folded: The same function in fewer steps, which images go through; metrics of users get the classifier itself.
    """

    def __init__(
        self,
        model: nn.Module,
        card: ClassifierCard,
        measured: Measured,
        parameters: Mapping[str, Any],
        fill_mean: Sequence[float],
        device: torch.device,
        *,
        folded: nn.Module | None = None,
    ) -> None:
        self.card, self.altered, self.measures, self.parameters = card, measured.altered, measured.measures, parameters
        self.device = device
        self.removal = RemovalInputs(measured.altered, parameters, card, fill_mean, device)
        self.format = memory_format(card.arch)
        model = model.to(device).to(memory_format=self.format)  # type: ignore[call-overload]
        self.model = model if folded is None else folded.to(device).to(memory_format=self.format)  # type: ignore[call-overload]
        self.network = Network(
            self.model,
            model,
            card,
            device,
            score=parameters["score"],
            fill_mean=fill_mean,
            mixed=parameters["precision"] == "bfloat16",
            seed=parameters["seed"],
            threads=parameters["threads"],
            timed=self.removal.watch.measure,
        )

    def score(self, pixels_BCHW: Tensor, maps: Tensor, targets_B: np.ndarray, sample_ids: Sequence[str]) -> RowValues:
        """Logit and probability of the target for every altered image of some rows, and what measures say of them.

        Args:
            pixels_BCHW: uint8.
            maps: [B, H, W], or [B, C, H, W]: then a pixel counts as its largest channel after the sign was applied.
            targets_B: int64.
            sample_ids: [B], from which ties and other draws come.
        """
        images = normalise(pixels_BCHW.to(self.device, non_blocking=True), self.card.mean, self.card.std)
        images = images.contiguous(memory_format=self.format)
        values = apply_sign(maps.to(self.device, non_blocking=True), self.parameters["sign"])
        values = values.amax(dim=1) if values.ndim == 4 else values
        targets = torch.from_numpy(targets_B).to(self.device)
        ranks, outputs = None, torch.empty(2, len(images), 0)
        seeds = [derive_seed(self.parameters["seed"], "ties", sample_id) for sample_id in sample_ids]
        if self.altered.removals or any(measure.reads_ranks for measure in self.measures):
            ranks = rank_pixels(values, seeds, self.parameters["ties"])
        if self.altered.removals and ranks is not None:
            regions = self.removal.regions(pixels_BCHW, values, seeds, sample_ids)
            outputs = self._outputs(images, ranks, targets, self.removal.fills(images, sample_ids), regions)
        known = None if self.altered.untouched is None else outputs[:, :, self.altered.untouched]
        rows = MeasuredRows(pixels_BCHW, images, values, targets, sample_ids, ranks, self.network, known)
        return RowValues(outputs.cpu().numpy(), *measure_rows(self.measures, rows))

    def _outputs(
        self,
        images: Tensor,
        ranks: Tensor,
        targets: Tensor,
        fills: Mapping[str, Tensor | MaskFill],
        regions: Mapping[str, RegionRanks],
    ) -> Tensor:
        """float32 [2, B, U]."""
        mixed = self.parameters["precision"] == "bfloat16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=mixed):
            outputs = target_outputs(
                self.model,
                images,
                ranks,
                targets,
                self.altered,
                fills,
                batch_size=pass_size(images.shape[2], images.shape[3], self.device),
                multi_label=self.card.multi_label,
                regions=regions,
            )
        return torch.stack([outputs.logits, outputs.probabilities])


def write_scores(
    folder: Path,
    rows: Rows,
    values: RowValues,
    measured: Measured,
    score: str,
) -> None:
    """Write ``scores.parquet``, a row for each metric, setting and row, and, where there are curves, ``curves.h5``.

    Args:
        values: Of all M rows.
        score: ``probability`` or ``logit``: what the areas are of; deviations are of the probability.
    """
    altered = measured.altered
    logits, probabilities = torch.from_numpy(values.outputs)
    scores = logits if score == "logit" else probabilities
    by_curve = {
        name: CurveScores(
            torch.tensor(curve.fractions, dtype=torch.float64),
            scores[:, list(altered.places[name])],
            probabilities[:, list(altered.places[name])],
        )
        for name, curve in measured.curves.items()
    }
    before = None
    if altered.untouched is not None:
        before = Untouched(scores[:, altered.untouched], probabilities[:, altered.untouched])
    scored = [(name, found) for name in measured.metrics for found in metric_scores(name, by_curve, before)]
    scored += _measured_scores(values, measured.columns)
    columns = ((metric, found.setting, found.values.numpy(), found.statuses) for metric, found in scored)
    write_score_table(folder / SCORES_FILE, rows.sample_ids, rows.targets, columns)
    if not by_curve:
        return
    write_curves(
        folder / CURVES_FILE,
        rows.sample_ids,
        rows.targets,
        {name: (curve.fractions.numpy(), curve.scores.numpy()) for name, curve in by_curve.items()},
    )


def _measured_scores(values: RowValues, columns: Sequence[Column]) -> list[tuple[str, MetricScores]]:
    """Metric and scores of every column, in the order of metrics as they come first."""
    found = [
        (metric, MetricScores(setting, torch.from_numpy(numbers), [OUTCOMES[outcome] for outcome in outcomes.tolist()]))
        for (metric, setting), numbers, outcomes in zip(columns, values.values.T, values.outcomes.T, strict=True)
    ]
    order = list(dict.fromkeys(metric for metric, _ in columns))
    return sorted(found, key=lambda one: order.index(one[0]))


def _fill_mean(dataset: DatasetFile, card: ClassifierCard) -> list[float]:
    """The training split's mean; where the data set has no training split, the mean that the classifier subtracts."""
    return card.mean if dataset.mean is None else [float(value) for value in dataset.mean]
