"""What the sections of an experiment share. Imports no torch."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

_NEAREST_FRACTIONS = 1e-9

Threads = Annotated[int, Field(ge=1, le=1024, description="CPU threads of a job; part of the key")]
Compat = Annotated[
    Literal["corrected", "original"],
    Field(description="original repeats the known bugs of saurabheights/ROAR, for comparisons with its numbers"),
]
Precision = Annotated[
    Literal["float32", "bfloat16"], Field(description="of the network's passes; bfloat16: mixed precision")
]
Ties = Annotated[
    Literal["random", "index"],
    Field(description="order of equal values; random: drawn from seed and sample id; index: by position, for parity"),
]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A part of the configuration; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)


def told_apart(fractions: list[float]) -> list[float]:
    """Refuse two fractions that tables would show as one."""
    for low, high in pairwise(sorted(fractions)):
        if high - low < _NEAREST_FRACTIONS:
            raise ValueError(f"holds {low!r} and {high!r}, closer than {_NEAREST_FRACTIONS:g}: give one of them")
    return fractions


def rising(fractions: list[float]) -> list[float]:
    """Refuse fractions that don't rise, or that tables would show as one."""
    if any(b <= a for a, b in pairwise(fractions)):
        raise ValueError("must rise from one value to the next")
    return told_apart(fractions)
