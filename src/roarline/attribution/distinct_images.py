"""Rows that share an image: what doesn't depend on the target is computed once for all of them.

Shapes: B rows, U distinct images, T targets of an image at most, C anything that each image has several of.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class DistinctImages:
    """Which rows show the same image, and the targets of each image.

    Args:
        image_index: One a row, equal where two rows are of the same image.
        targets_B: int64.

    Attributes:
        first_rows: [U] int64, a row of each image.
        image_of_row: [B] int64 in [0, U).
        targets_UT: [U, T] int64; where an image has fewer, its first one again.
    """

    def __init__(self, image_index: Sequence[int], targets_B: Tensor) -> None:
        rows_of: dict[int, list[int]] = {}
        slots = []
        for row, image in enumerate(image_index):
            rows = rows_of.setdefault(image, [])
            slots.append(len(rows))
            rows.append(row)
        numbers = {image: number for number, image in enumerate(rows_of)}
        places = [numbers[image] for image in image_index]
        most = max(len(rows) for rows in rows_of.values())
        padded = torch.tensor([rows + rows[:1] * (most - len(rows)) for rows in rows_of.values()])
        device = targets_B.device
        self.first_rows = padded[:, 0].to(device)
        self.image_of_row = torch.tensor(places, device=device)
        self.targets_UT = targets_B[padded.to(device)]
        self._slot_of_row = torch.tensor(slots, device=device)

    def of_rows(self, values_UCT: Tensor) -> Tensor:
        """Each row's own values: those of its image and its target.

        Returns:
            [B, C].
        """
        return values_UCT[self.image_of_row, :, self._slot_of_row]
