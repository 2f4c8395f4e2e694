"""What the removal of some rows' pixels needs: ranks, fills, superpixels, patches. What is costly is timed.

Shapes: B rows, C channels, H × W px.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from roarline.artifacts.classifier import ClassifierCard
from roarline.config.fills import fill_name
from roarline.evaluation.perturb import PIXELS, AlteredImages, MaskFill
from roarline.evaluation.perturbation_scores import NOISY_LINEAR, PATCHES, SUPERPIXELS, CurveSettings
from roarline.imaging.fills import colour, fill_image
from roarline.imaging.hashed_noise import normal_noise
from roarline.imaging.imputation import impute
from roarline.imaging.region_ranks import RegionRanks, rank_regions
from roarline.imaging.superpixels import find_superpixels, patches
from roarline.stages.draws import noise_seeds
from roarline.stages.recent import Recent

# Superpixels are the same for every method; jobs of one process follow one another.
_superpixels: Recent[Tensor] = Recent(256 * 2**20)


def curve_settings(parameters: Mapping[str, Any]) -> CurveSettings:
    """From a job's parameters, which hold no section that its metrics don't read."""
    road, irof = parameters.get("road", {}), parameters.get("irof", {})
    regions = parameters.get("region_perturbation", {})
    return CurveSettings(
        fractions=parameters["fractions"],
        steps=parameters["steps"],
        fill=fill_name(parameters["fill"]),
        insertion_fill=fill_name(parameters["insertion_fill"]),
        deletion_fill=fill_name(parameters["deletion_fill"]),
        road_fractions=road.get("fractions", ()),
        irof_steps=irof.get("steps", 1),
        irof_fill=fill_name(irof.get("fill", "mean")),
        patch_px=regions.get("patch_px", ()),
        patch_fractions=regions.get("fractions", ()),
        patch_fill=fill_name(regions.get("fill", "mean")),
        compat=parameters["compat"],
    )


class Stopwatch:
    """Seconds of what is measured by name, without waiting for a GPU while it works."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._seconds: dict[str, float] = {}
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Add the time of a block."""
        if self._device.type == "cuda":
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            start.record()
            yield
            end.record()
            self._events.append((name, start, end))
            return
        begun = time.perf_counter()
        yield
        self._add(name, time.perf_counter() - begun)

    def take(self) -> dict[str, float]:
        """Since the last time, by name; waits for the device."""
        for name, start, end in self._events:
            end.synchronize()
            self._add(name, start.elapsed_time(end) / 1000)
        self._events.clear()
        seconds, self._seconds = self._seconds, {}
        return seconds

    def _add(self, name: str, seconds: float) -> None:
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds


class RemovalInputs:
    """Fills and regions, row by row from the seed, the same for every method.

    Args:
        altered: What is removed.
        parameters: The job's.
        fill_mean: Mean colour of the training split.
    """

    def __init__(
        self,
        altered: AlteredImages,
        parameters: Mapping[str, Any],
        card: ClassifierCard,
        fill_mean: Sequence[float],
        device: torch.device,
    ) -> None:
        self.parameters, self.card, self.fill_mean, self.device = parameters, card, fill_mean, device
        self.watch = Stopwatch(device)
        self._fills = {fill_name(fill): fill for fill in _all_fills(parameters)}
        self._needed = altered.fills
        self._units = {removal.unit for removal in altered.removals} - {PIXELS}

    def fills(self, images_BCHW: Tensor, sample_ids: Sequence[str]) -> dict[str, Tensor | MaskFill]:
        """Name to fill, for the rows of a part."""
        found: dict[str, Tensor | MaskFill] = {}
        for name in sorted(self._needed):
            if name == NOISY_LINEAR:
                found[name] = self._noisy_linear(images_BCHW, self._seeds(sample_ids, "imputation"))
            else:
                seeds_B = self._seeds(sample_ids, "uniform") if name == "uniform_noise" else None
                found[name] = fill_image(
                    images_BCHW, self._fills[name], self.card.mean, self.card.std, fill_mean=self.fill_mean,
                    seeds_B=seeds_B,
                )  # fmt: skip
        return found

    def regions(
        self, pixels_BCHW: Tensor, maps_BHW: Tensor, tie_seeds: Sequence[int], sample_ids: Sequence[str]
    ) -> dict[str, RegionRanks]:
        """Unit to ranks, for the rows of a part; pixels are uint8, of any device."""
        height, width = maps_BHW.shape[-2:]
        found = {}
        for unit in sorted(self._units):
            if unit == SUPERPIXELS:
                with self.watch.measure("superpixels"):
                    labels = self._superpixels(pixels_BCHW, sample_ids)
                count = int(labels.max()) + 1  # on the CPU still: nothing is waited for
                labels = labels.to(self.device, non_blocking=True)
            else:
                side = int(unit.removeprefix(PATCHES))
                labels, count = patches(height, width, side, self.device), -(-height // side) * -(-width // side)
            found[unit] = rank_regions(maps_BHW, labels, count, tie_seeds, self.parameters["ties"])
        return found

    def _noisy_linear(self, images_BCHW: Tensor, seeds_B: Tensor) -> MaskFill:
        std, mean = (colour(values, "", images_BCHW) for values in (self.card.std, self.card.mean))
        spread = (self.parameters["road"]["noise"] / std).float()
        nothing_known = ((colour(self.fill_mean, "fill_mean", images_BCHW) - mean) / std).to(images_BCHW.dtype)

        def fill(images_NCHW: Tensor, mask_NHW: Tensor, rows: slice | Tensor) -> Tensor:
            with self.watch.measure("imputation"):
                noise = normal_noise(seeds_B[rows], images_NCHW.shape[1:]) * spread
                return impute(
                    images_NCHW, mask_NHW, noise, nothing_known=nothing_known, pixel_range=1 / max(self.card.std)
                )

        return fill

    def _superpixels(self, pixels_BCHW: Tensor, sample_ids: Sequence[str]) -> Tensor:
        """int64 [B, H, W] on the CPU: of each image once, however many rows it has."""
        settings = self.parameters["irof"]
        how = (settings["superpixels"], settings["segments"], settings["compactness"])
        _, first, row = np.unique(np.asarray(sample_ids), return_index=True, return_inverse=True)
        images = pixels_BCHW.cpu()[torch.from_numpy(first)].contiguous()
        key = (hashlib.blake2b(images.numpy().tobytes()).hexdigest(), tuple(images.shape), *how)
        labels = _superpixels.get(
            key, lambda: find_superpixels(images / 255, how[0], how[1], compactness=how[2]).to(torch.int32)
        )
        return labels[torch.from_numpy(row)].long()

    def _seeds(self, sample_ids: Sequence[str], kind: str) -> Tensor:
        return noise_seeds(self.parameters["seed"], kind, sample_ids, self.device)


def _all_fills(parameters: Mapping[str, Any]) -> list[Any]:
    sections = [parameters[name] for name in ("irof", "region_perturbation") if name in parameters]
    return [parameters[name] for name in ("fill", "insertion_fill", "deletion_fill")] + [s["fill"] for s in sections]
