"""``features.h5``: what rows give to scores that are no mean over rows, but a function of means. Imports no torch.

Layout: ``/sample_ids`` [M] str, ``/targets`` [M] int64; for each such score a group named after its metric with
``values`` [M, F] float32, NaN in all of a row that failed, ``statuses`` [M] str (``ok`` or why it failed), and, where
rows are averaged within groups before the groups are, ``groups`` [M] int64. Attributes of a group: statistic (a name in
``roarline.evaluation.statistics_of_means.STATISTICS``), setting, ground_truth (the kind, empty where none is needed).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from roarline.artifacts.files import atomic_path
from roarline.errors import ArtifactError

FEATURES_FILE = "features.h5"
_SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Features:
    """One score's features.

    Attributes:
        values: float [M, F], as read float32; NaN where a row failed.
        statuses: [M], ``ok`` or why a row failed.
        statistic: Name of the function of means.
        setting: As in score tables.
        groups: int64 [M], or None where all rows count alike.
        ground_truth: Kind of ground truth that the metric was judged by; empty where it needs none.
    """

    values: np.ndarray
    statuses: list[str]
    statistic: str
    setting: str = ""
    groups: np.ndarray | None = None
    ground_truth: str = ""


@dataclass(frozen=True)
class FeatureTable:
    """Rows by sample id, then target, as ``score_table.ScoreTable`` has them."""

    sample_ids: list[str]
    targets: np.ndarray
    metrics: dict[str, Features]


def write_features(path: Path, sample_ids: Sequence[str], targets: np.ndarray, metrics: Mapping[str, Features]) -> None:
    """Write ``features.h5`` atomically.

    Raises:
        ArtifactError: Columns differ in length.
    """
    import h5py

    with atomic_path(path) as partial, h5py.File(partial, "w", libver="v110") as file:
        file.attrs["schema_version"] = _SCHEMA_VERSION
        file.create_dataset("sample_ids", data=list(sample_ids), dtype=h5py.string_dtype())
        file.create_dataset("targets", data=np.asarray(targets, dtype=np.int64))
        for name, features in metrics.items():
            if not len(features.values) == len(features.statuses) == len(sample_ids) == len(targets):
                raise ArtifactError(f"{path}: {name} has {len(features.values)} rows, expected {len(sample_ids)}")
            group = file.create_group(name)
            values = features.values.astype(np.float32)
            group.create_dataset("values", data=values, **({"compression": "gzip"} if values.size else {}))
            group.create_dataset("statuses", data=features.statuses, dtype=h5py.string_dtype())
            if features.groups is not None:
                group.create_dataset("groups", data=features.groups.astype(np.int64))
            group.attrs["statistic"] = features.statistic
            group.attrs["setting"] = features.setting
            group.attrs["ground_truth"] = features.ground_truth


def read_features(path: Path) -> FeatureTable:
    """Read ``features.h5``.

    Raises:
        ArtifactError: The file is damaged, or of another schema.
    """
    with _opened(path) as file:
        ids = [str(value) for value in file["sample_ids"].asstr()[:]]
        targets = np.asarray(file["targets"][:])
        # By id, then target: the order in which score tables are read.
        order = np.lexsort((targets, np.array(ids, dtype=str))) if ids else np.empty(0, dtype=np.int64)
        metrics = {
            name: Features(
                np.asarray(item["values"][:], dtype=np.float32)[order],
                [str(status) for status in item["statuses"].asstr()[:][order]],
                str(item.attrs["statistic"]),
                str(item.attrs["setting"]),
                np.asarray(item["groups"][:])[order] if "groups" in item else None,
                _ground_truth(item),
            )
            for name, item in _metrics(file)
        }
    return FeatureTable([ids[row] for row in order], targets[order], metrics)


def read_feature_ground_truths(path: Path) -> dict[str, str]:
    """Metric to the kind of ground truth that it was judged by; empty where it needs none.

    Raises:
        ArtifactError: The file is damaged, or of another schema.
    """
    with _opened(path) as file:
        return {name: _ground_truth(item) for name, item in _metrics(file)}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            version = int(file.attrs["schema_version"])
            if version != _SCHEMA_VERSION:
                raise ArtifactError(f"{path}: feature schema {version}, this roarline reads {_SCHEMA_VERSION}")
            yield file
    except (OSError, KeyError, ValueError) as error:
        raise ArtifactError(
            f"{path}: damaged, can't be read as features ({error}); delete its folder and run again"
        ) from error


def _metrics(file: Any) -> list[tuple[str, Any]]:
    import h5py

    return [(name, item) for name, item in file.items() if isinstance(item, h5py.Group)]


def _ground_truth(item: Any) -> str:
    return str(item.attrs.get("ground_truth", ""))
