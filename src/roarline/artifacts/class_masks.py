"""``class_masks.h5``: masks of every class on images of every class, of the class-specific matrix. Imports no torch.

Layout: ``/masks`` [N, T, H, W] float32 in [0, 1] (NaN all over where a map is no mask), ``/sample_ids`` [N] str,
``/classes`` [T] int64 and ``/present`` [N, T] bool: which of them each image has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from roarline.artifacts.files import atomic_path
from roarline.errors import ArtifactError

CLASS_MASKS_FILE = "class_masks.h5"


@dataclass(frozen=True)
class ClassMasks:
    """The masks of one image: [T, H, W], the classes that they are of, and those that the image has."""

    sample_id: str
    classes: list[int]
    present: list[int]
    masks: np.ndarray


def write_class_masks(
    path: Path, sample_ids: Sequence[str], classes: Sequence[int], present_NT: np.ndarray, masks_NTHW: np.ndarray
) -> None:
    """Write ``class_masks.h5`` atomically."""
    import h5py

    with atomic_path(path) as partial, h5py.File(partial, "w", libver="v110") as file:
        file.create_dataset("sample_ids", data=list(sample_ids), dtype=h5py.string_dtype())
        file.create_dataset("classes", data=np.asarray(classes, dtype=np.int64))
        file.create_dataset("present", data=np.asarray(present_NT, dtype=bool))
        chunk = (1, 1, *masks_NTHW.shape[2:])
        masks = masks_NTHW.astype(np.float32)
        file.create_dataset("masks", data=masks, chunks=chunk, compression="gzip", compression_opts=1)


def read_class_masks(path: Path) -> Iterator[ClassMasks]:
    """One image after the other.

    Raises:
        ArtifactError: The file is damaged.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            classes, ids = file["classes"][:].tolist(), file["sample_ids"].asstr()[:].tolist()
            for row, sample_id in enumerate(ids):
                present = [label for label, has in zip(classes, file["present"][row], strict=True) if has]
                yield ClassMasks(sample_id, classes, present, np.asarray(file["masks"][row]))
    except (OSError, KeyError, ValueError) as error:
        raise ArtifactError(
            f"{path}: damaged, can't be read as masks of classes ({error}); delete its folder and run again"
        ) from error
