"""extract-attribution-maps: attribution maps of one method and one split, streamed to HDF5.

Rows, each an (image, target) pair, are cut into parts of a fixed size; an interrupted run goes on after the last whole
part. Images are read ahead on a thread, a batch is fetched while the next one computes, and parts are written on a
thread. Memory is that of two parts, whatever the number of images.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from roarline.artifacts.classifier import ClassifierCard
from roarline.artifacts.dataset import DATASET_FILE, DatasetFile
from roarline.artifacts.map_parts import MapParts
from roarline.artifacts.map_shards import join_shards
from roarline.artifacts.maps import MAPS_FILE, MapRows, check_rows, join_parts, write_part
from roarline.artifacts.removed import REMOVED_FILE, RemovedFile
from roarline.artifacts.store import Artifact, Writer
from roarline.attribution.call import Attribution, MethodCall, attribute, find_method, network_for
from roarline.attribution.memory import PassLimit
from roarline.attribution.surroundings import Surroundings
from roarline.config.component import MapFilter, Smooth
from roarline.data.loading import ImageReader, normalise
from roarline.errors import MethodError
from roarline.imaging.reduction import reduce_channels
from roarline.models.load import check_classes, load_classifier
from roarline.models.passes import is_published, memory_format, pass_size
from roarline.seeds import derive_seed
from roarline.stages.classifier_files import size_for
from roarline.stages.filter_maps import filter_artifact
from roarline.stages.fine_tuning import fill_colour
from roarline.stages.job import Context, Job, Progress
from roarline.stages.retrained_images import RetrainedImages
from roarline.stages.surroundings import explainer_of, surroundings_of
from roarline.stages.target_rows import TargetRows, rows_of

STAGE = "extract-attribution-maps"
_PART_PX, _PART_ROWS = 2**22, (64, 1024)
_FLOAT16_SMALLEST, _FLOAT16_LARGEST = float(np.finfo(np.float16).tiny), float(np.finfo(np.float16).max)


def run(job: Job, context: Context, writer: Writer) -> None:
    """Write ``maps.h5``: the maps of one method for one split, computed, or filtered from another ``maps`` artifact.

    Which rows it has follows from the split and the parameter ``target``, or, for data randomisation, from the
    ``maps`` artifact of another network that is given as ``targets``. With a parameter ``shard`` it is one range of
    them; where the job has shards, they are joined.

    Raises:
        MethodError: The method fails or returns something unusable.
        ModelError: The classifier is for other classes or another image size, or the explainer for another classifier.
        DataError: The targets don't fit the labels, or an image can't be read.
    """
    if job.shards:
        _join(context.shards(job), writer)
        return
    inputs, parameters = context.inputs(job), job.parameters
    attributes: dict[str, Any] = {
        "method": parameters["method"],
        "parameters": parameters["params"],
        "split": parameters["split"],
        "target": parameters["target"],
        "channels": parameters["channels"],
        "classifier_digest": inputs["classifier"].digest,
        "dataset_digest": inputs["dataset"].digest,
        **{name: parameters[name] for name in ("smooth", "filter", "limit") if name in parameters},
        **({"explainer_digest": inputs["explainer"].digest} if "explainer" in inputs else {}),
    }
    compression = job.local.get("map_compression", "none")
    if "maps" in inputs:
        how = MapFilter(**parameters["filter"])
        filter_artifact(inputs["maps"], how, parameters["dtype"], writer, attributes, compression)
        return
    model, card = load_classifier(inputs["classifier"])
    name, batched = parameters.get("dotted_path", parameters["method"]), parameters["batched"]
    smooth = Smooth(**parameters["smooth"]) if "smooth" in parameters else None
    method = find_method(name, parameters["params"], batched=batched, smooth=smooth)
    with ExitStack() as files, DatasetFile(inputs["dataset"].file(DATASET_FILE)) as dataset:
        check_classes(card, dataset.class_names, dataset.name)
        size = size_for(dataset, card)
        rows = rows_of(dataset, parameters, inputs.get("targets"), rows_per_part(*size), STAGE)
        device = torch.device(context.device)
        with ImageReader(dataset, job.local.get("root"), context.loader_threads) as reader:
            purpose = f"{STAGE} {method.name}"
            seen_as = _seen_as(inputs["classifier"], parameters, card, dataset, files)
            network = explainer_of(inputs, model, dataset, size)
            surroundings = surroundings_of(reader, card, size, device, parameters["seed"], purpose, seen_as, network)
            if is_published(card.arch):
                model = network_for(method, model, (3, *size))
            extraction = Extraction(model, card, method, parameters, device, surroundings, seen_as)
            parts = extract(extraction, reader, rows, size, writer.parts, context.progress, compression)
    join_parts(writer.out / MAPS_FILE, parts, {**attributes, "input_size": np.array(size)}, compression)


def extract(
    extraction: Extraction,
    reader: ImageReader,
    rows: TargetRows,
    size: tuple[int, int],
    folder: Path,
    progress: Progress = lambda done, total, unit: None,
    compression: str = "none",
) -> list[Path]:
    """Compute the parts that are not yet in ``folder``.

    Args:
        size: (H, W) of the images.
        compression: Of the maps in their files.

    Returns:
        All parts in the order of ``rows``; a single one without rows where there are none.
    """
    with MapParts(folder, len(rows), rows_per_part(*size), compression) as parts:
        wanted = [row for index in parts.missing for row in range(*parts.spans[index])]
        batches = extraction.batches(reader, rows.take(wanted), size)
        done = parts.rows_present
        progress(done, len(rows), "maps")
        for index in parts.missing:
            start, stop = parts.spans[index]
            collected: list[MapRows] = []
            while sum(len(batch.sample_ids) for batch in collected) < stop - start:
                collected.append(next(batches))
                done += len(collected[-1].sample_ids)
                progress(done, len(rows), "maps")
            parts.write(index, collected)
    if not parts.paths:
        write_part(folder / "none.h5", extraction.no_rows(size))
        return [folder / "none.h5"]
    return parts.paths


def rows_per_part(height: int, width: int) -> int:
    """Rows of a part: a power of two from the image's size, and a multiple of every batch."""
    smallest, largest = _PART_ROWS
    fitting = max(1, _PART_PX // (height * width))
    return min(largest, max(smallest, 1 << (fitting.bit_length() - 1)))


def rows_at_once(height: int, width: int, device: torch.device, *, keeps_activations: bool) -> int:
    """Images of a batch: as many as go through the network, and no more than a part holds."""
    return min(pass_size(height, width, device, keeps_activations=keeps_activations), rows_per_part(height, width))


class Extraction:
    """One method on one classifier and device: from raw pixels to checked rows."""

    def __init__(
        self,
        model: nn.Module,
        card: ClassifierCard,
        method: MethodCall,
        parameters: Mapping[str, Any],
        device: torch.device,
        surroundings: Surroundings | None = None,
        seen_as: RetrainedImages | None = None,
    ) -> None:
        self.seen_as = seen_as
        self.card, self.method, self.device = card, method, device
        self.surroundings, self.limit = surroundings or Surroundings(mean=card.mean, std=card.std), PassLimit()
        self.channels, self.seed = parameters["channels"], parameters["seed"]
        self.dtype = np.dtype(parameters["dtype"])
        self.autocast = parameters["precision"] == "bfloat16"
        # Convolutions run faster on channels-last memory; code of the user's own may count on contiguous images.
        self.memory_format = memory_format(card.arch) if method.builtin else torch.contiguous_format
        self.model = model.to(device).to(memory_format=self.memory_format)  # type: ignore[call-overload]

    def batches(self, reader: ImageReader, rows: TargetRows, size: tuple[int, int]) -> Iterator[MapRows]:
        """Compute rows in order; a batch is fetched and checked after the next was launched."""
        ids = reader.dataset.sample_ids
        previous: tuple[Attribution, list[str]] | None = None
        start = 0
        for image_rows, pixels in reader.batches(rows.images, self.batch_size(size)):
            stop = start + len(image_rows)
            sample_ids = [ids[row] for row in image_rows]
            launched = self.launch(pixels, rows.targets[start:stop], sample_ids)
            if previous is not None:
                yield self.fetch(*previous)
            previous, start = (launched, sample_ids), stop
        if previous is not None:
            yield self.fetch(*previous)

    def batch_size(self, size: tuple[int, int]) -> int:
        """How many images (H, W) are computed at once."""
        return rows_at_once(*size, self.device, keeps_activations=self.method.keeps_activations)

    def no_rows(self, size: tuple[int, int]) -> MapRows:
        """What an empty split gives."""
        logits = np.empty((0, len(self.card.class_names)), dtype=np.float32)
        return MapRows([], np.empty(0, dtype=np.int64), np.empty((0, *size), dtype=self.dtype), logits)

    def launch(
        self, pixels_BCHW: Tensor, targets: np.ndarray, sample_ids: Sequence[str], drawn_for: np.ndarray | None = None
    ) -> Attribution:
        """Compute one batch; on a GPU the results may still be under way.

        Args:
            pixels_BCHW: uint8.
            targets: [B] int64, -1 for the predicted class.
            drawn_for: [B] int64, the classes whose random draws are taken; default: the targets.
        """
        pixels = pixels_BCHW.to(self.device, non_blocking=True).contiguous(memory_format=self.memory_format)
        images = normalise(pixels, self.card.mean, self.card.std)
        if self.seen_as is not None:
            images = self.seen_as(images, sample_ids)
        return self.launch_images(images, targets, sample_ids, drawn_for)

    def launch_images(
        self, images_BCHW: Tensor, targets: np.ndarray, sample_ids: Sequence[str], drawn_for: np.ndarray | None = None
    ) -> Attribution:
        """Compute one batch of normalised images; as ``launch`` otherwise."""

        def seed_of(row: int, target: int) -> int:
            drawn = target if drawn_for is None else int(drawn_for[row])
            return derive_seed(self.seed, STAGE, self.method.name, sample_ids[row], drawn)

        images = images_BCHW.contiguous(memory_format=self.memory_format)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.autocast):
            result = attribute(
                self.model,
                images,
                torch.from_numpy(targets).to(self.device),
                self.method,
                seed_of=seed_of,
                sample_ids=sample_ids,
                surroundings=self.surroundings,
                limit=self.limit,
            )
        maps = reduce_channels(result.maps, self.channels) if result.maps.ndim == 4 else result.maps
        return Attribution(maps, result.targets, result.logits)

    def fetch(self, result: Attribution, sample_ids: Sequence[str]) -> MapRows:
        """Bring a batch to the CPU and check it.

        Raises:
            MethodError: A value is NaN or infinite, or doesn't fit into float16; the message names the row.
        """
        maps = result.maps.to(torch.float32).cpu().contiguous().numpy()
        rows = MapRows(list(sample_ids), result.targets.cpu().numpy(), maps, result.logits.float().cpu().numpy())
        check_rows(rows, self.method.name)
        if self.dtype == np.float16:
            _check_float16(rows, self.method.name)
            rows.maps = maps.astype(np.float16)
        return rows


def _join(shards: Sequence[Artifact], writer: Writer) -> None:
    writer.undigested |= set(join_shards(writer.out, [shard.file(MAPS_FILE) for shard in shards]))
    made = [shard.manifest.provenance for shard in shards]
    writer.provenance |= {
        "shards": len(made),
        **{name: made[0][name] for name in ("device", "cuda")},
        "started": min(one["started"] for one in made),
        "duration_s": round(sum(one["duration_s"] for one in made), 3),
        **{
            name: max(one[name] for one in made)
            for name in ("peak_memory_mb", "peak_device_memory_mb")
            if all(name in one for one in made)
        },
    }


def _seen_as(
    classifier: Artifact, parameters: Mapping[str, Any], card: ClassifierCard, dataset: DatasetFile, files: ExitStack
) -> RetrainedImages | None:
    """For a network of recursive ROAR, what becomes of images before it sees them."""
    if "removed_fill" not in parameters:
        return None
    removed = files.enter_context(RemovedFile(classifier.file(REMOVED_FILE)))
    colour = fill_colour(dataset, card.mean)
    return RetrainedImages(removed, parameters["removed_fill"], card.mean, card.std, colour, parameters["seed"])


def _check_float16(rows: MapRows, method: str) -> None:
    largest = np.abs(rows.maps).reshape(len(rows.maps), -1).max(axis=1)
    bad = np.flatnonzero((largest > _FLOAT16_LARGEST) | ((largest > 0) & (largest < _FLOAT16_SMALLEST)))
    if len(bad):
        row = int(bad[0])
        raise MethodError(
            f"{method}: the map of sample {rows.sample_ids[row]!r}, target class {int(rows.targets[row])}, has a "
            f"largest magnitude of {largest[row]:.3g}, and float16 holds {_FLOAT16_SMALLEST:.3g} to "
            f"{_FLOAT16_LARGEST:.0f}; set attribution.dtype to float32"
        )
