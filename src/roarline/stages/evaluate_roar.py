"""Stage evaluate-roar: remove pixels from every split, train anew, test once. A job is one cell of the grid.

A cell of recursive ROAR reads maps that the former cell's network made of the images as it saw them; what the former
cell took away stays away. It keeps its weights and which pixels are gone, for the next cell.

``compat: original`` repeats what the original ROAR code does to a cell: maps are stretched to 256 grey levels before
they are ranked, removing 0 pixels in mode roar removes all, training images are filled with the mean cut to 8 bits and
the others with the mean uncut, and every image went through 8 bits once more. It does not repeat the order of the
original's unstable sort (``ties: index`` comes closest), its joining of files by folder order, or its lack of a seed.

Shapes: B images of a batch, H × W px.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from roarline.artifacts.classifier import write_curve
from roarline.artifacts.dataset import DATASET_FILE, SPLITS, DatasetFile
from roarline.artifacts.maps import MAPS_FILE, MapsFile
from roarline.artifacts.removed import REMOVED_FILE, RemovedFile, write_removed
from roarline.artifacts.retraining import Place, RetrainedCell, write_predictions
from roarline.artifacts.store import Artifact, Writer
from roarline.config.training import TrainCls
from roarline.data.loading import ImageReader
from roarline.errors import DataError
from roarline.imaging.fills import fill_image
from roarline.imaging.ranking import removal_count
from roarline.imaging.removal import Order, removal_mask, remove
from roarline.imaging.removed_first import removed_first
from roarline.models.build import build
from roarline.seeds import derive_seed
from roarline.stages.classifier_files import write_classifier
from roarline.stages.draws import noise_seeds
from roarline.stages.job import Context, Job
from roarline.stages.rank_maps import Ranking, rank_samples
from roarline.stages.recent import Recent
from roarline.stages.recorded_steps import may_record
from roarline.stages.splits import Alter, SplitImages, normalization_of, resident_bytes, split_images
from roarline.training.batches import Split
from roarline.training.checkpoint import Checkpoint
from roarline.training.classification import train
from roarline.training.evaluate import Evaluation, evaluate
from roarline.training.loop import Trained
from roarline.training.retraining_inputs import cut_to_8_bits, mask_inputs

# Of what one thing may take of the device's memory: the images of three splits, and their ranks, a third as large.
_KEPT_IMAGES, _KEPT_RANKS = 1.5, 0.75
_images: Recent[SplitImages] = Recent()
_ranks: Recent[Tensor] = Recent()

RECURSIVE, EVERYTHING = "recursive_roar", "everything_removed"
_ORDERS: dict[str, Order] = {
    "roar": "most_relevant_first",
    "kar": "least_relevant_first",
    RECURSIVE: "most_relevant_first",
    EVERYTHING: "most_relevant_first",
}
_MASKS_AT_ONCE_PX = 2**24


def run(job: Job, context: Context, writer: Writer) -> None:
    """Make a ``retraining`` artifact.

    Initialisation and batch order come from (seed, repeat) alone: cells of one repeat differ in their pixels and in
    nothing else, so that their differences are paired.

    Raises:
        DataError: There is no training or test split, or an image is unreadable.
        ArtifactError: A map is missing or damaged.
        JobError: The training diverged.
    """
    with ExitStack() as files:
        cell = Cell(job, context, files)
        model = cell.network()
        trained = train(
            model,
            cell.splits["train"],
            cell.splits.get("validation"),
            cell.settings,
            seed=cell.seed("batches"),
            checkpoint=Checkpoint(writer.parts),
            record=cell.record,
            progress=lambda done, total: context.progress(done, total, "steps"),
        )
        test = evaluate(model, cell.splits["test"], precision=cell.settings.precision)
        cell.write(writer, model, trained, test)


class Cell:
    """One retraining before and after the training itself.

    Args:
        job: Of evaluate-roar.
        context: Where.
        files: Stays open as long as the cell is used.

    Attributes:
        settings: Of the training.
        splits: What the network sees, by name.

    Raises:
        DataError, ArtifactError: See ``run``.
    """

    def __init__(self, job: Job, context: Context, files: ExitStack) -> None:
        inputs = context.inputs(job)
        self.job, self.parameters, self.device = job, job.parameters, context.device
        self.settings = TrainCls.model_validate(self.parameters["training"])
        self.dataset = files.enter_context(DatasetFile(inputs["dataset"].file(DATASET_FILE)))
        self.images = images = _split_images(job, context, inputs["dataset"], self.dataset, files)
        self.removal = _Removal(job, self.dataset, images["test"]) if self.parameters["mode"] != "reference" else None
        self.ranks = {name: _ranks_of(job, context, inputs, name, found, files) for name, found in images.items()}
        self.splits: dict[str, Split] = {
            name: found.altered(self.removal.of(name, self.ranks[name], found) if self.removal else None)
            for name, found in images.items()
        }

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) in px."""
        return self.images["test"].image_size

    @property
    def record(self) -> bool:
        """Whether its training may record steps."""
        return may_record(self.job, self.parameters["model"]["arch"])

    def seed(self, purpose: str) -> int:
        """Of the initialisation (``init``) or of batches and augmentation (``batches``): by repeat alone."""
        return derive_seed(self.parameters["seed"], "evaluate-roar", self.parameters["repeat"], purpose)

    def network(self) -> nn.Module:
        """The network before its first step."""
        model = self.parameters["model"]
        return build(
            model["arch"], model["params"], self.dataset.num_classes, input_size=self.image_size, seed=self.seed("init")
        ).to(self.device)

    def write(self, writer: Writer, model: nn.Module, trained: Trained, test: Evaluation) -> None:
        """Write what came out.

        Args:
            model: With the weights of its best epoch; read where the next cell needs them.
            test: Of the test split.
        """
        images, removal, epochs = self.images["test"], self.removal, self.settings.epochs
        if removal and removal.kept:
            write_classifier(
                writer.out, model, self.parameters["model"], self.dataset, images.normalization, epochs=epochs,
                best_epoch=trained.best_epoch, validation_accuracy=trained.validation_accuracy,
                test_accuracy=test.accuracy,
            )  # fmt: skip
            masks = (mask for name, found in self.images.items() for mask in removal.masks(found, self.ranks[name]))
            ids = [sample_id for found in self.images.values() for sample_id in found.sample_ids]
            write_removed(writer.out / REMOVED_FILE, ids, self.image_size, masks)
        RetrainedCell(
            place=Place(**{name: self.parameters[name] for name in Place.model_fields}),
            validation_accuracy=trained.validation_accuracy,
            test_accuracy=test.accuracy,
            best_epoch=trained.best_epoch,
            epochs=epochs,
            n_test=len(images),
            removed_pixels=removal.removed_pixels if removal else 0,
        ).write(writer.out)
        write_predictions(
            writer.out,
            images.sample_ids,
            images.labels.tolist() if images.labels.ndim == 1 else [None] * len(images),
            test.predicted_N.tolist(),
            test.correct_N.tolist(),
        )
        write_curve(writer.out, trained.curve)


def _split_images(
    job: Job, context: Context, artifact: Artifact, dataset: DatasetFile, files: ExitStack
) -> dict[str, SplitImages]:
    """Every split that has images, kept for the cells that this process runs next."""
    reader = files.enter_context(ImageReader(dataset, job.local.get("root"), context.loader_threads))
    normalization = normalization_of(job.parameters["normalization"], dataset)
    found: dict[str, SplitImages] = {}
    _images.limit_bytes = int(_KEPT_IMAGES * resident_bytes(context.device))
    for name in SPLITS:
        if len(dataset.rows(name)):
            found[name] = _images.get(
                (artifact.digest, name, *normalization.mean, *normalization.std, context.device),
                partial(split_images, dataset, reader, name, normalization, context.device),
            )
    for name in ("train", "test"):
        if name not in found:
            raise DataError(f"data set {dataset.name!r} has no {name} split, which evaluate-roar needs")
    return found


Ranks = Callable[[Tensor], Tensor]
"""Places in a split int64 [B] to the pixels' ranks [B, H, W], on the same device."""


def _ranks_of(
    job: Job, context: Context, inputs: dict[str, Artifact], split: str, images: SplitImages, files: ExitStack
) -> Ranks:
    """In which order the pixels of one split go: by maps, but first what is gone already."""
    pixels = math.prod(images.image_size)

    def gone(source: RemovedFile, places: Tensor) -> Tensor:
        masks = source.masks([images.sample_ids[place] for place in places.tolist()])
        return torch.from_numpy(masks).to(context.device, non_blocking=True)

    if "cell" in inputs:  # the probe sees the masks of a cell, which are of as many pixels as it removed
        cell = files.enter_context(RemovedFile(inputs["cell"].file(REMOVED_FILE)))
        return lambda places: torch.where(gone(cell, places), 0, pixels)
    if f"maps_{split}" not in inputs:  # nothing or everything is removed, in any order
        return lambda places: torch.zeros((len(places), *images.image_size), dtype=torch.int32, device=context.device)
    ranks = _split_ranks(job, context, inputs["dataset"], inputs[f"maps_{split}"], images, files)
    if "former" not in inputs:
        return ranks
    former = files.enter_context(RemovedFile(inputs["former"].file(REMOVED_FILE)))
    return lambda places: removed_first(ranks(places), gone(former, places))


def _split_ranks(
    job: Job, context: Context, dataset: Artifact, maps: Artifact, images: SplitImages, files: ExitStack
) -> Ranks:
    """Ranks of one split: resident and kept for the next cells, or made batch by batch where they don't fit."""
    parameters = job.parameters
    how = Ranking(
        sign=parameters["sign"],
        ties=parameters["ties"],
        merge_normalization=parameters["merge_normalization"],
        compat=parameters["compat"],
        seed=parameters["seed"],
    )
    if len(images) * math.prod(images.image_size) * 4 > resident_bytes(context.device):
        streamed = files.enter_context(MapsFile(maps.file(MAPS_FILE)))

        def rank(places: Tensor) -> Tensor:
            sample_ids = [images.sample_ids[place] for place in places.tolist()]
            return rank_samples(streamed, sample_ids, images.image_size, how, context.device)

        return rank

    def make() -> Tensor:
        with MapsFile(maps.file(MAPS_FILE)) as file:
            return rank_samples(file, images.sample_ids, images.image_size, how, context.device)

    if "former" in job.inputs:  # of one cell alone
        once = make()
        return lambda places: once.index_select(0, places)
    _ranks.limit_bytes = int(_KEPT_RANKS * resident_bytes(context.device))
    ranks = _ranks.get((dataset.digest, maps.digest, how, context.device), make)
    return lambda places: ranks.index_select(0, places)


class _Removal:
    """What a cell takes away from every split: as many pixels, from the same end, for the same fill."""

    def __init__(self, job: Job, dataset: DatasetFile, images: SplitImages) -> None:
        self.parameters = job.parameters
        self.order = _ORDERS[job.parameters["mode"]]
        self.compat = job.parameters.get("compat", "corrected")
        self.normalization = images.normalization
        self.pixels = math.prod(images.image_size)
        self.count = removal_count(job.parameters["removed_fraction"], self.pixels)
        if dataset.mean is None:
            raise DataError(f"data set {dataset.name!r} has no mean of a training split to fill removed pixels with")
        self.mean_colour = dataset.mean.tolist()

    @property
    def removed_pixels(self) -> int:
        """Of each image."""
        all_of_them = self.compat == "original" and self.order == "most_relevant_first" and self.count == 0
        return self.pixels if all_of_them else self.count

    @property
    def kept(self) -> bool:
        """True where the next cell will read what this one took away, and with which weights it ended."""
        return self.parameters["mode"] == RECURSIVE and not self.parameters["probe"]

    def masks(self, images: SplitImages, ranks: Ranks) -> Iterator[np.ndarray]:
        """What goes from each image of a split, bool [b, H, W], some images at a time."""
        step = max(1, _MASKS_AT_ONCE_PX // self.pixels)
        device = images.labels.device
        for start in range(0, len(images), step):
            places = torch.arange(start, min(start + step, len(images)), device=device)
            yield removal_mask(ranks(places), self.count, self.order).cpu().numpy()

    def of(self, split: str, ranks: Ranks, split_images: SplitImages) -> Alter:
        """What happens to the images of one split."""
        if self.parameters["probe"]:
            return lambda images, places: mask_inputs(
                removal_mask(ranks(places), self.count, self.order, compat=self.compat), self.removed_pixels
            ).expand_as(images)
        mean_colour = self.mean_colour
        if self.compat == "original" and split == "train":
            mean_colour = [math.floor(value * 255) / 255 for value in mean_colour]

        seeds_N = None
        if self.parameters["fill"] == "uniform_noise":
            device = split_images.labels.device
            seeds_N = noise_seeds(self.parameters["seed"], "uniform", split_images.sample_ids, device)

        def alter(images: Tensor, places: Tensor) -> Tensor:
            if self.compat == "original":
                images = cut_to_8_bits(images, self.normalization.mean, self.normalization.std)
            fill = fill_image(
                images, self.parameters["fill"], self.normalization.mean, self.normalization.std, fill_mean=mean_colour,
                seeds_B=None if seeds_N is None else seeds_N.index_select(0, places),
            )  # fmt: skip
            return remove(images, ranks(places), self.count, fill, order=self.order, compat=self.compat)

        return alter
