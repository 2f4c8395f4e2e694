"""Solves the masked 8-neighbour Laplacian for many masks at once: conjugate gradients, preconditioned by multigrid.

No matrix is built: the stencil (2 for direct, 1 for diagonal neighbours) is separable, so that every step is a few
shifted sums over all systems together. Its weights are whole numbers: rounded ones, such as 1/6 and 1/12, would not add
up to the rounded degree, and in a large hole that little leak costs float32 two decimals. Shapes: N masks, C right-hand
sides a mask, h × w cells of a level; level 0 has the pixels. Unknown cells are 1 in a level's mask, known cells are 0,
in every right-hand side and solution too.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

_COARSEST_PX = 3
_COARSEST_SWEEPS = 6


def solve(rhs_NCHW: Tensor, unknown_N1HW: Tensor, *, tolerance: float, iterations: int) -> tuple[Tensor, Tensor]:
    """Solve degree(i) · v_i - Σ_j w_ij · v_j = rhs_i over the unknown pixels i, with j their unknown neighbours.

    w is 2 beside and 1 across, the degree its sum over all neighbours inside the image: 12 but at the border. So the
    system is symmetric and, where at least one pixel is known, positive definite. A system that has reached the
    tolerance is left as it is while others go on: its solution doesn't depend on them.

    Args:
        rhs_NCHW: float32 or float64, 0 at known pixels.
        unknown_N1HW: 1 where unknown, else 0, of the same dtype.
        tolerance: A system is done where the estimated error, the largest preconditioned residual, is at most this.
        iterations: At most. On a CPU the loop ends when all systems are done; elsewhere all iterations are made, since
            to look would mean to wait for the device.

    Returns:
        Solutions [N, C, H, W], 0 at known pixels, and the estimated errors [N, C], finite.

    Source: Rong et al. 2022, arXiv 2202.00449, appendix; Briggs et al. 2000, A Multigrid Tutorial; McAdams et al. 2010,
    a multigrid solver as preconditioner on irregular domains.
    """
    levels = _levels(unknown_N1HW)
    solution, residual = torch.zeros_like(rhs_NCHW), rhs_NCHW.clone()
    direction = torch.zeros_like(rhs_NCHW)
    before = torch.ones_like(rhs_NCHW[:, :, :1, :1])
    error = torch.full_like(before, torch.inf)
    for _ in range(iterations + 1):
        correction = _cycle(levels, 0, residual)
        # A system that was done stays done: its error is no longer looked at.
        error = torch.where(error > tolerance, correction.abs().amax(dim=(2, 3), keepdim=True), error)
        going = error > tolerance
        if rhs_NCHW.device.type == "cpu" and not bool(going.any()):
            break
        product = _dot(residual, correction)
        direction = torch.addcmul(correction, direction, _ratio(product, before))
        image = _negative_image(levels[0], direction).mul_(unknown_N1HW)
        step = torch.where(going, _ratio(product, -_dot(direction, image)), 0)
        solution.addcmul_(direction, step)
        residual.addcmul_(image, step)
        before = product
    return solution, error[:, :, 0, 0]


def neighbour_sums(values: Tensor) -> Tensor:
    """Twice the direct and once the diagonal neighbours inside the image, for every pixel; [..., H, W] to the same."""
    return _window_sums(values).sub_(values, alpha=4)


def _window_sums(values: Tensor) -> Tensor:
    """As ``neighbour_sums``, and four times the pixel itself: [1 2 1]ᵀ · [1 2 1], where [1 2 1] is [1 1] twice."""
    padded = functional.pad(values, (1, 1, 1, 1))
    pairs = padded[..., :-1, :] + padded[..., 1:, :]
    triples = pairs[..., :-1, :] + pairs[..., 1:, :]
    pairs = triples[..., :-1] + triples[..., 1:]
    return pairs[..., :-1] + pairs[..., 1:]


@dataclass(frozen=True)
class _Level:
    """One grid.

    Attributes:
        unknown: [N, 1, h, w].
        centre: [1, 1, h, w], the degree and 4, what ``_window_sums`` has of the pixel itself.
        jacobi: [N, 1, h, w], 1 / degree at unknown cells, 0 at known ones.
        rows: [h, ceil(h / 2)], from the next coarser level's rows to this one's; columns [w, ceil(w / 2)] likewise.
    """

    unknown: Tensor
    centre: Tensor
    jacobi: Tensor
    rows: Tensor
    columns: Tensor


def _levels(unknown_N1HW: Tensor) -> list[_Level]:
    """Grids of half the side each. A coarse cell is unknown where all of its finer cells are."""
    levels: list[_Level] = []
    unknown = unknown_N1HW
    while True:
        height, width = unknown.shape[-2:]
        degree = neighbour_sums(torch.ones_like(unknown[:1])).clamp(min=1)
        rows, columns = _interpolation(height, unknown), _interpolation(width, unknown)
        levels.append(_Level(unknown, degree + 4, unknown / degree, rows, columns))
        if min(height, width) <= _COARSEST_PX:
            return levels
        # Cells that stick out of an image of odd size count as unknown.
        even = functional.pad(unknown, (0, width % 2, 0, height % 2), value=1.0)
        unknown = -functional.max_pool2d(-even, 2)


def _interpolation(fine: int, like: Tensor) -> Tensor:
    """[fine, ceil(fine / 2)]: linear interpolation between centres of cells, constant beyond the outermost ones."""
    coarse = -(-fine // 2)
    cells = torch.arange(fine, device=like.device)
    own, other = cells // 2, (cells // 2 + 2 * (cells % 2) - 1).clamp(0, coarse - 1)
    matrix = torch.zeros(fine, coarse, dtype=like.dtype, device=like.device)
    matrix[cells, own] += 0.75
    matrix[cells, other] += 0.25
    return matrix


def _cycle(levels: list[_Level], depth: int, rhs: Tensor) -> Tensor:
    """One V-cycle from zero: a symmetric, positive definite estimate of the solution for this right-hand side."""
    level = levels[depth]
    found = rhs * level.jacobi
    if depth + 1 < len(levels):
        residual = _negative_image(level, found).add_(rhs).mul_(level.unknown)
        summed = torch.matmul(level.rows.T, torch.matmul(residual, level.columns))
        correction = _cycle(levels, depth + 1, summed * levels[depth + 1].unknown)
        spread = torch.matmul(torch.matmul(level.rows, correction), level.columns.T)
        found.addcmul_(spread, level.unknown)
        sweeps = 1
    else:
        sweeps = _COARSEST_SWEEPS
    for _ in range(sweeps):
        found.addcmul_(_negative_image(level, found).add_(rhs), level.jacobi)
    return found


def _negative_image(level: _Level, values: Tensor) -> Tensor:
    """Minus the system's matrix times values that are 0 at known cells; at known cells the result means nothing."""
    return _window_sums(values).addcmul_(level.centre, values, value=-1)


def _dot(one: Tensor, other: Tensor) -> Tensor:
    return (one * other).sum(dim=(2, 3), keepdim=True)


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    """Quotient, 0 where a system has nothing left to solve."""
    return torch.where(below > 0, above / torch.where(below > 0, below, 1), 0)
