"""What attribution methods may ask of the data set: training images as references, and ground truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from roarline.artifacts.classifier import ClassifierCard
from roarline.artifacts.dataset import VOID, DatasetFile
from roarline.artifacts.store import Artifact
from roarline.attribution.surroundings import Surroundings
from roarline.data.loading import ImageReader, normalise
from roarline.errors import DataError
from roarline.imaging.ground_truth import box_masks, segmentation_masks
from roarline.models.load_explainer import load_explainer
from roarline.seeds import derive_seed
from roarline.stages.retrained_images import RetrainedImages


def surroundings_of(
    reader: ImageReader,
    card: ClassifierCard,
    size: tuple[int, int],
    device: torch.device,
    seed: int,
    purpose: str,
    seen_as: RetrainedImages | None = None,
    explainer: nn.Module | None = None,
) -> Surroundings:
    """What methods may ask of one data set and classifier.

    Args:
        size: (H, W) of the images in px.
        seed: The experiment's.
        purpose: What the draws are for: the stage and the method.
        seen_as: What becomes of images before this network sees them; of references too.
        explainer: A trained one, on the CPU; see ``explainer_of``.
    """
    masks = masks_of(explainer.to(device).to(memory_format=torch.channels_last)) if explainer is not None else None  # type: ignore[call-overload]
    return Surroundings(
        shared_seed=derive_seed(seed, purpose, "shared"),
        mean=card.mean,
        std=card.std,
        references=_references(reader, card, device, derive_seed(seed, purpose, "references"), seen_as),
        ground_truth=_ground_truth(reader.dataset, size),
        explainer=masks,
    )


def explainer_of(
    inputs: Mapping[str, Artifact], classifier: nn.Module, dataset: DatasetFile, size: tuple[int, int]
) -> nn.Module | None:
    """The explainer that a job reads as ``explainer``; None where it reads none.

    Args:
        inputs: Role to artifact, ``classifier`` among them.
        classifier: Of that artifact, on the CPU.
        size: (H, W) of the images in px.

    Raises:
        ModelError: It was trained for another classifier, class count or input size.
    """
    if "explainer" not in inputs:
        return None
    network, _ = load_explainer(
        inputs["explainer"],
        classifier,
        classifier_artifact=inputs["classifier"],
        class_names=dataset.class_names,
        input_size=size,
    )
    return network


def masks_of(network: nn.Module) -> Callable[[nn.Module, Tensor], Tensor]:
    """What an explainer's network draws, as ``Surroundings`` has it."""

    def masks(model: nn.Module, images_BCHW: Tensor) -> Tensor:
        drawn: Tensor = network.masks(model, images_BCHW)  # type: ignore[operator]
        return drawn

    return masks


def _references(
    reader: ImageReader, card: ClassifierCard, device: torch.device, seed: int, seen_as: RetrainedImages | None
) -> Callable[[int], Tensor]:
    @cache
    def draw(count: int) -> Tensor:
        """[count, C, H, W] normalised training images, without replacement where there are enough."""
        rows = reader.dataset.rows("train")
        if not len(rows):
            raise DataError(f"data set {reader.dataset.name!r} has no training images to take references from")
        order = np.random.default_rng(seed).permutation(len(rows))
        chosen = rows[np.resize(order, count)]
        images = normalise(reader.read(chosen).to(device), card.mean, card.std)
        return seen_as(images, [reader.dataset.sample_ids[row] for row in chosen]) if seen_as else images

    return draw


def _ground_truth(dataset: DatasetFile, size: tuple[int, int]) -> Callable[[Sequence[str], Tensor], Tensor]:
    @cache
    def row_numbers() -> dict[str, int]:
        return {sample_id: row for row, sample_id in enumerate(dataset.sample_ids)}

    def masks(sample_ids: Sequence[str], targets_B: Tensor) -> Tensor:
        """float32 [B, H, W] on the targets' device, 1 at pixels of the target's objects.

        Boxes stand in for segmentation where an image has none; without either it is 0 everywhere.
        """
        rows = np.array([row_numbers()[sample_id] for sample_id in sample_ids], dtype=np.int64)
        targets = targets_B.cpu()
        found = torch.zeros((len(rows), *size), dtype=torch.bool)
        unknown = np.ones(len(rows), dtype=bool)
        segmentation, whole = dataset.segmentation(rows), dataset.class_masks(rows, targets.numpy())
        if segmentation is not None and whole is not None:
            found = segmentation_masks(torch.from_numpy(segmentation), targets, torch.from_numpy(whole))
            unknown = (segmentation == VOID).all(axis=(1, 2))
        if dataset.boxes is not None and unknown.any():
            boxes = dataset.boxes[np.isin(dataset.boxes[:, 0], rows[unknown])]
            chosen = torch.from_numpy(unknown)
            found[chosen] = box_masks(torch.from_numpy(boxes), torch.from_numpy(rows[unknown]), targets[chosen], size)
        if segmentation is None and dataset.boxes is None:
            raise DataError(
                f"data set {dataset.name!r} has neither boxes nor segmentation, which `ground_truth` draws; leave it "
                "out of attribution.baselines and attribution.methods"
            )
        return found.to(targets_B.device, torch.float32)

    return masks
