"""What became of a row: a number, or the reason why it has none.

Reasons are kept as small numbers, so that they come from a device together with the values.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

OUTCOMES = (
    "ok",
    "the metric's value is NaN or infinite",
    "the classifier's output is NaN or infinite",
    "the map's relevance is the same for every pixel set",
    "the classifier's output is the same for every pixel set",
    "the map is zero everywhere",
    "the target's probability on the whole image is too low",
    "the classifier says no more of the whole image than of the blurred one",
    "the blurred image takes as many bytes as the whole one",
)
"""Statuses by number; parts of evaluations hold the numbers, so new ones go to the end."""

OK, NO_NUMBER, OUTPUT_NOT_FINITE = 0, 1, 2
SAME_RELEVANCE, SAME_OUTPUT, ZERO_MAP = 3, 4, 5
LOW_PROBABILITY, NOTHING_TO_GAIN, NO_INFORMATION = 6, 7, 8


@dataclass(frozen=True)
class Judged:
    """One number a row.

    Attributes:
        values: float64 [B], NaN where a row failed.
        outcomes: uint8 [B], places in ``OUTCOMES``.
    """

    values: Tensor
    outcomes: Tensor


def judged(values_B: Tensor, *failures: tuple[int, Tensor]) -> Judged:
    """Values of which some rows failed.

    Args:
        values_B: Read where no failure holds; a value that is not finite has failed as well.
        failures: (number of the outcome, bool [B]); where several hold, the first counts.
    """
    values = values_B.double()
    outcomes = torch.where(torch.isfinite(values), OK, NO_NUMBER).to(torch.uint8)
    for outcome, failed_B in reversed(failures):
        outcomes = outcomes.masked_fill(failed_B, outcome)
    return Judged(values.masked_fill(outcomes != OK, torch.nan), outcomes)
