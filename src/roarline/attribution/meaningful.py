"""Meaningful perturbation: the smallest, smoothest mask that, blurred away, takes the target's probability with it.

Two presets: the settings of the PyTorch code that most people run (``seed``), and those of the paper's authors
(``paper``). They differ in everything but the idea, so every constant is a parameter that stands over the preset's.

Shapes: B images (N of them in a pass), C channels, H × W px, s × s mask cells, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from roarline.attribution.mask_scores import (
    Draw,
    cells_along_a_side,
    distinct_images,
    memory_format,
    normal_noise,
    score_gradients,
)
from roarline.attribution.passes import in_full_passes
from roarline.imaging.discs import centred_discs
from roarline.imaging.smoothing import gaussian_blur, median_blur
from roarline.imaging.total_variation import isotropic_total_variation, resize_mask, total_variation
from roarline.models.passes import pass_size
from roarline.seeds import derive_seed

Preset = Literal["seed", "paper"]

_DISC_KEEPS = 0.01


@dataclass(frozen=True)
class Settings:
    """The constants of an optimisation, named as the parameters of ``meaningful_perturbation``."""

    iterations: int
    learning_rate: float
    l1: float
    tv: float
    tv_exponent: float
    regularisers: Literal["mean", "sum"]
    mask_size: int
    upsampling: Literal["bilinear", "nearest"]
    mask_sigma_px: float
    start: Literal["ones", "disc"]
    perturbation: Literal["median", "gaussian", "average", "mean_colour", "noise"]
    median_px: int
    blur_sigma_px: float
    blur_radius_px: int
    jitter_px: int
    noise: float
    mask_noise: float
    top_classes: int


PRESETS: dict[Preset, Settings] = {
    "seed": Settings(
        iterations=500, learning_rate=0.1, l1=0.01, tv=0.2, tv_exponent=3.0, regularisers="mean", mask_size=28,
        upsampling="bilinear", mask_sigma_px=0.0, start="ones", perturbation="median", median_px=11, blur_sigma_px=5.0,
        blur_radius_px=5, jitter_px=0, noise=0.2, mask_noise=0.0, top_classes=1,
    ),
    "paper": Settings(
        iterations=300, learning_rate=0.1, l1=1e-4, tv=1e-2, tv_exponent=3.0, regularisers="sum", mask_size=28,
        upsampling="nearest", mask_sigma_px=5.0, start="disc", perturbation="gaussian", median_px=11,
        blur_sigma_px=10.0, blur_radius_px=40, jitter_px=4, noise=0.0, mask_noise=0.0, top_classes=1,
    ),
}  # fmt: skip


def meaningful_perturbation(
    model: nn.Module,
    images_BCHW: Tensor,
    targets_B: Tensor,
    *,
    preset: Preset = "seed",
    seeds: Sequence[int],
    logits_BK: Tensor,
    image_index: Sequence[int],
    std: Sequence[float],
    **constants: Any,
) -> Tensor:
    """Optimise a mask for each image: where it is low, the image shows its perturbed self.

    Minimised are the target's softmax probability, the weight of what is deleted and the mask's roughness, by Adam with
    the mask clamped to [0, 1] after every step.

    Args:
        targets_B: int64 in [0, K).
        preset: ``seed``: jacobgil/pytorch-explain-black-box; ``paper``: the authors' ruthcfong/perturb_explanations.
        seeds: One a row.
        logits_BK: Of the unchanged images.
        image_index: Equal numbers for rows of the same image.
        std: Of the normalisation, 1 or C numbers.
        **constants: Fields of ``Settings``, each None for the preset's:

            - iterations, learning_rate: of Adam.
            - l1, tv, tv_exponent: weights of |1 - mask| and of total variation, and its exponent.
            - regularisers: ``mean`` over the cells, the variation's axes apart; ``sum`` over them, isotropic.
            - mask_size, upsampling, mask_sigma_px: cells along a side (the preset's, but at most half of the image's
              shorter side), how they become pixels, a Gaussian over those.
            - start: ``ones``, or the complement of the smallest centred ``disc`` that takes 99 % of the drop with it.
            - perturbation: ``median`` (median_px), ``gaussian`` (blur_sigma_px, blur_radius_px), their ``average``,
              ``mean_colour`` (0 in normalised space), or ``noise`` about it of 0.2 of the pixel range.
            - jitter_px: at each step the image, not the mask, is shifted by one of so many px along both axes.
            - noise, mask_noise: standard deviation of what is added to the network's input, and to the mask's cells.
            - top_classes: more than 1 minimises the summed probability of the image's so many likeliest classes.

    Returns:
        [B, H, W] in [0, 1]: 1 minus the mask, high where important; not stretched to [0, 1], which is for display (and
        which the seed's code does by dividing by the maximum in place of the range).

    Source: Fong and Vedaldi 2017, arXiv 1704.03296.
    Differs: ``seed`` blurs in float, not in bytes, which for the median is the same; ``paper``'s image under jitter is
        continued by its border, not resized 4 px larger; its discs scale with the image.
    """
    given = {name: value for name, value in constants.items() if value is not None}
    published = PRESETS[preset]
    fitted = replace(published, mask_size=cells_along_a_side(images_BCHW, published.mask_size))
    settings = replace(fitted, **given)
    firsts, places = distinct_images(image_index)
    perturbed = _perturbed(images_BCHW, firsts, places, settings, std, seeds)
    classes_BN = _explained(logits_BK, targets_B, settings.top_classes)
    masks_Bss = _starts(model, images_BCHW, perturbed, classes_BN, logits_BK, settings)
    at_once = pass_size(images_BCHW.shape[2], images_BCHW.shape[3], images_BCHW.device, keeps_activations=True)
    parts = []
    for start in range(0, len(images_BCHW), at_once):
        rows = slice(start, start + at_once)
        parts.append(
            optimise(
                model, images_BCHW[rows], perturbed[rows], classes_BN[rows], masks_Bss[rows], settings,
                normal_noise(images_BCHW[rows], settings.noise, seeds[rows]), seeds[rows],
            )
        )  # fmt: skip
    return (1 - _resized(torch.cat(parts), images_BCHW, settings)).clamp(0, 1)


def optimise(
    model: nn.Module,
    images_NCHW: Tensor,
    perturbed_NCHW: Tensor,
    classes_NK: Tensor,
    masks_Nss: Tensor,
    settings: Settings,
    draw: Draw,
    seeds: Sequence[int],
) -> Tensor:
    """The masks [N, s, s] after all steps.

    Args:
        perturbed_NCHW: What stands where a mask is 0.
        classes_NK: int64, the classes whose summed probability is minimised.
        masks_Nss: To start from, in [0, 1].
        draw: From (row, count) to that row's next noise [count, C, H, W], to be added to the input.
        seeds: One a row, for jitter and the mask's noise.
    """
    masks = masks_Nss.detach().clone().requires_grad_()
    adam = torch.optim.Adam([masks], lr=settings.learning_rate)
    shift = _shifts(images_NCHW, perturbed_NCHW, settings, seeds)
    draw_cells = normal_noise(masks.detach(), settings.mask_noise, [derive_seed(seed, "mask") for seed in seeds])
    layout, rows = memory_format(images_NCHW), range(len(images_NCHW))
    for step in range(settings.iterations):
        background, foreground = shift(step)
        with torch.enable_grad():
            noisy = masks + torch.cat([draw_cells(row, 1) for row in rows]) if settings.mask_noise else masks
            shown = _resized(noisy, images_NCHW, settings)
            rough = _regulariser(masks, settings)
        inputs = torch.addcmul(background, foreground, shown.detach()[:, None]).contiguous(memory_format=layout)
        if settings.noise:
            inputs += torch.cat([draw(row, 1) for row in rows])
        _, gradients = score_gradients(model, inputs, classes_NK, _probability)
        along_mask = (gradients * foreground).sum(dim=1)
        (masks.grad,) = torch.autograd.grad([shown, rough], masks, [along_mask, torch.ones_like(rough)])
        adam.step()
        with torch.no_grad():
            masks.clamp_(0, 1)
    return masks.detach()


def _probability(logits_NK: Tensor, classes_Nn: Tensor) -> Tensor:
    """[N]: summed over the classes."""
    return logits_NK.softmax(dim=1).gather(1, classes_Nn).sum(dim=1)


def _regulariser(masks_Nss: Tensor, settings: Settings) -> Tensor:
    """[N]."""
    deleted = (1 - masks_Nss).abs()
    if settings.regularisers == "mean":
        return settings.l1 * deleted.mean(dim=(1, 2)) + settings.tv * total_variation(masks_Nss, settings.tv_exponent)
    roughness = isotropic_total_variation(masks_Nss, settings.tv_exponent)
    return settings.l1 * deleted.sum(dim=(1, 2)) + settings.tv * roughness


def _resized(masks_Nss: Tensor, images_NCHW: Tensor, settings: Settings) -> Tensor:
    """[N, H, W]."""
    size = tuple(images_NCHW.shape[2:])
    if settings.upsampling == "bilinear":
        fine = resize_mask(masks_Nss, size)
    else:
        fine = functional.interpolate(masks_Nss[:, None], size=size, mode="nearest")[:, 0]
    return gaussian_blur(fine, settings.mask_sigma_px)


def _perturbed(
    images_BCHW: Tensor,
    firsts: Sequence[int],
    places: Sequence[int],
    settings: Settings,
    std: Sequence[float],
    seeds: Sequence[int],
) -> Tensor:
    """[B, C, H, W]: the images under the full perturbation; blurs once for each different image.

    Medians, and blurs that mirror the border, are the same in normalised space as in pixel space.
    """
    if settings.perturbation == "mean_colour":
        return torch.zeros_like(images_BCHW)
    if settings.perturbation == "noise":
        deviation = 0.2 / torch.tensor(list(std)).to(images_BCHW)[:, None, None]
        draw = normal_noise(images_BCHW, 1.0, [derive_seed(seed, "perturbation") for seed in seeds])
        return torch.cat([draw(row, 1) for row in range(len(seeds))]) * deviation
    distinct = images_BCHW[list(firsts)]
    blurs = []
    if settings.perturbation in ("median", "average"):
        blurs.append(median_blur(distinct, settings.median_px))
    if settings.perturbation in ("gaussian", "average"):
        blurs.append(gaussian_blur(distinct, settings.blur_sigma_px, radius_px=settings.blur_radius_px))
    return torch.stack(blurs).mean(dim=0)[list(places)]


def _explained(logits_BK: Tensor, targets_B: Tensor, top_classes: int) -> Tensor:
    """[B, n]: the target, or an image's n likeliest classes."""
    if top_classes == 1:
        return targets_B[:, None]
    return logits_BK.topk(min(top_classes, logits_BK.shape[1]), dim=1).indices


def _starts(
    model: nn.Module,
    images_BCHW: Tensor,
    perturbed_BCHW: Tensor,
    classes_BN: Tensor,
    logits_BK: Tensor,
    settings: Settings,
) -> Tensor:
    """[B, s, s]: ones, or the complement of each image's disc."""
    size = settings.mask_size
    if settings.start == "ones":
        return images_BCHW.new_ones(len(images_BCHW), size, size)
    discs_RHW = centred_discs(images_BCHW.shape[2], images_BCHW.shape[3]).to(images_BCHW)
    scores_BR = images_BCHW.new_zeros(len(images_BCHW), len(discs_RHW))

    def vary(row: int, first: int, last: int) -> Tensor:
        return torch.lerp(images_BCHW[row], perturbed_BCHW[row], discs_RHW[first:last, None])

    def evaluate(inputs: Tensor, copies: Sequence[tuple[int, int]]) -> Tensor:
        with torch.no_grad():
            return _probability(model(inputs), classes_BN[[row for row, _ in copies]])

    def collect(row: int, first: int, last: int, scores: Tensor) -> None:
        scores_BR[row, first:last] = scores

    in_full_passes(images_BCHW, len(discs_RHW), vary, evaluate, collect, keeps_activations=False)
    unchanged_B = _probability(logits_BK, classes_BN)
    chosen = discs_RHW[smallest_sufficient(scores_BR, unchanged_B)]
    return 1 - functional.adaptive_avg_pool2d(chosen[:, None], size)[:, 0]


def smallest_sufficient(scores_BR: Tensor, unchanged_B: Tensor) -> Tensor:
    """[B]: the first disc that leaves less than 1 % of the drop from the unchanged score to the last disc's.

    Args:
        scores_BR: The score under each disc.
        unchanged_B: The score of the unchanged image.
    """
    drop_B = unchanged_B - scores_BR[:, -1]
    enough_BR = (scores_BR - scores_BR[:, -1:]) < _DISC_KEEPS * drop_B[:, None]
    enough_BR[:, -1] = True
    return enough_BR.int().argmax(dim=1)


def _shifts(
    images_NCHW: Tensor, perturbed_NCHW: Tensor, settings: Settings, seeds: Sequence[int]
) -> Callable[[int], tuple[Tensor, Tensor]]:
    """From a step to the perturbed images and what the images add to them, shifted by each row's own draw."""
    difference = images_NCHW - perturbed_NCHW
    if settings.jitter_px <= 1:
        return lambda step: (perturbed_NCHW, difference)
    height, width = images_NCHW.shape[2:]
    before = settings.jitter_px // 2
    border = (before, settings.jitter_px - 1 - before) * 2
    layers = [functional.pad(layer, border, mode="replicate") for layer in (perturbed_NCHW, difference)]
    shape = (settings.iterations, 2)
    offsets = [
        torch.randint(
            settings.jitter_px, shape, generator=torch.Generator().manual_seed(derive_seed(seed, "jitter"))
        ).tolist()
        for seed in seeds
    ]

    def shift(step: int) -> tuple[Tensor, Tensor]:
        corners = [rows[step] for rows in offsets]
        background, foreground = (
            torch.stack(
                [
                    image[:, down : down + height, right : right + width]
                    for image, (down, right) in zip(layer, corners, strict=True)
                ]
            )
            for layer in layers
        )
        return background, foreground

    return shift
