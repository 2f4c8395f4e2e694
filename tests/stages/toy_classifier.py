"""Small ``dataset`` and ``classifier`` artifacts for tests of the stages that read them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from roarline.artifacts.classifier import CURVE_FILE, WEIGHTS_FILE, ClassifierCard
from roarline.artifacts.dataset import DATASET_FILE, DatasetContent, write_dataset
from roarline.artifacts.keys import artifact_key
from roarline.artifacts.store import Artifact, Store
from roarline.models.build import build
from roarline.stages.job import Job


def make_artifact(store: Store, stage: str, parameters: Mapping[str, Any], write: Callable[[Path], None]) -> Artifact:
    """Publish an artifact whose files ``write`` puts into a folder."""
    key = artifact_key(stage, 1, parameters, {})
    with store.writer(stage, 1, key, stage, parameters, {}) as writer:
        if writer is not None:
            write(writer.out)
    return store.open(stage, key)


def toy_dataset(
    store: Store, *, count: int = 12, side: int = 16, classes: int = 4, split: np.ndarray | None = None,
    labels: np.ndarray | None = None, boxes: np.ndarray | None = None, segmentation: np.ndarray | None = None,
) -> Artifact:  # fmt: skip
    """Random RGB images; all in the test split unless said otherwise. Labels [N, K] make it multi-label."""
    rng = np.random.default_rng(7)
    chosen = np.full(count, 2) if split is None else split
    known = rng.integers(0, classes, count) if labels is None else labels

    def write(folder: Path) -> None:
        content = DatasetContent(
            name="toy", class_names=[f"class {index}" for index in range(classes)], multi_label=known.ndim == 2,
            sample_ids=[f"image/{index:04d}" for index in range(count)], split=chosen, labels=known,
            mean=np.full(3, 0.5), std=np.full(3, 0.25),
            images=rng.integers(0, 256, (count, 3, side, side), dtype=np.uint8), boxes=boxes, segmentation=segmentation,
        )  # fmt: skip
        write_dataset(folder / DATASET_FILE, content)

    recipe = {"count": count, "side": side, "classes": classes, "split": chosen.tolist(), "labels": known.tolist()}
    recipe |= {"boxes": None if boxes is None else boxes.tolist(), "segmentation": segmentation is not None}
    return make_artifact(store, "prepare-data", recipe, write)


def toy_classifier(
    store: Store, *, side: int = 16, classes: int = 4, arch: str = "small_cnn", params: Mapping[str, Any] | None = None,
    multi_label: bool = False, resize_px: int | None = None, crop_px: int | None = None,
    stretched: bool | None = None,
) -> Artifact:  # fmt: skip
    """An untrained network."""
    settings = dict(params if params is not None else {"width": 4})

    def write(folder: Path) -> None:
        model = build(arch, settings, classes, input_size=(side, side), seed=5)
        with torch.no_grad():  # so that predictions differ between images
            for parameter in model.parameters():
                parameter.mul_(2)
        save_file(model.state_dict(), folder / WEIGHTS_FILE)
        ClassifierCard(
            arch=arch, params=settings, class_names=[f"class {index}" for index in range(classes)],
            multi_label=multi_label, input_size=[side, side], mean=[0.5] * 3, std=[0.25] * 3, best_epoch=None, epochs=0,
            validation_accuracy=None, test_accuracy=None, parameters_count=sum(p.numel() for p in model.parameters()),
            resize_px=resize_px, crop_px=crop_px, stretched=stretched,
        ).write(folder)  # fmt: skip
        (folder / CURVE_FILE).write_text("epoch\n")

    recipe = {"side": side, "classes": classes, "arch": arch, "params": settings, "multi_label": multi_label}
    recipe |= {"resize_px": resize_px, "crop_px": crop_px, "stretched": stretched}
    return make_artifact(store, "train-cls", recipe, write)


def job_for(stage: str, parameters: Mapping[str, Any], inputs: Mapping[str, Artifact]) -> Job:
    """A job that reads these artifacts."""
    keys = {role: (artifact.manifest.stage, artifact.manifest.key) for role, artifact in inputs.items()}
    key = artifact_key(stage, 1, parameters, {role: key for role, (_, key) in keys.items()})
    return Job(stage, 1, key, stage, dict(parameters), keys)
