"""The difficult subset of the pointing game: pairs of an image and a class that a guess at the centre seldom hits.

Shapes: B rows, each an (image, target class) pair, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from roarline.artifacts.dataset import DatasetFile
from roarline.errors import DataError
from roarline.stages.ground_truth import Kind, Truth

_LARGEST_SHARE = 0.25
Flags = Mapping[str, np.ndarray]


def read_flags(path: Path, classes: int, images: Sequence[str]) -> Flags:
    """Which pairs are difficult, from a file: image name to bool [K].

    A row is an image's name and, for each class in the data set's order, 1 where the pair is difficult, else 0, all
    separated by tabs. Names are compared without folder and suffix.

    Args:
        images: Sample ids of the data set.

    Source: TorchRay ``benchmark/pointing_game.py``.

    Raises:
        DataError: The file can't be read, a row is wrong, or it names no image of the data set.
    """
    flags: dict[str, np.ndarray] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: can't be read ({error}); is evaluate-localization.difficult_subset right?") from error
    for number, line in enumerate(lines, start=1):
        name, *values = line.strip().split("\t")
        if not name:
            continue
        if len(values) != classes or set(values) - {"0", "1"}:
            raise DataError(
                f"{path}:{number}: expected an image's name and 0 or 1 for each of {classes} classes, tab-separated; "
                f"got {len(values)} fields after {name!r}"
            )
        flags[_stem(name)] = np.array(values) == "1"
    if not any(_stem(image) in flags for image in images):
        raise DataError(
            f"{path}: names {len(flags)} images, none of which is of the data set, whose first is {images[0]!r}; is "
            "evaluate-localization.difficult_subset the file of this data set?"
        )
    return flags


def in_difficult_subset(
    dataset: DatasetFile, rows: np.ndarray, targets: np.ndarray, truth: Truth, kind: Kind, flags: Flags | None
) -> np.ndarray:
    """Which rows are difficult: bool [B].

    Args:
        rows: [B] of the data set.
        targets: [B].
        truth: Of these rows.
        kind: What ``truth`` has objects' pixels from.
        flags: Of a file; an image that it doesn't name is difficult for every class. None: a pair is difficult where
            the class's objects cover less than a quarter of the image together and another class is in the image.

    Source: Zhang et al. 2018, arXiv 1608.00507; with flags TorchRay.
    """
    if flags is not None:
        every = np.ones(dataset.num_classes, dtype=bool)
        pairs = zip(rows.tolist(), targets.tolist(), strict=True)
        return np.array([flags.get(_stem(dataset.sample_ids[row]), every)[target] for row, target in pairs], dtype=bool)
    if kind == "segmentation":
        shares = truth.masks.double().mean(dim=(1, 2)).cpu().numpy()
    else:
        pixels = truth.masks.shape[1] * truth.masks.shape[2]
        sides = [boxes[:, 2:] - boxes[:, :2] + 1 for boxes in truth.boxes]
        shares = np.array([(own[:, 0] * own[:, 1]).sum() for own in sides]) / pixels
    return np.asarray((shares < _LARGEST_SHARE) & _others(dataset, rows, targets))


def _others(dataset: DatasetFile, rows: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """bool [B]: the image has a label that is not the target."""
    labels = dataset.labels[rows]
    if labels.ndim == 1:
        return np.asarray(labels != targets)
    others = labels > 0
    others[np.arange(len(rows)), targets] = False
    return np.asarray(others.any(axis=1))


def _stem(name: str) -> str:
    return PurePosixPath(name).stem
