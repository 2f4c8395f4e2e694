"""Gradient SHAP (expected gradients): gradients at random points between the image and random baselines.

captum's GradientShap draws from the global generators for a whole batch, so that a map would depend on its neighbours;
here every image has a generator of its own. Tests hold it against captum given the same draws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from roarline.attribution.passes import accumulate_passes
from roarline.errors import MethodError, UserInputError


def gradient_shap(
    model: nn.Module,
    images_BCHW: Tensor,
    targets_B: Tensor,
    *,
    samples: int = 25,
    noise: float = 0.0,
    baselines: str = "references",
    reference_images: int = 16,
    baseline: float = 0.0,
    multiply_by_inputs: bool = True,
    seeds: Sequence[int],
    references: Callable[[int], Tensor],
) -> Tensor:
    """Mean over random baselines b and points t of the gradient at b + t (x - b), times x - b.

    Args:
        targets_B: int64 in [0, K).
        samples: Draws of (baseline, point, noise) an image.
        noise: Standard deviation of the noise on x as a fraction of the image's own range, max - min over all its
            normalised values.
        baselines: ``references``: training images; ``constant``: one value everywhere.
        reference_images: How many training images to draw baselines from.
        baseline: The constant, in normalised space.
        multiply_by_inputs: True multiplies by x - b, with x as noisy as it was.
        seeds: One a row.
        references: Gives training images, normalised [n, C, H, W].

    Returns:
        [B, C, H, W]; without noise they sum, in expectation, to the logit less its mean over the baselines.

    Raises:
        MethodError: Another kind of baselines, or no training images to take them from.

    Source: Lundberg and Lee 2017, arXiv 1705.07874, as captum's GradientShap; Erion et al. 2021, arXiv 1906.10670,
    equation 4 (expected gradients, without noise).
    """
    if baselines not in ("references", "constant"):
        raise MethodError(f"gradient_shap: baselines {baselines!r}, expected references or constant")
    if baselines == "references":
        try:
            among = references(reference_images).to(images_BCHW)
        except UserInputError as error:
            raise MethodError(f"{error}; gradient_shap with baselines: constant needs none") from error
    else:
        among = torch.full_like(images_BCHW[:1], baseline)
    draws = [_Draws(image, among, noise, seed) for image, seed in zip(images_BCHW, seeds, strict=True)]
    total = torch.zeros_like(images_BCHW)
    differences: dict[tuple[int, int], Tensor] = {}

    def vary(image: int, start: int, stop: int) -> Tensor:
        points, differences[image, start] = draws[image].next(stop - start)
        return points

    def collect(image: int, start: int, stop: int, gradients: Tensor) -> None:
        difference = differences.pop((image, start))
        total[image] += (gradients * difference if multiply_by_inputs else gradients).sum(dim=0)

    accumulate_passes(model, images_BCHW, targets_B, samples, vary, collect)
    return total / samples


class _Draws:
    """The random points of one image, drawn in order from its own generator on the CPU."""

    def __init__(self, image_CHW: Tensor, among_NCHW: Tensor, noise: float, seed: int) -> None:
        self._image, self._among = image_CHW, among_NCHW
        self._deviation = noise * (image_CHW.amax() - image_CHW.amin()) if noise else None
        self._generator = torch.Generator().manual_seed(seed)

    def next(self, count: int) -> tuple[Tensor, Tensor]:
        """The next points [count, C, H, W], and x - b of each."""
        drawn = [self._draw() for _ in range(count)]
        chosen = torch.stack([index for index, _, _ in drawn]).to(self._image.device)
        places = torch.stack([place for _, place, _ in drawn]).to(self._image)[:, None, None, None]
        inputs = self._image
        if self._deviation is not None:
            inputs = inputs + self._deviation * torch.stack([normal for _, _, normal in drawn]).to(self._image)
        baselines = self._among[chosen]
        difference = inputs - baselines
        return baselines + places * difference, difference

    def _draw(self) -> tuple[Tensor, Tensor, Tensor]:
        index = torch.randint(len(self._among), (), generator=self._generator)
        place = torch.rand((), generator=self._generator, dtype=torch.float64)
        shape = self._image.shape if self._deviation is not None else (0,)
        return index, place, torch.randn(shape, generator=self._generator)
