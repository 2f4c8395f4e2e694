"""I-GOS and iGOS++: masks optimised along integrated gradients, with a line search at every step.

Integrals of all images share full passes. Each image searches its own step size; those that have found it drop out.

Shapes: B images, M masks an image (1 for I-GOS; for iGOS++ 2: deletion D and insertion K), s × s mask cells, T score
terms, n integration steps, C channels, H × W px.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from roarline.attribution.mask_scores import (
    Draw,
    cells_along_a_side,
    memory_format,
    normal_noise,
    probability,
    score_gradients,
)
from roarline.attribution.passes import in_full_passes
from roarline.imaging.removal import Compat
from roarline.imaging.smoothing import gaussian_blur
from roarline.imaging.total_variation import (
    VerticalWeight,
    bilateral_total_variation,
    resize_mask,
    total_variation,
)

# Outer iterations and integration steps. The original's main program passes each as the other.
_LENGTHS: dict[Compat, tuple[int, int]] = {"corrected": (15, 20), "original": (20, 15)}
_VERTICAL_WEIGHTS: dict[Compat, VerticalWeight] = {"corrected": "mean_of_exponentials", "original": "square_of_mean"}
_SHRINK, _SUFFICIENT, _SMALLEST_STEP = 0.2, 1e-4, 1e-5


@dataclass(frozen=True)
class Term:
    """A score along a path: of an image faded in where the mask is high, from another one.

    Attributes:
        masks: Which masks are multiplied, e.g. (0, 1) for D · K.
        sign: Of the score in the loss.
        inserts: False: the image under a mask that rises to its full value; True: the baseline, so that what the mask
            leaves out is the image.
    """

    masks: tuple[int, ...]
    sign: int
    inserts: bool


@dataclass(frozen=True)
class Objective:
    """What is minimised.

    Attributes:
        terms: Scores in the loss, with their signs, in the order in which noise is drawn.
        gradient_scale: The scores' gradients are multiplied by this (the line search's loss is not).
        regulariser: From the product of an image's masks [B, s, s] and rows' images to [B].
    """

    terms: tuple[Term, ...]
    gradient_scale: float
    regulariser: Callable[[Tensor, Tensor], Tensor]


def igos(
    model: nn.Module,
    images_BCHW: Tensor,
    targets_B: Tensor,
    *,
    compat: Compat = "corrected",
    iterations: int | None = None,
    integration_steps: int | None = None,
    mask_size: int | None = None,
    l1: float = 1.0,
    l2: float = 20.0,
    step: float = 8.0,
    noise: float = 0.2,
    blur_sigma_px: float = 50.0,
    blur_radius_px: int = 25,
    seeds: Sequence[int],
) -> Tensor:
    """One mask whose removal lowers the probability along the whole path from the baseline.

    Args, beside those of ``igos_plus_plus``:
        l2: Weight of the mask's total variation.
        step: Where the line search starts.

    Returns:
        [B, H, W] in [0, 1], high where important.

    Source: Qi et al. 2020, AAAI 34; iGOS++'s ``IGOS``.
    """
    count, along = _LENGTHS[compat]

    def regulariser(product: Tensor, images: Tensor) -> Tensor:
        return l1 * (1 - product).abs().mean(dim=(1, 2)) + l2 * total_variation(product, 2.0)

    masks = optimise(
        model, images_BCHW, gaussian_blur(images_BCHW, blur_sigma_px, radius_px=blur_radius_px), targets_B,
        Objective((Term((0,), 1, False),), 1.0, regulariser), iterations or count, integration_steps or along,
        mask_size or cells_along_a_side(images_BCHW), step, normal_noise(images_BCHW, noise, seeds),
    )  # fmt: skip
    return 1 - resize_mask(masks, tuple(images_BCHW.shape[2:]))


def igos_plus_plus(
    model: nn.Module,
    images_BCHW: Tensor,
    targets_B: Tensor,
    *,
    compat: Compat = "corrected",
    iterations: int | None = None,
    integration_steps: int | None = None,
    mask_size: int | None = None,
    l1: float = 1.0,
    l2: float = 20.0,
    step: float = 1000.0,
    noise: float = 0.2,
    blur_sigma_px: float = 50.0,
    blur_radius_px: int = 25,
    seeds: Sequence[int],
) -> Tensor:
    """Two masks: D, whose removal lowers the probability, and K, whose insertion raises it; their product does both.

    Args:
        targets_B: int64 in [0, K).
        compat: ``original``: 20 iterations of 15 integration steps, since its program passes each as the other, and
            vertical differences weighed by ``square_of_mean``, see ``imaging.total_variation``. Corrected: 15
            iterations of 20 steps, as its arguments are called, and both axes weighed alike.
        iterations: Instead of those.
        integration_steps: Instead of those, n.
        mask_size: s; None: 28, but at most half of the shorter side.
        l1: Weight of the mean of 1 - D · K.
        l2: Weight of its bilateral total variation.
        step: Where the line search starts; it goes on with a fifth.
        noise: Standard deviation of what is added to every network input, in normalised space.
        blur_sigma_px: Of the baseline, the blurred image.
        blur_radius_px: Where that blur's kernel ends.
        seeds: One a row.

    Returns:
        [B, H, W] in [0, 1]: 1 minus the resized D · K, high where important.

    Source: Khorram et al. 2021, arXiv 2012.15783; NN-Explainer's copy of the authors' code.
    Differs: the baseline is blurred in float, not in bytes; the map is not stretched to [0, 1], which is for display.
    """
    count, along = _LENGTHS[compat]
    terms = (Term((0,), 1, False), Term((1,), -1, True), Term((0, 1), 1, False), Term((0, 1), -1, True))

    def regulariser(product: Tensor, images: Tensor) -> Tensor:
        roughness = bilateral_total_variation(images, product, vertical=_VERTICAL_WEIGHTS[compat])
        return l1 * (1 - product).abs().mean(dim=(1, 2)) + l2 * roughness

    masks = optimise(
        model, images_BCHW, gaussian_blur(images_BCHW, blur_sigma_px, radius_px=blur_radius_px), targets_B,
        Objective(terms, 0.5, regulariser), iterations or count, integration_steps or along,
        mask_size or cells_along_a_side(images_BCHW), step, normal_noise(images_BCHW, noise, seeds),
    )  # fmt: skip
    return 1 - resize_mask(masks, tuple(images_BCHW.shape[2:]))


def optimise(
    model: nn.Module,
    images_BCHW: Tensor,
    baselines_BCHW: Tensor,
    targets_B: Tensor,
    objective: Objective,
    iterations: int,
    integration_steps: int,
    mask_size: int,
    step: float,
    draw: Draw,
) -> Tensor:
    """Minimise the objective from masks of ones.

    Args:
        baselines_BCHW: What stands where a mask is 0.
        step: Where the line search starts.
        draw: From (row, count) to that row's next noise [count, C, H, W], to be added to inputs.

    Returns:
        Product of each image's masks [B, s, s], 1 keeps.
    """
    paths = _Paths(model, images_BCHW, baselines_BCHW, targets_B, objective, integration_steps, draw)
    count = 1 + max(index for term in objective.terms for index in term.masks)
    masks_BMss = images_BCHW.new_ones(len(images_BCHW), count, mask_size, mask_size)
    everyone = torch.arange(len(images_BCHW), device=images_BCHW.device)
    for _ in range(iterations):
        gradient_BMss = paths.gradient(masks_BMss)
        steps_B = _line_search(paths.loss, masks_BMss, gradient_BMss, step, everyone)
        masks_BMss = _moved(masks_BMss, gradient_BMss, steps_B)
    return masks_BMss.prod(dim=1)


def _line_search(
    loss: Callable[[Tensor, Tensor], Tensor], masks_BMss: Tensor, gradient_BMss: Tensor, start: float, rows: Tensor
) -> Tensor:
    """[B]: of ``start``, a fifth of it, … the first step that lowers a row's loss enough; else the first below 1e-5."""
    before_B = loss(masks_BMss, rows)
    enough_B = _SUFFICIENT * gradient_BMss.square().sum(dim=(1, 2, 3))
    steps_B = masks_BMss.new_full((len(rows),), start)
    length = start
    while len(rows) and length >= _SMALLEST_STEP:
        moved = _moved(masks_BMss[rows], gradient_BMss[rows], steps_B[rows])
        too_far = loss(moved, rows) > before_B[rows] - length * enough_B[rows]
        rows = rows[too_far]
        length *= _SHRINK
        steps_B[rows] = length
    return steps_B


def _moved(masks_BMss: Tensor, gradient_BMss: Tensor, steps_B: Tensor) -> Tensor:
    return (masks_BMss - steps_B[:, None, None, None] * gradient_BMss).clamp(0, 1)


@dataclass(frozen=True)
class _Paths:
    """The objective of some images: its scores along their paths, in full passes."""

    model: nn.Module
    images_BCHW: Tensor
    baselines_BCHW: Tensor
    targets_B: Tensor
    objective: Objective
    integration_steps: int
    draw: Draw

    def loss(self, masks_RMss: Tensor, rows: Tensor) -> Tensor:
        """[R]: the loss of some rows with these masks."""
        numbers, terms = rows.tolist(), self.objective.terms
        totals = masks_RMss.new_zeros(len(numbers), len(terms))

        def evaluate(inputs: Tensor, copies: Sequence[tuple[int, int]]) -> Tensor:
            with torch.no_grad():
                return probability(self.model(inputs), self._targets(numbers, copies))

        def collect(index: int, start: int, stop: int, scores: Tensor) -> None:
            totals[index].index_add_(0, self._term_of(start, stop), scores)

        images = self.images_BCHW[rows]
        self._along_paths(masks_RMss, numbers, evaluate, collect, keeps_activations=False)
        signs = totals.new_tensor([term.sign for term in terms])
        with torch.no_grad():
            return totals @ signs / self.integration_steps + self.objective.regulariser(masks_RMss.prod(dim=1), images)

    def gradient(self, masks_BMss: Tensor) -> Tensor:
        """[B, M, s, s] of the scores, scaled, and of the regulariser."""
        images, baselines, terms = self.images_BCHW, self.baselines_BCHW, self.objective.terms
        slopes_BTHW = images.new_zeros(len(images), len(terms), *images.shape[2:])

        def evaluate(inputs: Tensor, copies: Sequence[tuple[int, int]]) -> Tensor:
            return score_gradients(self.model, inputs, self._targets(range(len(images)), copies), probability)[1]

        def collect(index: int, start: int, stop: int, gradients: Tensor) -> None:
            along_mask = (gradients * (images[index] - baselines[index])).sum(dim=1)
            along_mask *= self._fractions(start, stop)[:, None, None]
            slopes_BTHW[index].index_add_(0, self._term_of(start, stop), along_mask)

        self._along_paths(masks_BMss, range(len(images)), evaluate, collect, keeps_activations=True)
        with torch.enable_grad():
            leaf = masks_BMss.detach().requires_grad_()
            linear = leaf.new_zeros(())
            for index, (term, resized) in enumerate(zip(terms, self._resized(leaf), strict=True)):
                sign = -term.sign if term.inserts else term.sign  # inserting, the mask shows the baseline
                linear = linear + sign * (slopes_BTHW[:, index] * resized).sum()
            scaled = self.objective.gradient_scale / self.integration_steps * linear
            total = scaled + self.objective.regulariser(leaf.prod(dim=1), images).sum()
            (gradient,) = torch.autograd.grad(total, leaf)
        return gradient

    def _along_paths(
        self,
        masks_RMss: Tensor,
        numbers: Sequence[int],
        evaluate: Callable[[Tensor, Sequence[tuple[int, int]]], Tensor],
        collect: Callable[[int, int, int, Tensor], None],
        *,
        keeps_activations: bool,
    ) -> None:
        """Evaluate every term of every row at every integration step; a copy is (term, step), term by term."""
        images, baselines = self.images_BCHW[list(numbers)], self.baselines_BCHW[list(numbers)]
        with torch.no_grad():
            resized_RTHW = torch.stack(self._resized(masks_RMss), dim=1)

        def vary(index: int, start: int, stop: int) -> Tensor:
            terms = self._term_of(start, stop)
            masks = resized_RTHW[index, terms] * self._fractions(start, stop)[:, None, None]
            inserts = masks.new_tensor([term.inserts for term in self.objective.terms])[terms].bool()
            shown = torch.where(inserts[:, None, None], 1 - masks, masks)
            inputs = torch.lerp(baselines[index], images[index], shown[:, None])
            inputs = inputs + self.draw(numbers[index], stop - start)
            return inputs.contiguous(memory_format=memory_format(self.images_BCHW))

        repeats = len(self.objective.terms) * self.integration_steps
        in_full_passes(images, repeats, vary, evaluate, collect, keeps_activations=keeps_activations)

    def _resized(self, masks_RMss: Tensor) -> list[Tensor]:
        """For each term its masks' product [R, H, W], each mask resized before."""
        rows, count = masks_RMss.shape[:2]
        fine = resize_mask(masks_RMss.flatten(0, 1), tuple(self.images_BCHW.shape[2:]))
        fine = fine.reshape(rows, count, *fine.shape[1:])
        return [fine[:, list(term.masks)].prod(dim=1) for term in self.objective.terms]

    def _targets(self, numbers: Sequence[int], copies: Sequence[tuple[int, int]]) -> Tensor:
        return self.targets_B[[numbers[index] for index, _ in copies]]

    def _term_of(self, start: int, stop: int) -> Tensor:
        copies = torch.arange(start, stop, device=self.images_BCHW.device)
        return copies.div(self.integration_steps, rounding_mode="floor")

    def _fractions(self, start: int, stop: int) -> Tensor:
        copies = torch.arange(start, stop, device=self.images_BCHW.device)
        return (copies.remainder(self.integration_steps) + 1).to(self.images_BCHW) / self.integration_steps
