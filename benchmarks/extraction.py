"""extract-attribution-maps against the bare passes of each method, as jobs run it: from packed pixels to an artifact.

Packed pixels are read, maps computed, checked and written in parts, the parts joined, and the file is published: put on
disk, its SHA-256 and the digest of its content taken, the manifest written. Publishing is within the line's time, and
timed apart in a line below it, whose "efficiency" is the time of all bare passes ÷ that of publishing. Left out are
loading the network and what starts and ends a job.

Beside them, on the first network, captum's own methods on resident images, without files, at roarline's pass size: why
roarline has a gradient family of its own.
"""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import captum.attr
import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.harness import BarePasses, Measurement, Options, alternate, network
from roarline.artifacts.classifier import ClassifierCard
from roarline.artifacts.dataset import DATASET_FILE, DatasetContent, DatasetFile, write_dataset
from roarline.artifacts.maps import MAPS_FILE, join_parts
from roarline.artifacts.store import Store
from roarline.attribution.call import find_method, network_for
from roarline.config.methods import METHODS
from roarline.data.loading import ImageReader
from roarline.models.passes import pass_size
from roarline.stages.extract_attribution_maps import STAGE, Extraction, extract
from roarline.stages.target_rows import target_rows

CAM_LAYERS = {"mobilenet_v2": "features", "resnet50": "layer4"}
CPU_BATCH_SIZES = (1, 2, 4, 8, 16)
_CLASSES, _STEPS = 1000, 16


@dataclass(frozen=True)
class Sizes:
    """How many images a turn takes: seconds of work, and little beside it that comes once.

    Attributes:
        images: For methods of a pass back to the input.
        many: For methods of little more than a forward pass.
        few: For methods of many passes an image.
    """

    images: int
    many: int
    few: int

    @classmethod
    def of(cls, options: Options) -> Sizes:
        """By device: a GPU is some hundred times as fast."""
        if options.quick:
            return cls(8, 8, 1)
        return cls(4_096, 4_096, 256) if options.on_gpu else cls(32, 288, 4)


def goal(options: Options) -> float:
    """The efficiency that the project asks for."""
    return 0.9 if options.on_gpu else 0.85


def measure(options: Options) -> Iterator[Measurement]:
    """One measurement for each network and method."""
    images = Sizes.of(options)
    sizes = options.batch_sizes if options.quick or options.on_gpu else CPU_BATCH_SIZES
    shape = (3, options.input_px, options.input_px)
    for name in options.networks:
        model, layer = network(name), CAM_LAYERS[name]
        to_input = BarePasses(model, shape, gradient=True, batch_sizes=sizes, device=options.device)
        to_layer = BareCamPasses(model, shape, layer, batch_sizes=sizes, device=options.device)
        cases: list[tuple[str, dict[str, Any], int, int, BarePasses]] = [
            ("gradient", {}, images.images, 1, to_input),
            ("guided_backprop", {}, images.images, 1, to_input),
            ("gradcam", {"layer": layer}, images.many, 1, to_layer),
            ("integrated_gradients", {"steps": _STEPS}, images.few, _STEPS, to_input),
            ("smoothgrad", {"samples": _STEPS}, images.few, _STEPS, to_input),
        ]
        for method, params, count, passes, bare in cases:
            with tempfile.TemporaryDirectory() as folder:
                run = ExtractionRun(Path(folder), model, method, params, count, options)
                line = _line("extraction", name, method, count, passes, bare, goal(options))
                yield alternate(line, run, bare, options)
                yield of_it_publishing(line, run, options)
                run.close()
        if name == options.networks[0]:
            for method, count, passes, peer in _peers(model, layer, images, options):
                bare = to_layer if method == "gradcam" else to_input
                yield alternate(_line("captum", name, method, count, passes, bare, None), peer, bare, options)


def _line(
    hot_path: str, name: str, method: str, images: int, passes: int, bare: BarePasses, goal: float | None
) -> Measurement:
    return Measurement(hot_path, name, method, images, images * passes, bare.kind, bare.choice, goal)


def of_it_publishing(line: Measurement, run: ExtractionRun, options: Options) -> Measurement:
    """The part of a measurement's turns in which artifacts were published."""
    seconds = run.publishing_s[1 : 1 + options.turns]  # the first run was untimed
    setting = f"{line.setting}: of it publishing, timed apart"
    return replace(line, setting=setting, goal=None, ours_s=seconds, bare_s=list(line.bare_s))


class BareCamPasses(BarePasses):
    """Forward passes, recorded from one layer on, and the backward passes to that layer."""

    def __init__(self, model: nn.Module, shape: Sequence[int], layer: str, **settings: Any) -> None:
        self._layer = layer
        super().__init__(model, shape, gradient=True, **settings)

    @property
    def kind(self) -> str:
        """What one pass is."""
        return f"forward + backward to {self._layer}"

    def _backward(self, images: Tensor) -> None:
        seen: list[Tensor] = []

        def start_recording(module: nn.Module, args: Any, output: Tensor) -> Tensor:
            seen.append(output.detach().requires_grad_())
            return seen[0]

        handle = self._model.get_submodule(self._layer).register_forward_hook(start_recording)
        with torch.enable_grad(), self._precision():
            score = self._model(images)[:, 0].sum()
        handle.remove()
        torch.autograd.grad(score, seen[0])


class ExtractionRun:
    """The stage's work on packed random images, without loading the network; each run publishes an artifact.

    Attributes:
        publishing_s: Of each run.
    """

    def __init__(
        self, folder: Path, model: nn.Module, method: str, params: dict[str, Any], images: int, options: Options
    ) -> None:
        side, names = options.input_px, [str(index) for index in range(_CLASSES)]
        content = DatasetContent(
            name="random", class_names=names, multi_label=False,
            sample_ids=[f"{index:05d}" for index in range(images)], split=np.full(images, 2),
            labels=np.zeros(images, dtype=np.int64), mean=np.full(3, 0.5), std=np.full(3, 0.25),
            images=np.random.default_rng(0).integers(0, 256, (images, 3, side, side), dtype=np.uint8),
        )  # fmt: skip
        write_dataset(folder / DATASET_FILE, content)
        card = ClassifierCard(
            arch="torchvision:random", params={}, class_names=names, multi_label=False, input_size=[side, side],
            mean=[0.5] * 3, std=[0.25] * 3, best_epoch=None, epochs=0, validation_accuracy=None, test_accuracy=None,
            parameters_count=0,
        )  # fmt: skip
        parameters = {"channels": METHODS[method].channels, "seed": 0, "dtype": "float32", "precision": "float32"}
        self._store, self._size = Store(folder / "artifacts"), (side, side)
        self.publishing_s: list[float] = []
        self._dataset = DatasetFile(folder / DATASET_FILE)
        self._reader = ImageReader(self._dataset, None)
        self._rows = target_rows(self._dataset, "test", "predicted")
        call = find_method(method, params)
        # A copy, since the stage moves its network to its own memory format.
        network = network_for(call, copy.deepcopy(model), (3, *self._size))
        self._extraction = Extraction(network, card, call, parameters, torch.device(options.device))

    def __call__(self) -> None:
        key = f"{len(self.publishing_s):016d}".ljust(64, "0")  # another artifact each time: jobs delete none
        with self._store.writer(STAGE, 1, key, "benchmark", {}, {}) as writer:
            if writer is None:
                raise RuntimeError(f"{key} is there already")
            join_parts(writer.out / MAPS_FILE, self.extract(writer.parts), {})
            end = time.perf_counter()
        self.publishing_s.append(time.perf_counter() - end)

    def extract(self, parts: Path) -> list[Path]:
        """Compute the parts that are not there, without joining them."""
        return extract(self._extraction, self._reader, self._rows, self._size, parts)

    def close(self) -> None:
        """Close the files."""
        self._reader.close()
        self._dataset.close()


def _peers(
    model: nn.Module, layer: str, sizes: Sizes, options: Options
) -> Iterator[tuple[str, int, int, Callable[[], object]]]:
    """captum's methods for the predicted class: (name, images, passes an image, run)."""
    model = copy.deepcopy(model).to(options.device)
    side = options.input_px
    batch = pass_size(side, side, torch.device(options.device))
    images, few = sizes.images, sizes.few
    resident = torch.randn(images, 3, side, side, generator=torch.Generator().manual_seed(0)).to(options.device)

    def in_batches(attribute: Callable[[Tensor, Tensor], object], count: int) -> Callable[[], object]:
        def run() -> None:
            for chosen in torch.split(resident[:count], batch):
                with torch.no_grad():
                    predicted = model(chosen).argmax(dim=1)
                attribute(chosen.clone().requires_grad_(), predicted)

        return run

    saliency = captum.attr.Saliency(model)
    cam = captum.attr.LayerGradCam(model, model.get_submodule(layer))
    path = captum.attr.IntegratedGradients(model)
    yield "gradient", images, 1, in_batches(lambda x, y: saliency.attribute(x, target=y, abs=False), images)
    yield "gradcam", images, 1, in_batches(lambda x, y: cam.attribute(x, target=y), images)
    yield (
        "integrated_gradients", few, _STEPS,
        in_batches(lambda x, y: path.attribute(x, target=y, n_steps=_STEPS, internal_batch_size=batch), few),
    )  # fmt: skip
