"""A toy data set, maps and jobs for train-cls and evaluate-roar, published with the artifacts' own writers.

Two classes of noise images; class 0 has a bright patch at the upper left, class 1 at the lower right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from roarline.artifacts.dataset import DATASET_FILE, SPLITS, DatasetContent, write_dataset
from roarline.artifacts.keys import artifact_key
from roarline.artifacts.maps import MAPS_FILE, MapRows, join_parts, write_part
from roarline.artifacts.store import Artifact, Store
from roarline.execution.run_job import run_job
from roarline.stages.job import Context, Job

SIDE = 6
COUNTS = {"train": 60, "validation": 20, "test": 30}
TRAINING = {"epochs": 3, "batch_size": 16, "optimizer": {"name": "adam", "lr": 0.02}}


def toy_content(channels: int = 1, *, multi_label: bool = False, counts: Mapping[str, int] = COUNTS) -> DatasetContent:
    """Images, ids, labels and splits, in a mixed order."""
    rng = np.random.default_rng(0)
    split = np.concatenate([np.full(counts.get(name, 0), index) for index, name in enumerate(SPLITS)])
    split = rng.permutation(split).astype(np.uint8)
    has = rng.random((len(split), 2)) < 0.5 if multi_label else np.eye(2, dtype=bool)[rng.integers(0, 2, len(split))]
    images = rng.integers(20, 120, (len(split), channels, SIDE, SIDE)).astype(np.uint8)
    images[has[:, 0], :, :2, :2] = 250
    images[has[:, 1], :, -2:, -2:] = 250
    train = images[split == 0] / 255 if (split == 0).any() else None
    return DatasetContent(
        name="toy",
        class_names=["upper", "lower"],
        multi_label=multi_label,
        sample_ids=[f"toy/{index:04d}" for index in range(len(split))],
        split=split,
        labels=has.astype(np.uint8) if multi_label else has.argmax(1).astype(np.int64),
        mean=train.mean((0, 2, 3)) if train is not None else None,
        std=train.std((0, 2, 3)) if train is not None else None,
        images=images,
    )


def patch_maps(content: DatasetContent, rows: np.ndarray) -> np.ndarray:
    """Perfect maps: highest on the patch of each image's (first) class, noise below elsewhere."""
    rng = np.random.default_rng(1)
    first = content.labels[rows].argmax(1) if content.multi_label else content.labels[rows]
    maps = rng.random((len(rows), SIDE, SIDE)).astype(np.float32)
    maps[first == 0, :2, :2] += 1
    maps[first == 1, -2:, -2:] += 1
    return maps


def random_maps(content: DatasetContent, rows: np.ndarray) -> np.ndarray:
    """Maps that know nothing."""
    return np.random.default_rng(2).random((len(rows), SIDE, SIDE)).astype(np.float32)


@dataclass
class Toy:
    """A store with a data set, and what can be made from it."""

    store: Store
    content: DatasetContent = field(default_factory=toy_content)
    context: Context = field(init=False)

    def __post_init__(self) -> None:
        self.context = Context(self.store)
        with self._writer("prepare-data", self.dataset_key) as writer:
            if writer is not None:
                write_dataset(writer.out / DATASET_FILE, self.content)

    @property
    def dataset_key(self) -> str:
        """Follows from what is in it, as a fingerprint would make it."""
        shape = list(self.content.images.shape) if self.content.images is not None else []
        return artifact_key("prepare-data", 1, {"toy": shape, "multi_label": self.content.multi_label}, {})

    def rows(self, split: str) -> np.ndarray:
        """Row numbers of a split."""
        return np.flatnonzero(self.content.split == SPLITS.index(split))

    def publish_maps(
        self,
        name: str,
        make: Callable[[DatasetContent, np.ndarray], np.ndarray] = patch_maps,
        change: Callable[[MapRows], MapRows] = lambda rows: rows,
    ) -> dict[str, str]:
        """Maps of every split; split to key."""
        keys = {}
        for split in SPLITS:
            rows = self.rows(split)
            if not len(rows):
                continue
            keys[split] = artifact_key("extract-attribution-maps", 1, {"method": name, "split": split}, {})
            content = MapRows(
                [self.content.sample_ids[row] for row in rows], np.zeros(len(rows), np.int64),
                make(self.content, rows), np.zeros((len(rows), 2), np.float32),
            )  # fmt: skip
            with self._writer("extract-attribution-maps", keys[split]) as writer:
                if writer is not None:
                    write_part(writer.parts / "0.h5", change(content))
                    join_parts(writer.out / MAPS_FILE, [writer.parts / "0.h5"], {"method": name, "split": split})
        return keys

    def cell(self, maps: Mapping[str, str] | None = None, **changes: Any) -> Job:
        """A job of evaluate-roar as the plan makes them; without maps the reference."""
        parameters: dict[str, Any] = {
            "model": {"arch": "small_cnn", "params": {"width": 4}},
            "training": TRAINING,
            "normalization": "dataset",
            "engine": "single",
            "seed": 0,
            "threads": 1,
            "repeat": 0,
            "probe": False,
            "mode": "reference" if maps is None else "roar",
            "removed_fraction": 0.0 if maps is None else 4 / SIDE**2,
        }
        inputs = {"dataset": ("prepare-data", self.dataset_key)}
        if maps is not None:
            parameters |= {
                "sign": "signed", "fill": "mean", "ties": "random", "merge_normalization": "min_max",
                "compat": "corrected",
            }  # fmt: skip
            inputs |= {f"maps_{split}": ("extract-attribution-maps", key) for split, key in maps.items()}
        return self._job("evaluate-roar", {**parameters, **changes}, inputs)

    def classifier(self, *, local: Mapping[str, Any] | None = None, **changes: Any) -> Job:
        """A job of train-cls."""
        parameters = {
            "model": {"arch": "small_cnn", "params": {"width": 4}, "weights": None},
            "training": TRAINING,
            "normalization": "dataset",
            "seed": 0,
            "threads": 1,
            **changes,
        }
        return self._job("train-cls", parameters, {"dataset": ("prepare-data", self.dataset_key)}, local or {})

    def run(self, job: Job) -> Artifact:
        """Make the artifact, or find it made."""
        run_job(job, self.context)
        return self.store.open(job.stage, job.key)

    def _job(
        self, stage: str, parameters: dict[str, Any], inputs: dict[str, tuple[str, str]], local: Mapping[str, Any] = {}
    ) -> Job:
        key = artifact_key(stage, 1, parameters, {role: key for role, (_, key) in inputs.items()})
        return Job(stage, 1, key, f"toy {stage}", parameters, inputs, dict(local))

    def _writer(self, stage: str, key: str) -> Any:
        return self.store.writer(stage, 1, key, f"toy {stage}", {}, {})


def new_toy(folder: Path, **content: Any) -> Toy:
    """A toy in a folder of its own."""
    return Toy(Store(folder), toy_content(**content))
