"""Noisy linear imputation: each removed pixel is the weighted mean of its eight neighbours, plus noise.

Neighbours that were removed too are unknowns of the same linear system, so that holes are filled smoothly from their
rims. All images, removed fractions and channels are solved together, see ``masked_laplacian``. Shapes: N altered
images, C channels, H × W px.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from roarline.imaging.masked_laplacian import neighbour_sums, solve
from roarline.imaging.removal import replace

TOLERANCE = 5e-7
ITERATIONS = 20
# Systems that a CPU solves at a time, in pixels of one channel: their grids stay in the cache.
_CPU_BLOCK_PX = 4 * 3 * 224 * 224


def impute(
    images_NCHW: Tensor,
    removed_NHW: Tensor,
    noise_NCHW: Tensor | None = None,
    *,
    nothing_known: Tensor | float = 0.0,
    pixel_range: float = 1.0,
    iterations: int = ITERATIONS,
) -> Tensor:
    """Fill removed pixels from the known ones.

    For every removed pixel i and channel, (Σ_j w_ij) v_i = Σ_j w_ij v_j over its neighbours j inside the image, with w
    beside twice that across, v_j the known value or the unknown one. Solved to an error of about 1e-5 of the
    pixel range or better. The result doesn't depend on the other images.

    Args:
        images_NCHW: [N, C, H, W], or [1, C, H, W] where one image is altered in N ways; floating point, in any affine
            space of the pixels, e.g. normalised.
        removed_NHW: bool, True where removed.
        noise_NCHW: Added to removed pixels, broadcastable to the images and in their space; none by default. Nothing is
            clipped.
        nothing_known: What an image becomes that has no known pixel, before noise; broadcastable to [N, C, 1, 1].
        pixel_range: Distance of black from white in the images' space, which scales the tolerance.
        iterations: Of the solver, at most.

    Returns:
        [N, C, H, W], a new tensor of the images' dtype and memory format; NaN at the removed pixels of an image whose
        system was not solved to 1e-3 of the pixel range.

    Source: Rong et al. 2022, arXiv 2202.00449, section 5; road_evaluation's and pytorch-grad-cam's NoisyLinearImputer.
    Differs: nothing known, where the system is singular, has the outcome stated above.
    """
    filled = [
        _impute(images, removed, noise, outcome, pixel_range, iterations)
        for images, removed, noise, outcome in _blocks(images_NCHW, removed_NHW, noise_NCHW, nothing_known)
    ]
    return torch.cat(filled) if len(filled) != 1 else filled[0]


def _blocks(
    images: Tensor, removed: Tensor, noise: Tensor | None, nothing_known: Tensor | float
) -> Iterator[tuple[Tensor, Tensor, Tensor | float, Tensor | float]]:
    """Few systems at a time on a CPU, all of them elsewhere."""
    count, channels, height, width = len(removed), images.shape[1], *images.shape[2:]
    block = max(1, _CPU_BLOCK_PX // (channels * height * width)) if images.device.type == "cpu" else max(1, count)
    for start in range(0, max(1, count), block):
        rows = slice(start, start + block)

        def some(values: Tensor, rows: slice = rows) -> Tensor:
            return values if values.ndim < 4 or len(values) == 1 else values[rows]

        yield (
            some(images),
            removed[rows],
            0.0 if noise is None else some(noise),
            some(nothing_known) if isinstance(nothing_known, Tensor) else nothing_known,
        )


def _impute(
    images: Tensor, removed_NHW: Tensor, noise: Tensor | float, nothing_known: Tensor | float, pixel_range: float,
    iterations: int,
) -> Tensor:  # fmt: skip
    with _full_precision(images.device):
        pixels = images.contiguous()
        unknown = removed_NHW[:, None].to(pixels.dtype)
        known = 1 - unknown
        pixels_known = known.sum(dim=(2, 3), keepdim=True)
        # Around the mean of what is known the numbers are small, and float32 holds them closely.
        values = (pixels * known).sum(dim=(2, 3), keepdim=True) / pixels_known.clamp(min=1)
        centre = torch.where(pixels_known > 0, values, nothing_known)
        rhs = neighbour_sums((pixels - centre) * known) * unknown
        found, error = solve(rhs, unknown, tolerance=TOLERANCE * pixel_range, iterations=iterations)
        unsolved = ~(error <= 1e-3 * pixel_range)[:, :, None, None]
        filled = (found + centre + noise).masked_fill(unsolved, torch.nan)
    return replace(images, removed_NHW, filled)


def _full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Mixed precision would cut the solver's numbers to 16 bits."""
    if torch.amp.autocast_mode.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
