"""Extremal perturbations an image at a time, written straight from their definition, to hold the batched form against.

A mask's weighted neighbours are laid out for every position, the levels of the perturbation are read pixel by pixel,
and the area's constraint sorts the padded mask.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from roarline.imaging.pyramid import perturbation_levels
from roarline.imaging.unfolded_masks import UnfoldedMasks


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
