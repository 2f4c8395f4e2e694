"""RISE's masks: coarse random grids, enlarged smoothly and shifted.

A mask is R G Cᵀ with G the grid of cells and R, C the enlargement and shift of its two axes. So are weighted sums of
masks: weights are added up cell by cell and shift by shift, and enlarged once at the end, at a cost that hardly depends
on the number of masks and never needs the masks themselves.

Shapes: N masks, s × s cells, H × W px, R maps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

Enlargement = Literal["exact", "whole_px"]

_MAPS_AT_ONCE = 64


@dataclass(frozen=True)
class ShiftedGrids:
    """N masks in the form in which they are drawn.

    Attributes:
        grids_Nss: 1 where a cell is kept, else 0; floating point.
        shifts_N2: int64, rows and columns by which the enlarged grid is shifted, in [0, px of a cell).
        size: (H, W).
        enlargement: ``exact``: the s cells fill (s + 1) · ceil(side / s) px, as in the paper's code; ``whole_px``: each
            is enlarged to the next whole number of px, and what sticks out is cut off, as TorchRay does.
    """

    grids_Nss: Tensor
    shifts_N2: Tensor
    size: tuple[int, int]
    enlargement: Enlargement = "exact"

    def __len__(self) -> int:
        return len(self.grids_Nss)

    def masks(self, chosen: slice) -> Tensor:
        """Some of the masks, [n, H, W] in [0, 1]."""
        rows, columns = (table[self.shifts_N2[chosen, axis]] for axis, table in enumerate(self._tables))
        return torch.bmm(torch.bmm(rows, self.grids_Nss[chosen]), columns.transpose(1, 2))

    def weighted_sum(self, weights_RN: Tensor) -> Tensor:
        """Sum over n of weights[:, n] · mask n, without making a mask.

        Returns:
            [R, H, W] of the weights' dtype.
        """
        parts = [self._weighted_sum(part) for part in torch.split(weights_RN, _MAPS_AT_ONCE)]
        return torch.cat(parts) if len(parts) != 1 else parts[0]

    def _weighted_sum(self, weights_RN: Tensor) -> Tensor:
        row_table, column_table = (table.to(weights_RN.dtype) for table in self._tables)
        cells = self.grids_Nss.shape[1]
        sums = weights_RN.new_zeros((len(weights_RN), len(row_table) * len(column_table), cells, cells))
        bucket_N = self.shifts_N2[:, 0] * len(column_table) + self.shifts_N2[:, 1]
        grids = self.grids_Nss.to(weights_RN.dtype)
        for row in range(cells):
            for column in range(cells):
                sums[:, :, row, column].index_add_(1, bucket_N, weights_RN * grids[:, row, column])
        by_axis = sums.reshape(len(sums), len(row_table), len(column_table), cells, cells).permute(0, 1, 3, 2, 4)
        core = by_axis.reshape(len(sums), len(row_table) * cells, len(column_table) * cells)
        enlarge_rows = row_table.permute(1, 0, 2).flatten(1)
        enlarge_columns = column_table.permute(1, 0, 2).flatten(1)
        return torch.matmul(torch.matmul(enlarge_rows, core), enlarge_columns.T)

    @cached_property
    def _tables(self) -> tuple[Tensor, Tensor]:
        """For each axis [shifts, px, s]: how much of each cell a pixel sees at each shift."""
        cells = self.grids_Nss.shape[1]
        rows, columns = (_enlargement_table(side, cells, self.enlargement) for side in self.size)
        return rows.to(self.grids_Nss), columns.to(self.grids_Nss)


def draw_shifted_grids(
    count: int,
    cells: int,
    p: float,
    size: tuple[int, int],
    generator: torch.Generator,
    enlargement: Enlargement = "exact",
) -> ShiftedGrids:
    """Draw masks: a cell is kept with probability p, shifts are uniform in [0, px of a cell).

    Args:
        count: N.
        cells: s.
        size: (H, W) of a mask in px.
        generator: On the CPU, so that masks are the same on every device.
    """
    uniform = torch.rand((count, cells, cells), generator=generator)
    shifts = [torch.randint(math.ceil(side / cells), (count,), generator=generator) for side in size]
    return ShiftedGrids((uniform < p).to(torch.float32), torch.stack(shifts, dim=1), size, enlargement)


def enlargement_matrix(length: int, cells: int, cell_px: float) -> Tensor:
    """Bilinear enlargement along one axis, the cells mirrored about the outermost ones, which are not repeated.

    Args:
        length: px of the result.
        cell_px: Enlarged size of a cell.

    Returns:
        float64 [length, cells], rows sum to 1: how much of each cell a pixel sees.
    """
    places = (torch.arange(length, dtype=torch.float64) + 0.5) / cell_px - 0.5
    lower = places.floor()
    matrix = torch.zeros(length, cells, dtype=torch.float64)
    for neighbour, weight in ((lower, 1 - (places - lower)), (lower + 1, places - lower)):
        matrix.scatter_add_(1, _mirrored(neighbour.long(), cells)[:, None], weight[:, None])
    return matrix


def _enlargement_table(side: int, cells: int, enlargement: Enlargement) -> Tensor:
    """float64 [shifts, side, cells]: how much of each cell a pixel sees at each shift."""
    shifts = math.ceil(side / cells)
    exact_px = (cells + 1) * shifts / cells
    cell_px = exact_px if enlargement == "exact" else math.ceil((side + shifts) / cells)
    matrix = enlargement_matrix(side + shifts, cells, cell_px)
    return matrix.unfold(0, side, 1)[:shifts].transpose(1, 2).contiguous()


def _mirrored(index: Tensor, length: int) -> Tensor:
    """Indices outside [0, length) mirrored about the first and the last."""
    if length == 1:
        return torch.zeros_like(index)
    index = index.remainder(2 * (length - 1))
    return torch.where(index >= length, 2 * (length - 1) - index, index)
