"""``curves.h5`` of a ``scores`` artifact: every row's curve of the classifier's score. Imports no torch.

Layout (M rows, a row is an (image, target class) pair, as in the maps): ``/sample_ids`` [M] str, ``/targets`` [M]
int64, and for each curve that was needed (morf, lerf, insertion, deletion, road_morf, road_lerf, irof,
region_perturbation_<side of a patch>) a group with ``fractions`` [S] float64, of pixels, superpixels or patches, and
``scores`` [M, S] float32. A row that failed holds NaN; ``scores.parquet`` says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from roarline.artifacts.files import atomic_path
from roarline.errors import ArtifactError

CURVES_FILE = "curves.h5"
_SCHEMA_VERSION = 1


@dataclass
class Curves:
    """What is in the file; ``by_metric`` is metric to (fractions [S] float64, scores [M, S] float32)."""

    sample_ids: list[str]
    targets: np.ndarray
    by_metric: dict[str, tuple[np.ndarray, np.ndarray]]


def write_curves(
    path: Path,
    sample_ids: Sequence[str],
    targets: np.ndarray,
    by_metric: Mapping[str, tuple[np.ndarray, np.ndarray]],
) -> None:
    """Write ``curves.h5`` atomically.

    Raises:
        ArtifactError: The scores of a metric are not [M, S].
    """
    import h5py

    with atomic_path(path) as partial, h5py.File(partial, "w", libver="v110") as file:
        file.attrs["schema_version"] = _SCHEMA_VERSION
        file.create_dataset("sample_ids", data=list(sample_ids), dtype=h5py.string_dtype())
        file.create_dataset("targets", data=np.asarray(targets, dtype=np.int64))
        for metric, (fractions, scores) in by_metric.items():
            if scores.shape != (len(sample_ids), len(fractions)):
                raise ArtifactError(
                    f"{path}: curves of {metric} have shape {list(scores.shape)}, "
                    f"expected [{len(sample_ids)}, {len(fractions)}]"
                )
            file.create_dataset(f"{metric}/fractions", data=np.asarray(fractions, dtype=np.float64))
            file.create_dataset(f"{metric}/scores", data=np.asarray(scores, dtype=np.float32))


def read_curves(path: Path) -> Curves:
    """Read ``curves.h5``.

    Raises:
        ArtifactError: The file is damaged or of another schema.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            version = int(file.attrs.get("schema_version", _SCHEMA_VERSION))
            if version != _SCHEMA_VERSION:
                raise ArtifactError(f"{path}: curves schema {version}, this roarline reads {_SCHEMA_VERSION}")
            return Curves(
                sample_ids=[str(value) for value in file["sample_ids"].asstr()[:]],
                targets=np.asarray(file["targets"][:]),
                by_metric={
                    name: (np.asarray(group["fractions"][:]), np.asarray(group["scores"][:]))
                    for name, group in file.items()
                    if isinstance(group, h5py.Group)
                },
            )
    except (OSError, KeyError) as error:
        raise ArtifactError(f"{path}: can't be read as curves ({error}); delete its folder and run again") from error
