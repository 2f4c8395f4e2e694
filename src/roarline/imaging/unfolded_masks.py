"""The mask generator of ``mask_generator`` by its definition, in the order in which the original adds up.

At the start of an optimisation all parameters are 1, and most values of the mask are equal but for rounding. The
original's area constraint ranks them, so rounding decides what it takes for ones, and after some steps masks depend on
it in the first decimal. Whoever wants the original's masks needs its rounding, and pays for it: (2R + 1)² weighted
neighbours are laid out for every position, for 224 px 81 × 260² numbers a mask.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from roarline.imaging.mask_generator import Axis, Combine, combined_sums, visible_part

_COLDNESS = 20.0


class UnfoldedMasks:
    """Masks of H × W px; arguments and calls are those of ``MaskGenerator``.

    Source: TorchRay's MaskGenerator.
    """

    def __init__(
        self, height: int, width: int, *, step_px: int = 7, sigma_px: float = 21.0, combine: Combine = "smooth_max"
    ) -> None:
        self.rows, self.columns = Axis(height, step_px, sigma_px), Axis(width, step_px, sigma_px)
        self.combine = combine
        self._weights = self._weights_of_taps()

    @property
    def grid(self) -> tuple[int, int]:
        """Parameters of one mask: (rows, columns)."""
        return self.rows.grid, self.columns.grid

    def __call__(self, grid_Ngg: Tensor, *, padded: bool = False) -> Tensor:
        """[N, H, W] in [0, 1], or padded, with the margin."""
        rows, columns = self.rows, self.columns
        taps = 2 * rows.radius + 1
        below, right = (axis.cells + taps - 1 - axis.grid - axis.padding for axis in (rows, columns))
        surrounded = functional.pad(grid_Ngg[:, None], (columns.padding, right, rows.padding, below))
        patches = functional.unfold(surrounded, (taps, taps)).view(len(grid_Ngg), -1, rows.cells, columns.cells)
        fine = functional.interpolate(patches, scale_factor=rows.step, mode="nearest")
        self._weights = self._weights.to(grid_Ngg)
        weighted = fine[:, :, : rows.full_length, : columns.full_length] * self._weights
        if self.combine == "smooth_max":
            masks = (weighted * torch.softmax(_COLDNESS * weighted, dim=1)).sum(dim=1)
        else:
            masks = combined_sums(weighted.sum(dim=1), self.combine)
        masks = masks.clamp(0, 1)
        return masks if padded else self.visible(masks)

    def visible(self, padded_Nhw: Tensor) -> Tensor:
        """Crop the margin: [N, H, W]."""
        return visible_part(padded_Nhw, self.rows, self.columns)

    def _weights_of_taps(self) -> Tensor:
        """float32 [1, taps, h, w]."""
        offsets = []
        for axis in (self.rows, self.columns):
            position = torch.arange(axis.full_length)
            point = position // axis.step + torch.arange(2 * axis.radius + 1)[:, None] - axis.padding
            offsets.append(position - (axis.sigma + axis.step * point))
        distance = torch.sqrt(offsets[0][:, None, :, None] ** 2 + offsets[1][None, :, None, :] ** 2)
        weights = torch.exp(-2 * (distance / self.rows.sigma - 0.5).clamp(min=0) ** 2)
        return weights.flatten(0, 1)[None]
