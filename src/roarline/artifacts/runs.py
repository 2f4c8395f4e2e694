"""Binary masks as run lengths, for masks that are few and mostly flat."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


def run_lengths(mask: np.ndarray) -> np.ndarray:
    """Lengths of the runs of a mask read row by row, the first of them of zeros (perhaps none).

    Args:
        mask: bool [H, W].

    Returns:
        int64 [R], their sum H · W.
    """
    flat = np.concatenate([[False], mask.ravel(), [not mask.flat[-1] if mask.size else True]])
    turns = np.flatnonzero(flat[1:] != flat[:-1])
    return np.diff(turns, prepend=0)


def from_run_lengths(runs: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The mask again, bool [H, W]."""
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(shape)


@dataclass
class CoveredMasks:
    """Whole masks of classes that objects of another class cover in part, gathered while segmentation is written.

    Attributes:
        places: (row, class) of each.
        runs: Run lengths of each.
    """

    places: list[tuple[int, int]] = field(default_factory=list)
    runs: list[np.ndarray] = field(default_factory=list)

    def add(self, row: int, label: int, mask: np.ndarray) -> None:
        """Take one mask, bool [H, W]."""
        self.places.append((row, label))
        self.runs.append(run_lengths(mask))

    def columns(self) -> dict[str, np.ndarray]:
        """What goes into the file, by name, as ``artifacts.dataset`` describes it; nothing where there are none."""
        if not self.places:
            return {}
        return {
            "covered": np.asarray(self.places, dtype=np.int64),
            "covered_ends": np.cumsum([len(runs) for runs in self.runs]),
            "covered_runs": np.concatenate(self.runs),
        }
