"""The rows that an evaluation of maps scores: (image, target) pairs of the test split, joined by sample id."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from roarline.artifacts.dataset import DatasetFile
from roarline.artifacts.maps import MapsFile
from roarline.errors import ArtifactError, DataError, MethodError
from roarline.stages.draws import draw_rows

_DRAW = "evaluate-perturbation"  # one draw for all evaluations, so that they score the same images
_PART_PX, _PART_ROWS = 2**22, (64, 1024)


@dataclass(frozen=True)
class Rows:
    """The rows to score: [M] rows of the data set, [M] rows of the maps, [M] sample ids, [M] targets."""

    images: np.ndarray
    maps: np.ndarray
    sample_ids: list[str]
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.images)


def rows_to_score(dataset: DatasetFile, maps: MapsFile, limit: int | None, seed: int) -> Rows:
    """Join the test images with their maps by sample id; ``limit`` images, the same for every method, by a seeded draw.

    Raises:
        DataError: There is no test image.
        ArtifactError: An image has no map though all were to have one, or a map no image, or a map's target is no
            class.
    """
    images = dataset.rows("test")
    if not len(images):
        raise DataError(f"data set {dataset.name!r} has no test images to evaluate on")
    unknown = set(maps.sample_ids) - {dataset.sample_ids[row] for row in images}
    if unknown:
        raise ArtifactError(
            f"{maps.path}: {len(unknown)} maps are of no test image, e.g. of sample {min(unknown)!r}; "
            "these maps belong to another data set or split"
        )
    if "limit" in maps.attributes:  # made of some images only, the same for every method
        mapped = set(maps.sample_ids)
        images = images[[dataset.sample_ids[row] in mapped for row in images]]
    images = draw_rows(images, limit, seed, _DRAW)
    ids = [dataset.sample_ids[row] for row in images]
    groups = maps.rows_for(ids)
    counts = [len(group) for group in groups]
    map_rows = np.array([row for group in groups for row in group], dtype=np.int64)
    targets = maps.targets[map_rows]
    wrong = np.flatnonzero((targets < 0) | (targets >= dataset.num_classes))
    if len(wrong):
        row = int(map_rows[wrong[0]])
        raise ArtifactError(
            f"{maps.path}: row {row} has target {int(maps.targets[row])} of {dataset.num_classes} classes"
        )
    repeated = [sample_id for sample_id, count in zip(ids, counts, strict=True) for _ in range(count)]
    return Rows(np.repeat(images, counts), map_rows, repeated, targets)


def image_size(dataset: DatasetFile, maps: MapsFile) -> tuple[int, int]:
    size = dataset.image_size
    if size is None:
        raise DataError(
            f"images of {dataset.name!r} may differ in size, and a batch needs one size; "
            "set data.resize_px and data.crop_px"
        )
    if maps.shape[-2:] != size:
        raise MethodError(
            f"{maps.path}: maps of {maps.shape[-2]}×{maps.shape[-1]} px, images of {size[0]}×{size[1]} px; "
            "a method must return one value a pixel of its input"
        )
    return size


def rows_per_part(height: int, width: int) -> int:
    """Rows of a part, from the image's size."""
    smallest, largest = _PART_ROWS
    return min(largest, max(smallest, _PART_PX // (height * width)))
