"""Extremal perturbations an image at a time, written straight from their definition, to hold the batched form against.

A mask's (2R + 1)² weighted neighbours are laid out for every position (for 224 px 81 × 260² numbers), the levels of the
perturbation are read pixel by pixel, and the area's constraint sorts the padded mask. Tests use the mask generator as
an independent reference: it adds up in the order in which the original's arrays were made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from roarline.imaging.pyramid import perturbation_levels


class UnfoldedMasks:
    """Smooth-max masks of H × W px; called as ``roarline.imaging.mask_generator.MaskGenerator``."""

    def __init__(
        self,
        height: int,
        width: int,
        *,
        step_px: int = 7,
        sigma_px: float = 21.0,
        combine: str = "smooth_max",
        device: torch.device | None = None,
    ) -> None:
        if combine != "smooth_max":
            raise ValueError(f"combine is {combine!r}, expected smooth_max")
        self._step, self._margin, self._size = step_px, round(sigma_px), (height, width)
        self._padding, self._taps = 1 + math.ceil(2 * sigma_px / step_px), 3 + 2 * math.ceil(sigma_px / step_px)
        self.grid = math.ceil(height / step_px), math.ceil(width / step_px)
        self._cells = [points + 2 * self._padding - self._taps + 1 for points in self.grid]
        offsets = []
        for cells in self._cells:
            position = torch.arange(cells * step_px - step_px + 1)
            point = position // step_px + torch.arange(self._taps)[:, None] - self._padding
            offsets.append(position - (sigma_px + step_px * point))
        distance = torch.sqrt(offsets[0][:, None, :, None] ** 2 + offsets[1][None, :, None, :] ** 2)
        weights = torch.exp(-2 * (distance / sigma_px - 0.5).clamp(min=0) ** 2)
        self._weights = weights.flatten(0, 1)[None].to(device)

    def __call__(self, grid_Ngg: Tensor, *, padded: bool = False) -> Tensor:
        """[N, H, W], or with the margin."""
        patches = functional.unfold(grid_Ngg[:, None], (self._taps, self._taps), padding=self._padding)
        patches = patches.view(len(grid_Ngg), -1, *self._cells)
        fine = functional.interpolate(patches, scale_factor=self._step, mode="nearest")
        height, width = self._weights.shape[2:]
        weighted = fine[:, :, :height, :width] * self._weights.to(grid_Ngg)
        masks = (weighted * torch.softmax(20 * weighted, dim=1)).sum(dim=1).clamp(0, 1)
        return masks if padded else self.visible(masks)

    def visible(self, padded_Nhw: Tensor) -> Tensor:
        """Crop the margin."""
        y, x = (slice(self._margin, self._margin + length) for length in self._size)
        return padded_Nhw[:, y, x]


def extremal_masks(
    model: nn.Module, image_1CHW: Tensor, target: int, areas: Sequence[float], iterations: int, masks: UnfoldedMasks
) -> Tensor:
    """Masks [A, H, W] of one image with the published settings, contrastive reward, mirrored at every other step."""
    levels = perturbation_levels(image_1CHW)[0]
    grid = image_1CHW.new_ones(len(areas), *masks.grid).requires_grad_()
    ascent = torch.optim.SGD([grid], lr=0.01, momentum=0.9, dampening=0.9)
    weight, visible = 300.0, grid
    for step in range(iterations):
        padded = masks(grid, padded=True)
        visible = masks.visible(padded)
        perturbed = _look_up(levels, visible)
        if step % 2 == 0:
            perturbed = perturbed.flip(3)
        logits = model(perturbed)
        others = torch.cat([logits[:, :target], logits[:, target + 1 :]], dim=1)
        reward = logits[:, target] - others.amax(dim=1)
        ranked = padded.flatten(1).sort(dim=1).values
        places = torch.arange(ranked.shape[1], device=ranked.device)
        zeros = torch.tensor([int(ranked.shape[1] * (1 - area)) for area in areas], device=ranked.device)
        distance = (ranked - (places >= zeros[:, None]).to(ranked)).square().mean(dim=1)
        ascent.zero_grad()
        (weight * distance - reward).sum().backward()
        ascent.step()
        with torch.no_grad():
            grid.clamp_(0, 1)
        weight *= 1.0035
    return visible.detach()


def _look_up(levels_LCHW: Tensor, masks_NHW: Tensor) -> Tensor:
    """[N, C, H, W]: at each pixel the level that the mask says, linear between two."""
    top = len(levels_LCHW) - 1
    position = masks_NHW * top
    level = position.detach().floor()
    index = level.long()[:, None, None].expand(-1, 1, levels_LCHW.shape[1], -1, -1)
    stack = levels_LCHW[None].expand(len(masks_NHW), -1, -1, -1, -1)
    low = stack.gather(1, index)[:, 0]
    high = stack.gather(1, (index + 1).clamp(max=top))[:, 0]
    share = (position - level)[:, None]
    return (1 - share) * low + share * high
