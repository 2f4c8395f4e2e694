"""Stage evaluate-sanity: what is left of maps where the network lost what it learned, or is asked for another class.

The method is called again, as extract-attribution-maps calls it, on networks that lose their weights layer by layer;
its random draws stay those of the row, so that only the network differs. Rows are cut into parts of a fixed size; an
interrupted run goes on after the last whole part. Data randomisation compares two artifacts of maps instead.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from roarline.artifacts.column_parts import ColumnParts
from roarline.artifacts.dataset import DATASET_FILE, DatasetFile
from roarline.artifacts.maps import MAPS_FILE, MapsFile
from roarline.artifacts.store import Writer
from roarline.attribution.call import find_method
from roarline.config.component import MapFilter, Smooth
from roarline.data.loading import ImageReader, normalise
from roarline.evaluation.randomisation import Planes
from roarline.models.load import check_classes, load_classifier
from roarline.models.randomisation import Layer, RandomWeights, layers_by_use
from roarline.seeds import derive_seed
from roarline.stages import evaluate_data_randomisation
from roarline.stages.extract_attribution_maps import STAGE as EXTRACTION
from roarline.stages.extract_attribution_maps import Extraction
from roarline.stages.filter_maps import apply_filter
from roarline.stages.job import Context, Job
from roarline.stages.sanity_columns import (
    CASCADING,
    EFFICIENT,
    INDEPENDENT,
    ONE_CLASS,
    RANDOM_LOGIT,
    SMOOTH,
    Layout,
    write_scores,
)
from roarline.stages.sanity_table import Compared, Table
from roarline.stages.scored_rows import Rows, image_size, rows_per_part, rows_to_score
from roarline.stages.surroundings import explainer_of, surroundings_of

STAGE = "evaluate-sanity"
_BY_LAYER = (CASCADING, INDEPENDENT, SMOOTH, EFFICIENT)


def run(job: Job, context: Context, writer: Writer) -> None:
    """Write ``scores.parquet``.

    Raises:
        ArtifactError: A map is missing, not finite or of an image that the data set doesn't have.
        DataError: The data set has no test images, or an image can't be read.
        MethodError: The method fails on a randomised network, or maps have another size than the images.
        ModelError: The classifier is for other classes.
    """
    parameters, inputs = job.parameters, context.inputs(job)
    if "shuffled_maps" in inputs:
        evaluate_data_randomisation.run(job, context, writer)
        return
    model, card = load_classifier(inputs["classifier"])
    smooth = Smooth(**parameters["smooth"]) if "smooth" in parameters else None
    name = parameters.get("dotted_path", parameters["method"])
    method = find_method(name, parameters["params"], batched=parameters["batched"], smooth=smooth)
    with (
        DatasetFile(inputs["dataset"].file(DATASET_FILE)) as dataset,
        MapsFile(inputs["maps"].file(MAPS_FILE)) as maps,
        ImageReader(dataset, job.local.get("root"), context.loader_threads) as reader,
    ):
        check_classes(card, dataset.class_names, dataset.name)
        rows = rows_to_score(dataset, maps, parameters["limit"], parameters["seed"])
        size = image_size(dataset, maps)
        device = torch.device(context.device)
        purpose, network = f"{EXTRACTION} {method.name}", explainer_of(inputs, model, dataset, size)
        around = surroundings_of(reader, card, size, device, parameters["seed"], purpose, explainer=network)
        plain = Extraction(model, card, method, {**parameters, "dtype": "float32"}, device, around)
        shape = normalise(reader.read(rows.images[:1]), card.mean, card.std).shape[1:]
        sanity = Sanity(plain, parameters, layers_by_use(model, shape, parameters["depth"]))
        columns = {"values": (len(sanity.layout.columns),), "codes": (len(sanity.layout.columns),)}
        parts = ColumnParts(writer.parts, len(rows), rows_per_part(*size), columns)
        done = len(rows) - len(parts.missing_rows)
        for index in parts.missing:
            context.progress(done, len(rows), "rows")
            span = parts.spans[index]
            parts.write(index, sanity.measure(reader.read(rows.images[span]), Chunk.of(rows, span)))
            done += span.stop - span.start
        context.progress(done, len(rows), "rows")
    write_scores(writer.out, rows, sanity.layout, parts.read())


@dataclass(frozen=True)
class Chunk:
    """Some rows: [B] sample ids, [B] targets."""

    sample_ids: list[str]
    targets: np.ndarray

    @staticmethod
    def of(rows: Rows, span: slice) -> Chunk:
        """From all rows."""
        return Chunk(rows.sample_ids[span], rows.targets[span])

    def seeds(self, seed: int, *purpose: int | str) -> list[int]:
        """One a row, whatever the other rows are."""
        pairs = zip(self.sample_ids, self.targets.tolist(), strict=True)
        return [derive_seed(seed, STAGE, *purpose, sample_id, target) for sample_id, target in pairs]


class Sanity:
    """One method on one classifier, and what is to be measured."""

    def __init__(self, extraction: Extraction, parameters: Mapping[str, Any], layers: Sequence[Layer]) -> None:
        self.parameters, self.seed, self.metrics = parameters, parameters["seed"], parameters["metrics"]
        self.plain, self.copies = extraction, _over_noisy_copies(extraction, parameters)
        wanted = layers if any(metric in _BY_LAYER for metric in self.metrics) else []
        self.layers = list(wanted if parameters["order"] == "bottom_up" else reversed(wanted))
        names = [layer.name for layer in self.layers]
        self.layout = Layout(self.metrics, parameters["similarities"], names)
        self._weights: tuple[int, RandomWeights] | None = None

    def measure(self, pixels_BCHW: Tensor, chunk: Chunk) -> dict[str, np.ndarray]:
        """``values`` and ``codes`` of some rows, [B, columns] each; afterwards the network is as it was.

        Args:
            pixels_BCHW: uint8.
        """
        table = Table(self.layout, len(chunk.targets))
        plain = self._compared(self._planes(self.plain, pixels_BCHW, chunk)) if set(self.metrics) != {SMOOTH} else None
        smooth = self._compared(self._planes(self.copies, pixels_BCHW, chunk)) if SMOOTH in self.metrics else None
        for repeat in range(self.parameters["repeats"]):
            if self.layers:
                self._randomise(table, repeat, plain, smooth, pixels_BCHW, chunk)
        if plain is not None and RANDOM_LOGIT in self.metrics:
            self._other_class(table, plain, pixels_BCHW, chunk)
        return table.columns()

    def _randomise(
        self,
        table: Table,
        repeat: int,
        plain: Compared | None,
        smooth: Compared | None,
        pixels: Tensor,
        chunk: Chunk,
    ) -> None:
        weights, last = self._random_weights(repeat), len(self.layers) - 1
        first: Planes | None = None
        with weights.restoring():
            for number, layer in enumerate(self.layers):
                weights.randomise(layer)
                if plain is not None and (CASCADING in self.metrics or (EFFICIENT in self.metrics and number == last)):
                    others = self._planes(self.plain, pixels, chunk)
                    first = others if number == 0 else first
                    self._compare(table, CASCADING, plain, others, number, chunk, repeat)
                    if EFFICIENT in self.metrics and number == last:
                        table.add_rise(plain, others, self.parameters["bins"])
                if smooth is not None:
                    others = self._planes(self.copies, pixels, chunk)
                    self._compare(table, SMOOTH, smooth, others, number, chunk, repeat)
        if plain is None or INDEPENDENT not in self.metrics:
            return
        with weights.restoring():
            for number, layer in enumerate(self.layers):
                if number == 0 and first is not None:  # the cascade begins with the same network
                    others = first
                else:
                    weights.randomise(layer)
                    others = self._planes(self.plain, pixels, chunk)
                    weights.restore(layer)
                self._compare(table, INDEPENDENT, plain, others, number, chunk, repeat)

    def _compare(
        self, table: Table, metric: str, to: Compared, others: Planes, number: int, chunk: Chunk, repeat: int
    ) -> None:
        if metric not in self.metrics:
            return
        table.add(self.layout.at_layer(metric, number), to, others)
        if metric != INDEPENDENT and number == len(self.layers) - 1:
            table.add_chance(self.layout.chance(metric), to, others, self._displacements(chunk, metric, repeat))

    def _other_class(self, table: Table, plain: Compared, pixels: Tensor, chunk: Chunk) -> None:
        classes = len(self.plain.card.class_names)
        places = [*self.layout.once(RANDOM_LOGIT), *self.layout.chance(RANDOM_LOGIT)]
        if classes == 1:
            table.fail(places, ONE_CLASS)
            return
        steps = [np.random.default_rng(seed).integers(1, classes) for seed in chunk.seeds(self.seed, RANDOM_LOGIT)]
        other = (chunk.targets + np.array(steps, dtype=np.int64)) % classes
        others = self._planes(self.plain, pixels, chunk, other)
        table.add(self.layout.once(RANDOM_LOGIT), plain, others)
        moves = self._displacements(chunk, RANDOM_LOGIT, 0)
        table.add_chance(self.layout.chance(RANDOM_LOGIT), plain, others, moves)

    def _planes(
        self, extraction: Extraction, pixels: Tensor, chunk: Chunk, targets: np.ndarray | None = None
    ) -> Planes:
        """The method's maps, of other classes where told; its random draws are those of the row's own target."""
        wanted = chunk.targets if targets is None else targets
        at_once = extraction.batch_size((pixels.shape[2], pixels.shape[3]))
        maps = []
        for start in range(0, len(pixels), at_once):
            span = slice(start, start + at_once)
            launched = extraction.launch(pixels[span], wanted[span], chunk.sample_ids[span], chunk.targets[span])
            maps.append(launched.maps.float())
        found = torch.cat(maps)
        if "filter" in self.parameters:
            found = apply_filter(found, MapFilter(**self.parameters["filter"]))
        return Planes.of(found, self.parameters["sign"])

    def _compared(self, planes: Planes) -> Compared:
        return Compared.of(planes, self.parameters)

    def _displacements(self, chunk: Chunk, metric: str, repeat: int) -> list[list[int]]:
        draws = range(self.parameters["chance_draws"])
        return [chunk.seeds(self.seed, "displacement", metric, repeat, draw) for draw in draws]

    def _random_weights(self, repeat: int) -> RandomWeights:
        """The weights of one repeat, the same for every method; those of the last one asked for are kept."""
        if self._weights is None or self._weights[0] != repeat:
            seed = self.seed
            weights = RandomWeights(
                self.plain.model, self.layers, lambda module: derive_seed(seed, STAGE, "weights", module, repeat)
            )
            self._weights = repeat, weights
        return self._weights[1]


def _over_noisy_copies(extraction: Extraction, parameters: Mapping[str, Any]) -> Extraction:
    """The same method averaged over noisy copies; one that is a moment over noisy copies already stays as it is."""
    if SMOOTH not in parameters["metrics"] or extraction.method.smooth is not None:
        return extraction
    smooth = Smooth(**parameters["noisy_copies"], kind="mean")
    method = dataclasses.replace(extraction.method, smooth=smooth, one_pass=False)
    return Extraction(
        extraction.model, extraction.card, method, {**parameters, "dtype": "float32"}, extraction.device,
        extraction.surroundings,
    )  # fmt: skip
