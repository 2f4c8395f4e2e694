"""evaluate-perturbation against the forward passes it needs: reading images and maps, ranks, removal, scores, files.

Metrics that impute pixels, cut images into superpixels or compress them have lines of their own, without the time of
that, which has lines beside it: there the "efficiency" is the time of all bare passes ÷ that of what is timed apart.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.harness import BarePasses, Measurement, Options, alternate, network
from roarline.artifacts.classifier import ClassifierCard
from roarline.artifacts.dataset import DATASET_FILE, DatasetContent, DatasetFile, write_dataset
from roarline.artifacts.maps import MAPS_FILE, MapRows, MapsFile, join_parts, write_part
from roarline.artifacts.score_parts import ScoreParts
from roarline.config.perturbation import EvaluatePerturbation
from roarline.data.loading import ImageReader
from roarline.models.folding import fold_batch_norms
from roarline.stages import perturbation_inputs
from roarline.stages.evaluate_perturbation import (
    Measured,
    Scoring,
    rows_per_part,
    rows_to_score,
    score_rows,
    write_scores,
)

GOAL = 0.9
_CLASSES = 1000
_IMAGES = {"resnet50": 2}  # as long as four of MobileNetV2 take
_SETTINGS: dict[str, dict[str, Any]] = {
    "default metrics": {},
    "pixel sets, perturbations, information": {
        "metrics": ["sensitivity_n", "faithfulness_correlation", "infidelity", "aic", "sic"],
        "sensitivity_n": {"subsets": 10},
        "faithfulness_correlation": {"subsets": 10},
        "infidelity": {"samples": 10},
    },
    "ROAD, IROF, patches": {"metrics": ["road_morf", "road_lerf", "road_combined", "irof", "region_perturbation"]},
}


def measure(options: Options) -> Iterator[Measurement]:
    """Runs for each network: the default settings, 11 fractions and 28 steps; measures that share no curve; regions."""
    perturbation_inputs._superpixels.limit_bytes = 0  # or else the second turn would find the first one's
    small = {"steps": 4, "fractions": [0.0, 0.5, 1.0]} if options.quick else {}
    on_gpu = options.device.startswith("cuda")
    for name in options.networks:
        model = network(name)
        bare = BarePasses(
            model, (3, options.input_px, options.input_px), batch_sizes=options.batch_sizes, device=options.device
        )
        images = 2 if options.quick else 256 if on_gpu else _IMAGES.get(name, 4)
        for setting, metrics in _SETTINGS.items():
            settings = EvaluatePerturbation.model_validate({**small, **metrics})
            with (
                tempfile.TemporaryDirectory() as folder,
                _Run(Path(folder), model, name, images, settings, options) as run,
            ):
                measurement = Measurement(
                    "perturbation",
                    name,
                    f"{setting}, {options.input_px} px",
                    images,
                    images * run.passes_an_image,
                    bare.kind,
                    bare.choice,
                    GOAL,
                )
                alternate(measurement, run, bare, options)
                yield from _timed_apart(measurement, run.apart[1 : 1 + options.turns])  # the first was untimed


def _timed_apart(measurement: Measurement, apart: list[dict[str, float]]) -> Iterator[Measurement]:
    """The measurement without what is timed apart, and a measurement of each of that."""
    whole = list(measurement.ours_s)
    measurement.ours_s = [spent - sum(seconds.values()) for spent, seconds in zip(whole, apart, strict=True)]
    yield measurement
    for name in sorted({name for seconds in apart for name in seconds}):
        ours = [seconds[name] for seconds in apart]
        setting = f"of it {name}, timed apart"
        yield replace(measurement, setting=setting, goal=None, ours_s=ours, bare_s=list(measurement.bare_s))


class _Run:
    """The stage's work on packed random images and random maps, without loading the network."""

    def __init__(
        self, folder: Path, model: nn.Module, arch: str, images: int, settings: EvaluatePerturbation, options: Options
    ) -> None:
        side, generator = options.input_px, np.random.default_rng(0)
        ids, mean, std = [f"{index:05d}" for index in range(images)], np.full(3, 0.5), np.full(3, 0.25)
        names = [str(index) for index in range(_CLASSES)]
        targets = np.arange(images) % _CLASSES
        write_dataset(
            folder / DATASET_FILE,
            DatasetContent(
                "random", names, multi_label=False, sample_ids=ids, split=np.full(images, 2), labels=targets, mean=mean,
                std=std, images=generator.integers(0, 256, (images, 3, side, side), dtype=np.uint8),
            ),
        )  # fmt: skip
        values = generator.normal(size=(images, side, side)).astype(np.float32)
        write_part(folder / "part.h5", MapRows(ids, targets, values, np.zeros((images, _CLASSES), np.float32)))
        join_parts(folder / MAPS_FILE, [folder / "part.h5"], {})
        card = ClassifierCard(
            arch=f"torchvision:{arch}", params={}, class_names=names, multi_label=False, input_size=[side, side],
            mean=mean.tolist(), std=std.tolist(), best_epoch=None, epochs=0, validation_accuracy=None,
            test_accuracy=None, parameters_count=0,
        )  # fmt: skip
        parameters: dict[str, Any] = {**settings.model_dump(mode="json"), "sign": "signed", "seed": 0}
        self._folder, self._side = folder, side
        self.apart: list[dict[str, float]] = []
        self._dataset, self._maps = DatasetFile(folder / DATASET_FILE), MapsFile(folder / MAPS_FILE)
        self._reader = ImageReader(self._dataset, None)
        self._measured = Measured.of(parameters, side * side)
        self._scoring = Scoring(
            model, card, self._measured, parameters, mean.tolist(), torch.device(options.device),
            folded=fold_batch_norms(model, (3, side, side)),
        )  # fmt: skip

    @property
    def passes_an_image(self) -> int:
        """Altered images of each image, shared by all metrics; measures beside the curves need the untouched one."""
        measures = sum(measure.passes for measure in self._measured.measures)
        return len(self._measured.altered.removals) + measures + bool(measures)

    def __call__(self) -> None:
        shutil.rmtree(self._folder / "parts", ignore_errors=True)
        rows = rows_to_score(self._dataset, self._maps, None, 0)
        parts = ScoreParts(
            self._folder / "parts",
            len(rows),
            rows_per_part(self._side, self._side),
            len(self._measured.altered.removals),
            len(self._measured.columns),
        )
        values = score_rows(self._scoring, rows, self._reader, self._maps, parts, lambda done, total, unit: None)
        write_scores(self._folder, rows, values, self._measured, "probability")
        self.apart.append(self._scoring.removal.watch.take())

    def __enter__(self) -> _Run:
        return self

    def __exit__(self, *error: object) -> None:
        self._reader.close()
        self._maps.close()
        self._dataset.close()
