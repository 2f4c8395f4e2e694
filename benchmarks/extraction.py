"""extract-attribution-maps against the bare passes of each method: reading packed pixels, methods, checks, HDF5 parts and the join."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.harness import BarePasses, Measurement, Options, alternate, network
from roarline.artifacts.classifier import ClassifierCard
from roarline.artifacts.dataset import DATASET_FILE, DatasetContent, DatasetFile, write_dataset
from roarline.artifacts.maps import MAPS_FILE, join_parts
from roarline.attribution.call import find_method
from roarline.config.methods import METHODS
from roarline.data.loading import ImageReader
from roarline.stages.extract_attribution_maps import Extraction, extract, target_rows

GOAL = 0.85
_CAM_LAYERS = {"mobilenet_v2": "features", "resnet50": "layer4"}
_BATCH_SIZES = (1, 2, 4, 8, 16)


def measure(options: Options) -> Iterator[Measurement]:
    """One measurement for each network and method."""
    for name in options.networks:
        model = network(name)
        shape = (3, options.input_px, options.input_px)
        sizes = (4,) if options.quick else options.batch_sizes if options.device != "cpu" else _BATCH_SIZES
        bare = BarePasses(model, shape, gradient=True, batch_sizes=sizes, device=options.device)
        cam = _BareCamPasses(model, shape, _CAM_LAYERS[name], batch_sizes=sizes, device=options.device)
        images = 8 if options.quick else 32
        for method, params, count, passes, against in (
            ("gradient", {}, images, images, bare),
            ("guided_backprop", {}, images, images, bare),
            ("gradcam", {"layer": _CAM_LAYERS[name]}, images, images, cam),
            ("integrated_gradients", {"steps": 16}, images // 8, 16 * (images // 8), bare),
            ("smoothgrad", {"samples": 16}, images // 8, 16 * (images // 8), bare),
        ):
            setting = f"{method}, {options.input_px} px"
            measurement = Measurement("extraction", name, setting, count, passes, against.kind, against.choice, GOAL)
            with tempfile.TemporaryDirectory() as folder:
                run = _Run(Path(folder), model, method, params, count, options)
                yield alternate(measurement, run, against, options)
                run.close()


class _BareCamPasses(BarePasses):
    """Forward passes, recorded from one layer on, and the backward passes to that layer."""

    def __init__(self, model: nn.Module, shape: Sequence[int], layer: str, **settings: Any) -> None:
        self._layer = layer
        super().__init__(model, shape, gradient=True, **settings)

    @property
    def kind(self) -> str:
        return f"forward + backward to {self._layer}"

    def _backward(self, images: Tensor) -> None:
        seen: list[Tensor] = []

        def start(module: nn.Module, args: Any, output: Tensor) -> Tensor:
            seen.append(output.detach().requires_grad_())
            return seen[0]

        handle = self._model.get_submodule(self._layer).register_forward_hook(start)
        with torch.enable_grad(), self._precision():
            score = self._model(images)[:, 0].sum()
        handle.remove()
        torch.autograd.grad(score, seen[0])


class _Run:
    """The stage's work on packed random images, without loading the network."""

    def __init__(
        self, folder: Path, model: nn.Module, method: str, params: dict[str, Any], images: int, options: Options
    ) -> None:
        generator = np.random.default_rng(0)
        side = options.input_px
        labels = np.arange(images) % 1000
        write_dataset(
            folder / DATASET_FILE,
            DatasetContent(
                name="random", class_names=[str(index) for index in range(1000)], multi_label=False,
                sample_ids=[f"{index:05d}" for index in range(images)], split=np.full(images, 2), labels=labels,
                mean=np.full(3, 0.5), std=np.full(3, 0.25),
                images=generator.integers(0, 256, (images, 3, side, side), dtype=np.uint8),
            ),
        )  # fmt: skip
        card = ClassifierCard(
            arch="random", params={}, class_names=[str(index) for index in range(1000)], multi_label=False,
            input_size=[side, side], mean=[0.5] * 3, std=[0.25] * 3, best_epoch=None, epochs=0, validation_accuracy=None,
            test_accuracy=None, parameters_count=0,
        )  # fmt: skip
        parameters = {"channels": METHODS[method].channels, "seed": 0, "dtype": "float32", "precision": "float32"}
        self._folder, self._size = folder, (side, side)
        self._dataset = DatasetFile(folder / DATASET_FILE)
        self._reader = ImageReader(self._dataset, None)
        self._rows = target_rows(self._dataset, "test", "predicted")
        self._extraction = Extraction(
            model, card, find_method(method, params), parameters, torch.device(options.device)
        )

    def __call__(self) -> None:
        shutil.rmtree(self._folder / "parts", ignore_errors=True)
        parts = extract(self._extraction, self._reader, self._rows, self._size, self._folder / "parts")
        join_parts(self._folder / MAPS_FILE, parts, {})

    def close(self) -> None:
        """Close the files."""
        self._reader.close()
        self._dataset.close()
