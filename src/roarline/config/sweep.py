"""The sweep of evaluate-perturbation: the same test run otherwise, to see whether its ranking stays. No torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from roarline.config.fills import FILL_HELP, Fill
from roarline.config.section import Section

# The metrics that each factor changes; a seed changes ties and noise, so all of them.
FACTORS: dict[str, tuple[str, ...]] = {
    "fill": (
        "morf", "lerf", "srg", "aopc", "morf_deviation", "lerf_deviation", "deletion", "irof", "region_perturbation",
    ),
    "insertion_fill": ("insertion",),
    "steps": ("insertion", "deletion"),
    "score": (
        "morf", "lerf", "srg", "aopc", "insertion", "deletion", "irof", "region_perturbation", "road_morf", "road_lerf",
        "road_combined", "sensitivity_n", "faithfulness_correlation", "infidelity",
    ),
    "seed": (),
}  # fmt: skip


class Sweep(Section):
    """Points that differ from the section in one thing each; they tell how stable the ranking is, and rank nothing."""

    fill: list[Fill] = Field([], description=f"of every curve on which pixels are removed, deletion's too; {FILL_HELP}")
    insertion_fill: list[Fill] = Field([], description="what pixels appear on")
    steps: list[Annotated[int, Field(ge=1)]] = Field([], description="insertion and deletion")
    score: list[Literal["probability", "logit"]] = Field([], description="under whose curve the areas lie")
    seed: list[Annotated[int, Field(ge=0, strict=True)]] = Field(
        [], description="draws of ties and of noise, and with a limit of the images"
    )

    @model_validator(mode="after")
    def _something_once(self) -> Sweep:
        values = {factor: getattr(self, factor) for factor in FACTORS}
        if not any(values.values()):
            raise ValueError(f"changes nothing; give values of {', '.join(FACTORS)}")
        for factor, given in values.items():
            if any(value in given[:place] for place, value in enumerate(given)):
                raise ValueError(f"{factor} holds a value twice")
        return self

    @property
    def points(self) -> list[tuple[str, Any]]:
        """(factor, value), in order of the factors."""
        return [(factor, value) for factor in FACTORS for value in getattr(self, factor)]
