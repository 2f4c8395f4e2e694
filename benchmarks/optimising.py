"""Steps of the methods that optimise a mask, against the bare passes they need.

Every step takes the same time, so a few are enough; what comes once before them (a blur, the pyramid, a first pass) is
left out, below 1 % of the hundreds of steps of a map. iGOS++ is measured whole, for one outer iteration: its passes are
counted while it runs, since the data decide how often its line search tries.

roarline's network has its batch normalisation folded, as in extraction, the bare one is as it was built.

The line "time an image at a time ÷ ours" is no efficiency but a ratio of times, turn by turn in the same run: Extremal
Perturbations by their definition, one image after the other, as TorchRay runs them, ÷ roarline's. They run in a process
of their own, whose memory is handled as Python and torch do by themselves.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.harness import BarePasses, Measurement, MixedPasses, Options, alternate, network
from benchmarks.peers.environment import Peer
from roarline.attribution.extremal import Ascent, PerturbedImages, optimise_masks
from roarline.attribution.igos import igos_plus_plus
from roarline.attribution.mask_scores import contrast, memory_format, normal_noise
from roarline.attribution.meaningful import PRESETS, Settings, optimise
from roarline.imaging.mask_generator import MaskGenerator
from roarline.imaging.pyramid import Pyramid, perturbation_levels
from roarline.imaging.smoothing import gaussian_blur
from roarline.models.folding import fold_batch_norms
from roarline.models.passes import pass_size

GOALS = {"resnet50": 0.8}
RATIO_GOALS = {"mobilenet_v2": 3.0}
_AREAS = (0.05, 0.1, 0.2, 0.3)


def measure(options: Options) -> Iterator[Measurement]:
    """Five measurements for each network."""
    for name in options.networks:
        yield from _measure(_Case(name, options), name, 1 if options.quick else 4, options)


def _measure(case: _Case, name: str, steps: int, options: Options) -> Iterator[Measurement]:
    bare, goal = case.to_input, GOALS.get(name)

    def line(setting: str, images: int, passes: int, goal: float | None) -> Measurement:
        return Measurement("optimising", name, setting, images, passes, bare.kind, bare.choice, goal)

    for preset, settings in PRESETS.items():
        measured = line(f"meaningful_perturbation, {preset}", case.rows, case.rows * steps, goal)
        yield alternate(measured, partial(case.meaningful, settings, steps), bare, options)
    steps *= 2  # what comes once, at both ends of it, is more
    passes = case.images * len(_AREAS) * steps
    measured = line("extremal_perturbation", case.images, passes, goal)
    yield alternate(measured, partial(case.extremal, steps), bare, options)
    yield _igos_plus_plus(case, line("igos_plus_plus", 1, 0, goal), options)
    ratio = line("extremal_perturbation", case.images, passes, RATIO_GOALS.get(name))
    ratio.hot_path = "time an image at a time ÷ ours"
    ratio.bare_choice = f"batch {len(_AREAS)}, contiguous, an image at a time"
    settings = {
        "network": name, "side_px": options.input_px, "images": case.images, "areas": _AREAS, "steps": steps,
        "threads": options.threads, "device": options.device,
    }  # fmt: skip
    with Peer(sys.executable, "extremal perturbation, an image at a time", settings) as peer:
        yield alternate(ratio, partial(case.extremal, steps), lambda _: _run(peer), options)


class _Case:
    """A network, random images of the layout that the stage gives them, and one run of each method."""

    def __init__(self, name: str, options: Options) -> None:
        side = options.input_px
        self.device, self.network = torch.device(options.device), network(name)
        self.to_input, self.forward = (
            BarePasses(
                self.network, (3, side, side), gradient=gradient, batch_sizes=options.batch_sizes, device=options.device
            )
            for gradient in (True, False)
        )
        self.rows = 8 if options.quick else pass_size(side, side, self.device, keeps_activations=True)
        self.images = max(1, self.rows // len(_AREAS))
        generator = torch.Generator().manual_seed(0)
        drawn = torch.randn(self.rows, 3, side, side, generator=generator).to(self.device)
        self.resident = drawn.contiguous(memory_format=torch.channels_last)
        folded = fold_batch_norms(self.network, (3, side, side)).to(self.device)
        self.model: nn.Module = folded.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.targets = torch.arange(self.rows, device=self.device)
        self._blurred = gaussian_blur(self.resident, 5.0).contiguous(memory_format=torch.channels_last)
        places = torch.arange(self.images, device=self.device).repeat_interleave(len(_AREAS))
        pyramid = Pyramid.of(perturbation_levels(self.resident[: self.images]))
        self._perturbed = PerturbedImages(pyramid, places, memory_format(self.resident))
        self._masks = MaskGenerator(side, side)

    def meaningful(self, settings: Settings, steps: int) -> None:
        """So many steps of a full pass of images."""
        settings = Settings(**{**vars(settings), "iterations": steps})
        seeds = list(range(self.rows))
        masks = self.resident.new_ones(self.rows, settings.mask_size, settings.mask_size)
        optimise(
            self.model, self.resident, self._blurred, self.targets[:, None], masks, settings,
            normal_noise(self.resident, settings.noise, seeds), seeds,
        )  # fmt: skip

    def extremal(self, steps: int) -> None:
        """So many steps of all areas of the images."""
        how = Ascent(steps, 0.01, 0.9, 300.0, 1.0035, "preserve", contrast, True, "corrected")
        targets = self.targets[: self.images].repeat_interleave(len(_AREAS))
        optimise_masks(self.model, self._perturbed, targets, _AREAS * self.images, self._masks, how)

    def igos_plus_plus(self) -> None:
        """One outer iteration of one image with few integration steps."""
        igos_plus_plus(self.model, self.resident[:1], self.targets[:1], iterations=1, integration_steps=4, seeds=[0])


def _igos_plus_plus(case: _Case, line: Measurement, options: Options) -> Measurement:
    """Count the images in passes with and without a gradient, and hold the whole against as many bare ones of each."""
    counted = {True: 0, False: 0}

    def count(module: nn.Module, args: tuple[Tensor], output: Any) -> None:
        counted[args[0].requires_grad] += len(args[0])

    handle = case.model.register_forward_hook(count)
    case.igos_plus_plus()
    handle.remove()
    bare = MixedPasses([(case.to_input, counted[True]), (case.forward, counted[False])])
    line.passes, line.pass_kind = bare.passes, bare.kind
    return alternate(line, case.igos_plus_plus, bare, options)


def _run(peer: Peer) -> None:
    peer.run()
    if peer.problem:
        raise RuntimeError(peer.problem)
