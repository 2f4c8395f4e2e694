"""The other gradient and CAM methods against the bare passes that each needs, as extraction runs them.

What a method does beside whole passes (a pass back to a layer near the end, maps, files) counts against it.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.extraction import CAM_LAYERS, CPU_BATCH_SIZES, BareCamPasses, ExtractionRun, Sizes, goal
from benchmarks.harness import BarePasses, Measurement, MixedPasses, Options, alternate, network
from roarline.models.passes import pass_size

_SAMPLES, _CHANNELS = 16, 64
_SLOW = {"resnet50": 16}
"""Images on a CPU, where a pass of a few outweighs opening and closing files."""


@dataclass(frozen=True)
class Case:
    """A method, and how many bare passes of each kind an image needs.

    Attributes:
        passes: Of ``input`` (forward and backward to the input), ``layer`` (to the layer), ``forward`` and ``head``
            (forward from the layer on) passes.
        few: Measured with an eighth of the images.
    """

    method: str
    passes: Mapping[str, float]
    params: Mapping[str, Any] = field(default_factory=dict)
    few: bool = False


def cases(baselines_an_image: float, signed: float) -> list[Case]:
    """The methods.

    Args:
        baselines_an_image: DeepLIFT's baseline goes forward once a batch.
        signed: Of ``_signed_share``: there positive and negative inputs go through the layer apart.
    """
    to_layer = ("gradcam_plus_plus", "hirescam", "layercam", "xgradcam", "linear_approximation")
    few_channels = {"max_channels": _CHANNELS}
    return [
        Case("input_x_gradient", {"input": 1}),
        Case("deconvnet", {"input": 1}),
        Case("guided_gradcam", {"input": 1}),
        Case("deeplift", {"input": 1, "forward": baselines_an_image}),
        Case("lrp", {"input": 1}, {"rule": "epsilon"}),
        Case("lrp", {"input": 1 + signed, "forward": 1}, {"rule": "epsilon_plus"}),
        Case("gradient_shap", {"input": _SAMPLES}, {"samples": _SAMPLES, "baselines": "constant"}, few=True),
        *(Case(method, {"layer": 1}) for method in to_layer),
        Case("excitation_backprop", {"layer": 1}),
        Case("contrastive_excitation_backprop", {"layer": 1}),
        Case("eigen_cam", {"forward": 1}),
        Case("score_cam", {"forward": 1 + _CHANNELS}, few_channels, few=True),
        Case("ablation_cam", {"forward": 1, "head": _CHANNELS}, few_channels),
    ]


def measure(options: Options) -> Iterator[Measurement]:
    """One measurement for each network and method."""
    images, side = Sizes.of(options), options.input_px
    shape, device = (3, side, side), options.device
    sizes = options.batch_sizes if options.quick or options.on_gpu else CPU_BATCH_SIZES
    for name in options.networks:
        model, layer = network(name), CAM_LAYERS[name]
        features, head = _head(model, layer, side)
        bare = {
            "input": BarePasses(model, shape, gradient=True, batch_sizes=sizes, device=device),
            "layer": BareCamPasses(model, shape, layer, batch_sizes=sizes, device=device),
            "forward": BarePasses(model, shape, batch_sizes=sizes, device=device),
            "head": _BareHeadPasses(head, features, layer, device),
        }
        for case in cases(1 / pass_size(side, side, torch.device(device)), _signed_share(model, side)):
            count = images.images if "input" in case.passes else images.many
            slow = count if options.on_gpu else min(count, _SLOW.get(name, count))
            count = max(1, min(slow, 8 * images.few) // 8) if case.few else slow
            mixed = MixedPasses([(bare[kind], round(count * each)) for kind, each in case.passes.items()])
            setting = case.method + (f", {case.params['rule']}" if "rule" in case.params else "")
            line = Measurement("shelf", name, setting, count, mixed.passes, mixed.kind, mixed.choice, goal(options))
            params = dict(case.params)
            if case.passes.keys() & {"layer", "head"} or case.method in ("guided_gradcam", "eigen_cam", "score_cam"):
                params["layer"] = layer
            with tempfile.TemporaryDirectory() as folder:
                run = ExtractionRun(Path(folder), model, case.method, params, count, options)
                yield alternate(line, run, mixed, options)
                run.close()


@torch.inference_mode()
def _signed_share(model: nn.Module, side: int) -> float:
    """Share of the convolutions' multiplications in those that read values of both signs, the first one left out."""
    counts: list[tuple[int, bool]] = []

    def count(module: nn.Module, args: tuple[Tensor], output: Tensor) -> None:
        counts.append((output.numel() * module.weight[0].numel(), bool((args[0] < 0).any())))

    handles = [one.register_forward_hook(count) for one in model.modules() if isinstance(one, nn.Conv2d)]
    model(torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0)))
    for handle in handles:
        handle.remove()
    return sum(number for number, signed in counts[1:] if signed) / sum(number for number, _ in counts)


class _BareHeadPasses(BarePasses):
    """Forward passes from a layer on."""

    def __init__(self, head: nn.Module, features: tuple[int, ...], layer: str, device: str) -> None:
        self._layer = layer
        super().__init__(head, features, batch_sizes=(16, 64, 256), device=device)

    @property
    def kind(self) -> str:
        """What one pass is."""
        return f"forward from {self._layer}"


def _head(model: nn.Module, layer: str, side: int) -> tuple[tuple[int, ...], nn.Module]:
    """(C, H, W) of the layer's output, and the network from there on: pooling and the linear layers."""
    seen: list[Tensor] = []
    handle = model.get_submodule(layer).register_forward_hook(lambda module, args, output: seen.append(output))
    with torch.inference_mode():
        model(torch.zeros(1, 3, side, side))
    handle.remove()
    classifier = model.get_submodule("classifier" if hasattr(model, "classifier") else "fc")
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), copy.deepcopy(classifier))
    return tuple(seen[0].shape[1:]), head.eval()
