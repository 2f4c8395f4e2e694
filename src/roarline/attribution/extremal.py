"""Extremal perturbations: of all smooth masks of a given area the one that the network responds to most.

All areas of an image, and as many images as fill a pass, are optimised together. The penalty on the area leaves a mask
whose edges are soft some percent of the image away from it; the last thing done to a mask is to make its area exact.
Tests hold masks of ``compat: original`` after 1, 10 and 60 steps against the original's arrays.

Shapes: B images, A areas, N masks (image after image, all its areas), H × W px, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Literal

import torch
from torch import Tensor, nn

from roarline.attribution.mask_scores import Score, contrast, distinct_images, logit, memory_format, score_gradients
from roarline.imaging.area_constraint import area_penalty, with_area
from roarline.imaging.mask_generator import Combine, MaskGenerator
from roarline.imaging.pyramid import Perturbation, Pyramid, perturbation_levels
from roarline.imaging.removal import Compat
from roarline.imaging.smoothing import Padding, gaussian_blur
from roarline.imaging.unfolded_masks import UnfoldedMasks
from roarline.models.passes import pass_size

Variant = Literal["preserve", "delete", "dual"]
Reward = Literal["simple", "contrastive"]
Select = Literal["first_area_reaching_logit", "sum"]

_PUBLISHED_PX = 224
_OUTSIDE_FINISHED_MASKS: dict[Compat, Padding] = {"corrected": "symmetric", "original": "zero"}
_REWARDS: dict[str, Score] = {"simple": logit, "contrastive": contrast}


@dataclass(frozen=True)
class Ascent:
    """How masks are optimised; the method's parameters of the same names."""

    iterations: int
    learning_rate: float
    momentum: float
    area_weight: float
    area_weight_growth: float
    variant: Variant
    score: Score
    jitter: bool
    compat: Compat


def extremal_perturbation(
    model: nn.Module,
    images_BCHW: Tensor,
    targets_B: Tensor,
    *,
    areas: Sequence[float] = (0.05, 0.1, 0.2, 0.3),
    select: Select = "first_area_reaching_logit",
    variant: Variant = "preserve",
    reward: Reward = "contrastive",
    perturbation: Perturbation = "blur",
    levels: int = 8,
    max_sigma_px: float | None = None,
    padding: Padding = "zero",
    iterations: int = 800,
    learning_rate: float = 0.01,
    momentum: float = 0.9,
    area_weight: float = 300.0,
    area_weight_growth: float = 1.0035,
    jitter: bool = True,
    combine: Combine = "smooth_max",
    step_px: int | None = None,
    sigma_px: float | None = None,
    smooth: float = 0.09,
    compat: Compat = "corrected",
    logits_BK: Tensor,
    image_index: Sequence[int],
) -> Tensor:
    """Optimise a mask for every area, smooth the masks and make one map of them.

    Args:
        targets_B: int64 in [0, K).
        areas: Shares of the image, each in (0, 1). Of every mask, before ``smooth``, both the mean and the share of
            pixels above 1/2 are what was asked, see ``imaging.area_constraint.with_area``.
        select: ``first_area_reaching_logit``: of the areas in ascending order the first whose mask, applied to the
            image, gives at least the target's logit on the unchanged image, else the largest; ``sum``: of all masks.
        variant: ``preserve``: what keeps the score high; ``delete``: what lowers it when perturbed; ``dual``: both.
        reward: ``simple``: the target's logit; ``contrastive``: minus the largest other one.
        perturbation: ``blur`` or ``fade``; see ``imaging.pyramid``, as for ``levels`` and ``padding``.
        max_sigma_px: Of the strongest blur; None: 20 at 224 px, in proportion for other shorter sides.
        iterations: Steps of gradient ascent.
        learning_rate: Of those.
        momentum: Of those; gradients enter it with 1 - momentum.
        area_weight: Weight of the area's constraint at the first step.
        area_weight_growth: Factor on it after each step.
        jitter: Mirror the image at every other step.
        combine: See ``imaging.mask_generator``.
        step_px: Distance of a mask's parameters; None: 7 at 224 px, in proportion.
        sigma_px: Width of a parameter's bump; None: 3 steps.
        smooth: σ of a Gaussian over the finished masks, as a fraction of the shorter side.
        compat: ``original``: the constraint counts the mask's invisible margin, equal values are ranked as torch's sort
            happens to leave them, the mask before the last step is returned, and ``smooth`` takes 0 for what lies
            outside; masks are added up in TorchRay's order, which costs time and memory, see
            ``imaging.unfolded_masks``. Corrected: the visible mask has the area asked for, the last step counts, and no
            place is favoured: equal values are treated alike, heights are compared with those of the first mask,
            parameters at the border, which cover fewer pixels, move as fast as others, and ``smooth`` mirrors the mask
            at its edge, which keeps the mean. Without that a network with small logits gets the same mask, the border,
            for every image; even so it wants a smaller ``area_weight`` than networks with logits of 10 to 20.
        logits_BK: Of the unchanged images.
        image_index: Equal numbers for rows of the same image.

    Returns:
        [B, H, W], high where important: in [0, 1], in [0, A] for ``sum``.

    Source: Fong et al. 2019, arXiv 1910.08485; TorchRay's ``extremal_perturbation``; for the selection NN-Explainer.
    """
    how = Ascent(
        iterations, learning_rate, momentum, area_weight, area_weight_growth, variant, _REWARDS[reward], jitter, compat
    )
    height, width = images_BCHW.shape[2:]
    scale = min(height, width) / _PUBLISHED_PX
    step = step_px or max(1, round(7 * scale))
    kind: type[UnfoldedMasks] | type[MaskGenerator] = UnfoldedMasks if compat == "original" else MaskGenerator
    generator = kind(height, width, step_px=step, sigma_px=sigma_px or 3.0 * step, combine=combine)
    max_sigma = max_sigma_px or 20 * scale
    sigma_smooth, outside = smooth * min(height, width), _OUTSIDE_FINISHED_MASKS[compat]
    wanted = [(row, area) for row in range(len(images_BCHW)) for area in sorted(areas)]
    at_once = max(
        1, pass_size(height, width, images_BCHW.device, keeps_activations=True) // (2 if variant == "dual" else 1)
    )
    masks, reached = [], []
    for start in range(0, len(wanted), at_once):
        rows = [row for row, _ in wanted[start : start + at_once]]
        firsts, places = distinct_images([image_index[row] for row in rows])
        chosen = images_BCHW[[rows[first] for first in firsts]]
        lookup = PerturbedImages(
            Pyramid.of(perturbation_levels(chosen, levels, perturbation, max_sigma_px=max_sigma, padding=padding)),
            torch.tensor(places, device=images_BCHW.device),
            memory_format(images_BCHW),
        )
        chunk_areas = [area for _, area in wanted[start : start + at_once]]
        found = optimise_masks(model, lookup, targets_B[rows], chunk_areas, generator, how)
        masks.append(gaussian_blur(found, sigma_smooth, outside, radius_px=ceil(4 * sigma_smooth)))
        if select == "first_area_reaching_logit":
            with torch.no_grad():
                reached.append(logit(model(lookup(masks[-1])), targets_B[rows]))
    masks_BAHW = torch.cat(masks).view(len(images_BCHW), len(areas), height, width)
    if select == "sum":
        return masks_BAHW.sum(dim=1)
    enough_BA = torch.cat(reached).view(len(images_BCHW), -1) >= logit(logits_BK, targets_B)[:, None]
    enough_BA[:, -1] = True
    return masks_BAHW[torch.arange(len(masks_BAHW), device=enough_BA.device), enough_BA.int().argmax(dim=1)]


@dataclass(frozen=True)
class PerturbedImages:
    """The images of a chunk under its masks."""

    pyramid: Pyramid
    image_of_N: Tensor
    layout: torch.memory_format

    def __call__(self, masks_NHW: Tensor, *, flip: bool = False) -> Tensor:
        """[N, C, H, W]."""
        perturbed = self.pyramid(masks_NHW, self.image_of_N, flip=flip)
        return perturbed.contiguous(memory_format=self.layout)


def _evening_and_pace(generator: MaskGenerator, grids_Ngg: Tensor) -> tuple[Tensor, Tensor]:
    """What evens out the first mask [1, H, W], and a factor on each parameter's gradient [1, rows, columns], 1 or more.

    2 - m instead of 1 / m: for wide bumps, whose first mask m is close to 1, they are the same; what lies between
    narrow ones shall stay low.
    """
    reach = generator.reach(grids_Ngg)
    return 2 - generator(torch.ones_like(grids_Ngg[:1])), reach.amax() / reach


def optimise_masks(
    model: nn.Module,
    perturbed: PerturbedImages,
    targets_N: Tensor,
    areas: Sequence[float],
    generator: MaskGenerator | UnfoldedMasks,
    how: Ascent,
) -> Tensor:
    """Masks [N, H, W], not smoothed: one for each target and area, each optimised on its own in the same passes."""
    original = how.compat == "original"
    grids = perturbed.pyramid.table.new_ones(len(areas), *generator.grid).requires_grad_()
    ascent = torch.optim.SGD([grids], lr=how.learning_rate, momentum=how.momentum, dampening=how.momentum)
    evening, pace = None, None
    if isinstance(generator, MaskGenerator) and not original:
        evening, pace = _evening_and_pace(generator, grids.detach())
    sides = [side for side, variant in ((1, "preserve"), (-1, "delete")) if how.variant in (variant, "dual")]
    targets = targets_N.repeat(len(sides))
    weight, masks = how.area_weight, grids
    for step in range(how.iterations):
        with torch.enable_grad():
            made = generator(grids, padded=original)
            masks = generator.visible(made) if original else made
            # With all parameters at 1 the smooth maximum is highest in the corners, where it averages over fewer bumps,
            # and the area's constraint would keep what is highest: its order is one in which all places start equal.
            order = None if evening is None else (made.detach() * evening).flatten(1)
            flip = how.jitter and step % 2 == 0
            inputs = torch.cat([perturbed(masks if side > 0 else 1 - masks, flip=flip) for side in sides])
            penalties = area_penalty(made.flatten(1), areas, "sort" if original else "share", order)
        _, gradients = score_gradients(model, inputs, targets, how.score)
        signed = [-side * part for side, part in zip(sides, gradients.chunk(len(sides)), strict=True)]
        (grids.grad,) = torch.autograd.grad(
            [inputs, penalties], grids, [torch.cat(signed), torch.full_like(penalties, weight)]
        )
        if pace is not None:
            grids.grad = grids.grad * pace
        ascent.step()
        with torch.no_grad():
            grids.clamp_(0, 1)
        weight *= how.area_weight_growth
    with torch.no_grad():
        return masks.detach() if original else with_area(generator(grids), areas)
