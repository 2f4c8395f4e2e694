"""Similarities of a method's maps to those of the network as it is, summed up over draws of random weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from roarline.evaluation.randomisation import Planes, Reference, histogram_entropy, relative_rise
from roarline.stages.sanity_columns import EFFICIENT, SILENT, UNUSABLE, Layout, Place


@dataclass(frozen=True)
class Compared:
    """Maps of the network as it is; ``finite`` [B] says which of them others can be compared with."""

    planes: Planes
    finite: Tensor
    reference: Reference

    @staticmethod
    def of(planes: Planes, parameters: Mapping[str, Any]) -> Compared:
        """Prepare some maps; those that aren't finite count as 0 and fail."""
        clean = planes.without(~planes.finite)
        similarities, how = parameters["similarities"], parameters["normalisation"]
        reference = Reference(clean, similarities, how, parameters["window_px"])
        return Compared(clean, planes.finite, reference)


class Table:
    """Sums over repeats of every measured column, for B rows."""

    def __init__(self, layout: Layout, rows: int) -> None:
        self.layout = layout
        self.values = np.zeros((rows, len(layout.columns)))
        self.counts = np.zeros(len(layout.columns))
        self.codes = np.zeros((rows, len(layout.columns)), dtype=np.int8)

    def add(self, places: Sequence[Place], to: Compared, others: Planes) -> None:
        """Add the similarities of some maps to the reference, one a place."""
        usable = to.finite & others.finite
        self._put(places, to.reference.similarity(others.without(~usable)), usable)

    def add_chance(self, places: Sequence[Place], to: Compared, others: Planes, seeds: Sequence[Sequence[int]]) -> None:
        """Add the similarities of displaced maps to the reference, one a place."""
        usable = to.finite & others.finite
        self._put(places, to.reference.chance(others.without(~usable), seeds), usable)

    def add_rise(self, to: Compared, others: Planes, bins: int) -> None:
        """Add the relative rise of the entropy."""
        usable = to.finite & others.finite
        before = histogram_entropy(to.planes.read, bins=bins)
        after = histogram_entropy(others.without(~usable).read, bins=bins)
        rise = relative_rise(before, after)
        place = (EFFICIENT, "")
        self.fail([place], SILENT, torch.isnan(rise).cpu().numpy())
        self._put([place], rise.nan_to_num(0.0)[:, None], usable)

    def fail(self, places: Sequence[Place], code: int, rows: np.ndarray | None = None) -> None:
        """Note why some rows, or all, have no value."""
        for place in places:
            column = self.codes[:, self.layout.number(place)]
            column[slice(None) if rows is None else rows] = code

    def columns(self) -> dict[str, np.ndarray]:
        """Means over repeats, and codes."""
        return {"values": self.values / np.maximum(self.counts, 1), "codes": self.codes}

    def _put(self, places: Sequence[Place], values_BS: Tensor, usable_B: Tensor) -> None:
        numbers = [self.layout.number(place) for place in places]
        self.values[:, numbers] += values_BS.double().cpu().numpy()
        self.counts[numbers] += 1
        unusable = ~usable_B.cpu().numpy()
        for number in numbers:
            self.codes[unusable, number] = UNUSABLE
