"""Smooth masks from a coarse grid of parameters: the smooth maximum of bumps, one around each grid point.

A position u of the mask sees (2R + 1)² grid points. Written out, that is 81 numbers for each of 260² positions at the
published settings, more work than a small network's passes. Three facts make the same sums cheap:

- a weight depends only on where u lies within its cell of s × s positions (its phase) and on the tap, not on the cell;
- it depends only on |dy| and |dx|, so that an exponential, of one grid point and one pair of distances, serves up to
  four positions: each is computed once and added where it belongs;
- sums over taps along y and along x follow one another.

Shapes: N masks, g × g grid points, A distances along an axis, s × s phases, c × c cells; masks are innermost.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

Combine = Literal["smooth_max", "sum", "sigmoid"]

_COLDNESS = 20.0


@dataclass(frozen=True)
class Axis:
    """Geometry along one axis.

    Args:
        length: Visible positions.
        step: Positions in a cell, s.
        sigma: Half width of a bump and of the margin, in positions.
    """

    length: int
    step: int
    sigma: float

    @property
    def grid(self) -> int:
        """Grid points."""
        return math.ceil(self.length / self.step)

    @property
    def radius(self) -> int:
        """Grid points to either side that a position sees, R."""
        return 1 + math.ceil(self.sigma / self.step)

    @property
    def padding(self) -> int:
        """Grid points of value 0 beyond either end."""
        return 1 + math.ceil(2 * self.sigma / self.step)

    @property
    def cells(self) -> int:
        """Cells of the padded mask: the original's, or as many as the visible part needs where those fall short."""
        return max(self.grid + 2 * self.padding - 2 * self.radius, math.ceil((self.margin + self.length) / self.step))

    @property
    def full_length(self) -> int:
        """Positions of the padded mask."""
        return max(self.step * (self.cells - 1) + 1, self.margin + self.length)

    @property
    def margin(self) -> int:
        """Invisible positions before the first visible one."""
        return round(self.sigma)

    @cached_property
    def taps(self) -> list[tuple[float, list[tuple[int, int]]]]:
        """For each distance between position and grid point: where it occurs, as pairs (phase, cell - grid point)."""
        places: dict[float, list[tuple[int, int]]] = {}
        for tap in range(2 * self.radius + 1):
            shift = self.padding - tap
            for phase in range(self.step):
                distance = round(abs(phase - self.sigma + self.step * shift), 9)
                places.setdefault(distance, []).append((phase, shift))
        return sorted(places.items())


@dataclass(frozen=True)
class Window:
    """Which cells of the padded mask are computed, along one axis: [first, last)."""

    axis: Axis
    first: int
    last: int

    @property
    def cells(self) -> int:
        """How many."""
        return self.last - self.first

    def overlap(self, shift: int) -> tuple[slice, slice]:
        """Where a tap's grid points and the cells they add to lie: (cells of the window, grid points)."""
        start = max(0, self.first - shift)
        stop = max(start, min(self.axis.grid, self.last - shift))
        return slice(start + shift - self.first, stop + shift - self.first), slice(start, stop)


class MaskGenerator:
    """Masks of H × W px from grids of ceil(H / step) × ceil(W / step) parameters.

    Args:
        height: Of the mask, px.
        width: Of the mask, px.
        step_px: Distance of grid points.
        sigma_px: Width of a bump: weight 1 up to sigma / 2, then exp(-2 (d / sigma - 1/2)²). Also the margin's width.
        combine: How a position combines what it sees: ``smooth_max``: Σ z softmax(20 z); ``sum``: Σ z; ``sigmoid``:
            sigmoid(20 Σ z - 3); z is weight · parameter. All are clamped to [0, 1].

    Source: Fong et al. 2019, arXiv 1910.08485, section 3.2 (smooth max convolution); TorchRay's MaskGenerator.
    """

    def __init__(
        self, height: int, width: int, *, step_px: int = 7, sigma_px: float = 21.0, combine: Combine = "smooth_max"
    ) -> None:
        self.rows, self.columns = Axis(height, step_px, sigma_px), Axis(width, step_px, sigma_px)
        self.combine = combine

    @property
    def grid(self) -> tuple[int, int]:
        """Parameters of one mask: (rows, columns)."""
        return self.rows.grid, self.columns.grid

    def __call__(self, grid_Ngg: Tensor, *, padded: bool = False) -> Tensor:
        """Make masks.

        Args:
            grid_Ngg: Parameters in [0, 1], floating point; differentiable.
            padded: Also the margin, which the original's area constraint counts.

        Returns:
            [N, H, W] in [0, 1], or padded, [N, H + about 2 sigma, W + about 2 sigma]; ``visible`` crops those.
        """
        windows = tuple(self._window(axis, padded) for axis in (self.rows, self.columns))
        if self.combine == "smooth_max":
            masks: Tensor = _SmoothMax.apply(grid_Ngg, *windows)  # type: ignore[no-untyped-call]
        else:
            masks = combined_sums(_weighted_sums(grid_Ngg, *windows), self.combine).clamp(0, 1)
        y, x = (slice(0, w.axis.full_length) if padded else _visible(w) for w in windows)
        return masks[:, y, x]

    def reach(self, like: Tensor) -> Tensor:
        """How much of the visible mask each parameter's bump covers: the sum of its weights there, in px.

        Parameters at the border reach fewer pixels than those inside.

        Args:
            like: A tensor of the dtype and device wanted.

        Returns:
            [1, rows, columns].
        """
        windows = tuple(self._window(axis, padded=False) for axis in (self.rows, self.columns))
        y, x = (_visible(window) for window in windows)
        with torch.enable_grad():
            ones = like.new_ones(1, *self.grid).requires_grad_()
            (reach,) = torch.autograd.grad(_weighted_sums(ones, *windows)[:, y, x].sum(), ones)
        return reach

    def visible(self, padded_Nhw: Tensor) -> Tensor:
        """Crop the margin: [N, H, W]."""
        return visible_part(padded_Nhw, self.rows, self.columns)

    @staticmethod
    def _window(axis: Axis, padded: bool) -> Window:
        if padded:
            return Window(axis, 0, axis.cells)
        return Window(axis, axis.margin // axis.step, math.ceil((axis.margin + axis.length) / axis.step))


def combined_sums(sums: Tensor, combine: Combine) -> Tensor:
    """``sum`` and ``sigmoid`` of Σ z, not clamped."""
    return torch.sigmoid(_COLDNESS * sums - 3) if combine == "sigmoid" else sums


def visible_part(padded_Nhw: Tensor, rows: Axis, columns: Axis) -> Tensor:
    """[N, H, W]: a padded mask without its margin."""
    y, x = (slice(axis.margin, axis.margin + axis.length) for axis in (rows, columns))
    return padded_Nhw[:, y, x]


def _visible(window: Window) -> slice:
    start = window.axis.margin - window.first * window.axis.step
    return slice(start, start + window.axis.length)


def _weights(rows: Axis, columns: Axis, like: Tensor) -> Tensor:
    """[A, A]: weight of a grid point for each pair of distances along y and along x."""
    dy, dx = (torch.tensor([distance for distance, _ in axis.taps], dtype=torch.float64) for axis in (rows, columns))
    distance = torch.hypot(dy[:, None], dx[None, :])
    return torch.exp(-2 * (distance / rows.sigma - 0.5).clamp(min=0) ** 2).to(like)


def _y_taps(window: Window) -> Iterator[tuple[int, int, slice, slice]]:
    """(distance's index, phase, cells, grid points) of every tap."""
    for index, (_, places) in enumerate(window.axis.taps):
        for phase, shift in places:
            yield index, phase, *window.overlap(shift)


class _SmoothMax(torch.autograd.Function):
    """Σ z exp(20 z) / Σ exp(20 z) over the taps of every position, without a tensor of taps × positions."""

    @staticmethod
    def forward(ctx: Any, grid_Ngg: Tensor, rows: Window, columns: Window) -> Tensor:
        """[N, g, g] → [N, cells · s, cells · s]."""
        grid_ggN = grid_Ngg.permute(1, 2, 0).contiguous()
        weights_AA = _COLDNESS * _weights(rows.axis, columns.axis, grid_ggN)
        step, count = rows.axis.step, len(grid_Ngg)
        along_x = grid_ggN.new_zeros(2, len(weights_AA), step, rows.axis.grid, columns.cells, count)
        exponent = grid_ggN.new_empty(len(weights_AA), *grid_ggN.shape)
        exponential = torch.empty_like(exponent)
        for index, (_, places) in enumerate(columns.axis.taps):
            torch.mul(weights_AA[:, index, None, None, None], grid_ggN, out=exponent)
            torch.exp(exponent, out=exponential)
            exponent *= exponential
            for phase, shift in places:
                cells, points = columns.overlap(shift)
                along_x[0, :, phase, :, cells] += exponential[:, :, points]
                along_x[1, :, phase, :, cells] += exponent[:, :, points]
        sums = grid_ggN.new_zeros(2, step, step, rows.cells, columns.cells, count)
        for index, phase, cells, points in _y_taps(rows):
            sums[:, phase, :, cells] += along_x[:, index, :, points]
        unseen = _taps_beyond_the_grid(rows, columns).to(grid_ggN)
        total = sums[0].add_(unseen[..., None])
        masks = sums[1].div_(total)
        ctx.save_for_backward(grid_ggN, weights_AA, total, masks)
        ctx.windows = rows, columns
        return _to_raster(masks / _COLDNESS).clamp_(0, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """d mask / d z = exp(20 z) (1 + 20 z - 20 mask) / Σ exp(20 z)."""
        grid_ggN, weights_AA, total, masks = ctx.saved_tensors
        rows, columns = ctx.windows
        step, count = rows.axis.step, grid_ggN.shape[2]
        fields = grid_ggN.new_empty(2, *total.shape)
        torch.div(_to_phases(gradients[0], rows, columns), total, out=fields[1])
        torch.mul(fields[1], 1 - masks, out=fields[0])
        folded = grid_ggN.new_zeros(2, len(weights_AA), step, rows.axis.grid, columns.cells, count)
        for index, phase, cells, points in _y_taps(rows):
            folded[:, index, :, points] += fields[:, phase, :, cells]
        gradient = torch.zeros_like(grid_ggN)
        exponent = grid_ggN.new_empty(len(weights_AA), *grid_ggN.shape)
        seen = grid_ggN.new_empty(2, *exponent.shape)
        for index, (_, places) in enumerate(columns.axis.taps):
            seen.zero_()
            for phase, shift in places:
                cells, points = columns.overlap(shift)
                seen[:, :, :, points] += folded[:, :, phase, :, cells]
            torch.mul(weights_AA[:, index, None, None, None], grid_ggN, out=exponent)
            seen[0].addcmul_(seen[1], exponent)
            seen[0] *= exponent.exp_()
            gradient += torch.mv(seen[0].flatten(1).T, weights_AA[:, index]).view_as(gradient)
        return (gradient / _COLDNESS).permute(2, 0, 1), None, None


def _taps_beyond_the_grid(rows: Window, columns: Window) -> Tensor:
    """[s, s, cells, cells]: how many of a position's taps see the padding, where exp(20 · 0) = 1."""

    def inside(window: Window) -> Tensor:
        seen = torch.zeros(window.axis.step, window.cells, dtype=torch.float64)
        for _, phase, cells, _ in _y_taps(window):
            seen[phase, cells] += 1
        return seen

    taps = (2 * rows.axis.radius + 1) * (2 * columns.axis.radius + 1)
    return taps - inside(rows)[:, None, :, None] * inside(columns)[None, :, None, :]


def _weighted_sums(grid_Ngg: Tensor, rows: Window, columns: Window) -> Tensor:
    """Σ z over the taps of every position: one matrix product, [N, cells · s, cells · s]."""
    taps = [
        {(phase, shift): index for index, (_, places) in enumerate(w.axis.taps) for phase, shift in places}
        for w in (rows, columns)
    ]
    weights_AA = _weights(rows.axis, columns.axis, grid_Ngg)
    step, radius, padding = rows.axis.step, (rows.axis.radius, columns.axis.radius), rows.axis.padding
    index_y, index_x = (
        torch.tensor([[where[phase, padding - tap] for tap in range(2 * r + 1)] for phase in range(step)])
        for where, r in zip(taps, radius, strict=True)
    )
    kernel = weights_AA[index_y[:, None, :, None], index_x[None, :, None, :]].flatten(0, 1)[:, None]
    right, below = (axis.cells + 2 * axis.radius - axis.grid - padding for axis in (columns.axis, rows.axis))
    sums = functional.conv2d(functional.pad(grid_Ngg[:, None], (padding, right, padding, below)), kernel)
    sums = sums[:, :, rows.first : rows.last, columns.first : columns.last]
    return functional.pixel_shuffle(sums, step)[:, 0]


def _to_raster(phases: Tensor) -> Tensor:
    """[s, s, c, c, N] → [N, c · s, c · s]."""
    step, _, down, across, count = phases.shape
    return phases.permute(4, 2, 0, 3, 1).reshape(count, down * step, across * step)


def _to_phases(raster: Tensor, rows: Window, columns: Window) -> Tensor:
    """The inverse of ``_to_raster``."""
    step = rows.axis.step
    return raster.reshape(len(raster), rows.cells, step, columns.cells, step).permute(2, 4, 1, 3, 0)
