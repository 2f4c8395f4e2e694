"""Max- and average sensitivity: the method is called again, on noisy copies of the images, as extraction calls it.

A copy's map takes the way of a map in its file: channels, number format, filter, sign. A copy counts as an image of its
own, so that what the method draws is drawn anew for each: a method that says something else each time it is asked shows
it here, and random maps are as sensitive as maps can be. Shapes: B rows, C channels, H × W px, D copies.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from roarline.artifacts.store import Artifact
from roarline.attribution.call import Attribution, find_method
from roarline.attribution.surroundings import Surroundings
from roarline.config.component import MapFilter, Smooth
from roarline.data.loading import ImageReader
from roarline.evaluation.copies import BlockDraws, spans_of_passes
from roarline.evaluation.map_sensitivity import largest_change, mean_change, relative_change, uniform_noise
from roarline.evaluation.outcomes import Judged
from roarline.imaging.reduction import apply_sign
from roarline.models.load import load_classifier
from roarline.stages.extract_attribution_maps import STAGE as EXTRACTION
from roarline.stages.extract_attribution_maps import Extraction
from roarline.stages.filter_maps import apply_filter
from roarline.stages.measured_rows import MeasuredRows
from roarline.stages.surroundings import explainer_of, surroundings_of

_BLOCK = 4  # copies from one generator
_REDUCTIONS = {"max_sensitivity": largest_change, "avg_sensitivity": mean_change}


@dataclass(frozen=True)
class _Launched:
    """Copies of one pass, perhaps still under way: their maps, ids, and the rows that they are of."""

    maps: Attribution
    ids: list[str]
    owners: list[int]


class NoisyMaps:
    """A method's maps of noisy images beside those of the images.

    Args:
        extraction: The method on a classifier of its own, as it made the maps.
        parameters: Of the job.
        radius_C: Of the noise, in units of the network's input.
    """

    reads_ranks, passes = False, 0

    def __init__(self, extraction: Extraction, parameters: Mapping[str, Any], radius_C: Sequence[float]) -> None:
        self.extraction, self.parameters, self.radius = extraction, parameters, list(radius_C)
        self.copies = parameters["map_sensitivity"]["samples"]
        self.columns = [(name, "") for name in _REDUCTIONS if name in parameters["metrics"]]
        self.surroundings = extraction.surroundings
        how = parameters["attribution"].get("filter")
        self.filter = MapFilter(**how) if how else None

    def __call__(self, rows: MeasuredRows) -> list[Judged]:
        height, width = rows.images.shape[2:]
        noise = rows.network.draws(
            rows,
            "noise on images",
            lambda generator: uniform_noise(generator, _BLOCK, height, width, self.radius),
            _BLOCK,
        )
        targets, changes = rows.targets.cpu().numpy(), []
        previous: _Launched | None = None
        for spans in spans_of_passes(len(rows.images), self.copies, self.extraction.batch_size((height, width))):
            launched = self._launch(rows, targets, spans, noise)
            if previous is not None:  # fetched while the next ones compute
                changes.append(self._changes(rows, previous))
            previous = launched
        if previous is not None:
            changes.append(self._changes(rows, previous))
        changes_BD = torch.cat(changes).reshape(len(rows.images), self.copies)
        return [_REDUCTIONS[metric](changes_BD) for metric, _ in self.columns]

    def _launch(
        self, rows: MeasuredRows, targets_B: np.ndarray, spans: list[tuple[int, int, int]], noise: BlockDraws
    ) -> _Launched:
        """Call the method on the copies of one pass."""
        images = torch.cat([rows.images[row] + noise(row, first, last) for row, first, last in spans])
        owners = [row for row, first, last in spans for _ in range(first, last)]
        ids = [f"{rows.sample_ids[row]} with noise {copy}" for row, first, last in spans for copy in range(first, last)]
        of_image = dict(zip(ids, (rows.sample_ids[row] for row in owners), strict=True))
        self.extraction.surroundings = _of_copies(self.surroundings, of_image)
        return _Launched(self.extraction.launch_images(images, targets_B[owners], ids), ids, owners)

    def _changes(self, rows: MeasuredRows, launched: _Launched) -> Tensor:
        """float64 [N], the relative change of each copy of one pass."""
        maps = self._as_in_file(self.extraction.fetch(launched.maps, launched.ids).maps)
        return relative_change(rows.maps[launched.owners], maps.to(rows.maps.device))

    def _as_in_file(self, maps: np.ndarray) -> Tensor:
        """What a map becomes until it is evaluated: [N, H, W]."""
        values = torch.from_numpy(maps).float()
        if self.filter is not None:
            values = torch.from_numpy(apply_filter(values, self.filter).numpy().astype(maps.dtype)).float()
        values = apply_sign(values, self.parameters["sign"])
        return values.amax(dim=1) if values.ndim == 4 else values


def noisy_maps(
    parameters: Mapping[str, Any],
    inputs: Mapping[str, Artifact],
    reader: ImageReader,
    size: tuple[int, int],
    device: torch.device,
) -> NoisyMaps:
    """The measure for a job, with the method that made the maps.

    Args:
        parameters: Of the job, with ``attribution``: what went into the maps' key.
        inputs: Role to artifact: ``classifier``, and ``explainer`` where the method is one.
        size: (H, W) of the images.

    Raises:
        UserInputError: There is no such method.
    """
    entry = parameters["attribution"]
    model, card = load_classifier(inputs["classifier"])  # its memory format is the extraction's
    name = entry.get("dotted_path", entry["method"])
    smooth = Smooth(**entry["smooth"]) if "smooth" in entry else None
    method = find_method(name, entry["params"], batched=entry["batched"], smooth=smooth)
    purpose, network = f"{EXTRACTION} {method.name}", explainer_of(inputs, model, reader.dataset, size)
    surroundings = surroundings_of(reader, card, size, device, entry["seed"], purpose, explainer=network)
    extraction = Extraction(model, card, method, entry, device, surroundings)
    radius, deviations = parameters["map_sensitivity"]["radius"], np.broadcast_to(card.std, 3)
    return NoisyMaps(extraction, parameters, [radius / deviation for deviation in deviations])


def _of_copies(surroundings: Surroundings, of_image: Mapping[str, str]) -> Surroundings:
    """Ground truth is asked for by the ids of copies, and is that of their images."""
    known = surroundings.ground_truth
    if known is None:
        return surroundings
    return dataclasses.replace(
        surroundings, ground_truth=lambda ids, targets: known([of_image[one] for one in ids], targets)
    )
