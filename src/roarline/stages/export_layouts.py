"""export of maps in the layouts that other projects' evaluations read.

wsolevaluation: ``scoremaps/``, an ``.npy`` an image id with values in [0, 1]; where images have several labels, one for
each in a folder of its number, as ``export_ground_truth`` lists them. NN-Explainer: an ``.npz`` an image in
``masks/DATA_CLASSIFIER_METHOD/``, the masks of all its targets merged by the pixelwise maximum, and where images have
several labels ``class_masks/target_class_T/masks_for_class_K/``: for each label T of an image its mask of class K.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from roarline.artifacts.class_masks import read_class_masks
from roarline.artifacts.dataset import DatasetFile
from roarline.artifacts.files import atomic_path
from roarline.artifacts.maps import MapsFile
from roarline.imaging.reduction import Sign, apply_sign
from roarline.stages.export_names import image_id, pair_id, stems
from roarline.stages.mask_reading import as_masks


def masks(
    maps: MapsFile,
    rows: Sequence[int],
    out: Path,
    folder: str,
    *,
    sign: Sign,
    reading: str,
    dataset: DatasetFile | None = None,
) -> Iterator[str]:
    """Write maps as masks in [0, 1].

    Args:
        rows: Of the maps.
        folder: Of NN-Explainer's layout, e.g. ``VOC_vgg16_grad_cam``.
        sign: How the method's values are read.
        reading: How maps become masks, see ``as_masks``.
        dataset: Theirs, which knows whether images have several labels; None: taken to have one.

    Yields:
        One line for each thing that was written.
    """
    several = dataset is not None and dataset.multi_label
    ids = list(dict.fromkeys(maps.sample_ids[row] for row in rows))
    stem_of = dict(zip(ids, stems([image_id(one) for one in ids]), strict=True))
    labels = _labels(dataset, ids) if dataset is not None and several else {}
    merged: dict[str, np.ndarray] = {}
    scored: dict[str, np.ndarray] = {}
    count = 0
    for row in rows:
        sample_id, target = maps.sample_ids[row], int(maps.targets[row])
        mask = _mask(maps, row, sign, reading)
        for found, key in ((merged, sample_id), (scored, pair_id(sample_id, target, multi_label=several))):
            found[key] = np.maximum(found[key], mask) if key in found else mask
        for label in labels.get(sample_id, []):
            place = out / "class_masks" / f"target_class_{label}" / f"masks_for_class_{target}"
            _npz(place / f"{stem_of[sample_id]}.npz", mask)
            count += 1
    for path, mask in scored.items():
        with atomic_path(out / "scoremaps" / f"{path}.npy") as partial, partial.open("wb") as stream:
            np.save(stream, mask.astype(np.float64))
    for sample_id, mask in merged.items():
        _npz(out / "masks" / folder / f"{stem_of[sample_id]}.npz", mask)
    yield f"{out / 'scoremaps'}: {len(scored)} masks in [0, 1], as wsolevaluation reads them (npy)"
    yield f"{out / 'masks' / folder}: {len(merged)} masks, those of an image merged, as NN-Explainer reads them (npz)"
    if count:
        yield f"{out / 'class_masks'}: {count} masks of single classes, as NN-Explainer reads them (npz)"


def class_masks(path: Path, out: Path) -> Iterator[str]:
    """Write the masks of a class-specific matrix, of every class for each class that an image has.

    Args:
        path: ``class_masks.h5``.

    Yields:
        One line for what was written.
    """
    count, names = 0, [found.sample_id for found in read_class_masks(path)]
    stem_of = dict(zip(names, stems([image_id(one) for one in names]), strict=True))
    for found in read_class_masks(path):
        for label in found.present:
            for of, mask in zip(found.classes, found.masks, strict=True):
                if not np.isnan(mask).any():
                    place = out / "class_masks" / f"target_class_{label}" / f"masks_for_class_{of}"
                    _npz(place / f"{stem_of[found.sample_id]}.npz", mask)
                    count += 1
    yield f"{out / 'class_masks'}: {count} masks of every class, as NN-Explainer reads them (npz)"


def _labels(dataset: DatasetFile, ids: Sequence[str]) -> dict[str, list[int]]:
    places = {sample_id: row for row, sample_id in enumerate(dataset.sample_ids)}
    return {one: np.flatnonzero(dataset.labels[places[one]]).tolist() for one in ids if one in places}


def _mask(maps: MapsFile, row: int, sign: Sign, reading: str) -> np.ndarray:
    values = apply_sign(torch.from_numpy(maps.maps([row])), sign)
    mask: np.ndarray = as_masks(values.amax(dim=1) if values.ndim == 4 else values, reading)[0].numpy()
    return mask


def _npz(path: Path, mask: np.ndarray) -> None:
    with atomic_path(path) as partial, partial.open("wb") as stream:
        np.savez_compressed(stream, mask.astype(np.float32))
