"""RISE and occlusion against the bare forward passes they need, and RISE against TorchRay's way of running it.

The last line of the first network is no efficiency but a ratio of times, turn by turn in the same run: an image at a
time, with the masks drawn and enlarged anew for each, ÷ roarline's RISE.
"""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.extraction import ExtractionRun
from benchmarks.harness import BarePasses, Measurement, Options, alternate, network

GOAL = 0.9
_CELLS, _PEER_BATCH = 7, 32


def measure(options: Options) -> Iterator[Measurement]:
    """Two measurements for each network, a third for the first."""
    images, masks = (1, 20) if options.quick else (64 if options.on_gpu else 2, 128)
    side = options.input_px
    window = math.ceil(side / 7)
    windows = (math.ceil((side - window) / math.ceil(window / 2)) + 1) ** 2
    for name in options.networks:
        model = network(name)
        sizes = options.batch_sizes if options.on_gpu or options.quick else (4, 8, 16, 32)
        bare = BarePasses(model, (3, side, side), batch_sizes=sizes, device=options.device)
        cases: list[tuple[str, dict[str, Any], int]] = [
            ("rise", {"masks": masks}, masks),
            ("occlusion", {}, windows),
        ]
        for method, params, altered in cases:
            # One pass more an image: the unchanged one, for its prediction.
            line = Measurement("extraction", name, method, images, images * (altered + 1), bare.kind, bare.choice, GOAL)
            with tempfile.TemporaryDirectory() as folder:
                run = ExtractionRun(Path(folder), model, method, params, images, options)
                yield alternate(line, run, bare, options)
                run.close()
        if name != options.networks[0]:
            continue
        line = Measurement(
            "rise: time of TorchRay's way ÷ ours", name, "rise", images, images * (masks + 1), bare.kind,
            f"batch {_PEER_BATCH}, contiguous, an image at a time", None,
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            run = ExtractionRun(Path(folder), model, "rise", {"masks": masks}, images, options)
            peer = _ImageAtATime(model, images, masks, options)
            yield alternate(line, run, lambda passes, peer=peer: peer(), options)
            run.close()


class _ImageAtATime:
    """RISE as reference/spec S6.2 describes TorchRay's: batch size 1, masks anew for each image, all classes' maps."""

    def __init__(self, model: nn.Module, images: int, masks: int, options: Options) -> None:
        side = options.input_px
        self._model = copy.deepcopy(model).to(options.device)
        drawn = torch.randn(images, 3, side, side, generator=torch.Generator().manual_seed(0))
        self._images, self._masks = drawn.to(options.device), masks

    def __call__(self) -> None:
        with torch.no_grad():
            for image in self._images.split(1):
                self._model(image).argmax(dim=1)
                self._map(image)

    def _map(self, image_1CHW: Tensor) -> Tensor:
        """Every class's map, [K, H, W]."""
        side, device = image_1CHW.shape[2], image_1CHW.device
        cell_px = math.ceil(side / _CELLS)
        scale = math.ceil((side + cell_px) / _CELLS)
        generator = torch.Generator(device).manual_seed(0)
        on_cpu = torch.Generator().manual_seed(0)
        total = torch.zeros((), device=device)
        for start in range(0, self._masks, _PEER_BATCH):
            count = min(_PEER_BATCH, self._masks - start)
            grids = (torch.rand(count, 1, _CELLS, _CELLS, generator=generator, device=device) < 0.5).float()
            padded = functional.pad(grids, (1, 1, 1, 1), mode="reflect")
            enlarged = functional.interpolate(
                padded, size=((_CELLS + 2) * scale,) * 2, mode="bilinear", align_corners=False
            )
            shifts = torch.randint(cell_px, (count, 2), generator=on_cpu).tolist()
            masks = torch.cat(
                [
                    enlarged[[n], :, scale + row : scale + row + side, scale + column : scale + column + side]
                    for n, (row, column) in enumerate(shifts)
                ]
            )
            scores = self._model(image_1CHW * masks).sigmoid()
            part = (scores.T @ masks.flatten(1)).reshape(-1, side, side)
            total = total + part
        return total / self._masks
