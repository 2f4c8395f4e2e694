"""The rows of a ``maps`` artifact: which (image, target class) pairs it has, and which of them a shard has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from roarline.artifacts.dataset import DatasetFile
from roarline.artifacts.maps import MAPS_FILE, MapsFile
from roarline.artifacts.store import Artifact
from roarline.attribution.call import PREDICTED
from roarline.errors import DataError
from roarline.stages.draws import draw_rows
from roarline.stages.scored_rows import rows_to_score

WHOLE = {"index": 0, "count": 1}


@dataclass(frozen=True)
class TargetRows:
    """The rows to make: [M] rows of the data set, [M] targets (-1: the class that the network predicts)."""

    images: np.ndarray
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def take(self, wanted: Sequence[int]) -> TargetRows:
        """Some of the rows."""
        chosen = np.asarray(wanted, dtype=np.int64)
        return TargetRows(self.images[chosen], self.targets[chosen])


def rows_of(
    dataset: DatasetFile, parameters: Mapping[str, Any], targets: Artifact | None, part_rows: int, purpose: str
) -> TargetRows:
    """The rows that a job's parameters ask for.

    Args:
        parameters: split, target and seed, and where they are set limit and shard.
        targets: A ``maps`` artifact of another network: its rows, for data randomisation.
        part_rows: Of a part.
        purpose: What images are drawn for where there is a limit.
    """
    limit, seed = parameters.get("limit"), parameters["seed"]
    if targets is not None:
        with MapsFile(targets.file(MAPS_FILE)) as maps:
            scored = rows_to_score(dataset, maps, limit, seed)
        rows = TargetRows(scored.images, scored.targets)
    else:
        drawn = draw_rows(dataset.rows(parameters["split"]), limit, seed, purpose)
        rows = target_rows(dataset, parameters["split"], parameters["target"], drawn)
    return rows.take(shard_rows(len(rows), part_rows, **parameters.get("shard", WHOLE)))


def target_rows(dataset: DatasetFile, split: str, target: str, images: np.ndarray | None = None) -> TargetRows:
    """Which rows a split has, or some of its images.

    ``predicted``: one an image, for the class of the largest logit (multi-label too). ``label``: one an image, for its
    label. ``every-label``: one for each label of an image, and for an image without any label one for its predicted
    class, so that no image is missing.

    Raises:
        DataError: ``label`` is asked for and images have several labels.
    """
    images = dataset.rows(split) if images is None else images
    if target == "predicted":
        return TargetRows(images, np.full(len(images), PREDICTED, dtype=np.int64))
    labels = dataset.labels[images]
    if not dataset.multi_label:
        return TargetRows(images, labels.astype(np.int64))
    if target == "label":
        raise DataError(
            f"attribution.target is 'label', but images of {dataset.name!r} have several labels; "
            "use 'every-label' or 'predicted'"
        )
    place, classes = np.nonzero(labels)
    unlabelled = np.flatnonzero(~labels.any(axis=1))
    place = np.concatenate([place, unlabelled])
    classes = np.concatenate([classes, np.full(len(unlabelled), PREDICTED)]).astype(np.int64)
    order = np.argsort(place, kind="stable")
    return TargetRows(images[place[order]], classes[order])


def shard_rows(total: int, part_rows: int, index: int, count: int) -> range:
    """The rows of one shard, whole parts, so that batches are the same however many shards there are.

    Args:
        total: Rows of all shards.
        part_rows: Of a part, as ``rows_per_part`` gives them.
        index: Of the shard, from 0.
        count: How many shards there are.
    """
    parts = -(-total // part_rows)
    return range(min(total, index * parts // count * part_rows), min(total, (index + 1) * parts // count * part_rows))
