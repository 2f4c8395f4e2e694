"""What may stand in place of removed pixels, as YAML says it. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator

from roarline.config.section import Fraction, Section

PLAIN_FILL_HELP = (
    "mean: of the training split; zero: black; blur: of the image; uniform_noise: drawn for each image; or a colour, "
    "{kind: constant, value: [r, g, b]}"
)
FILL_HELP = f"{PLAIN_FILL_HELP}; noisy_linear: each removed pixel from its neighbours, plus noise"


class ConstantFill(Section):
    """One stated colour."""

    kind: Literal["constant"] = Field(description="one colour for all removed pixels")
    value: list[Fraction] = Field(description="1 or 3 numbers in [0, 1]")

    @field_validator("value", mode="before")
    @classmethod
    def _one_for_all_channels(cls, value: Any) -> Any:
        return [value] if isinstance(value, int | float) else value

    @field_validator("value")
    @classmethod
    def _a_colour(cls, value: list[float]) -> list[float]:
        if len(value) not in (1, 3):
            raise ValueError(f"has {len(value)} numbers, expected 1 or 3")
        return value


def _name_or_colour(value: Any) -> str:
    return "Colour" if isinstance(value, dict | ConstantFill) else "Name"


_Colour = Annotated[ConstantFill, Tag("Colour")]
Fill = Annotated[
    Annotated[Literal["mean", "zero", "blur", "uniform_noise", "noisy_linear"], Tag("Name")] | _Colour,
    Discriminator(_name_or_colour),
]
PlainFill = Annotated[
    Annotated[Literal["mean", "zero", "blur", "uniform_noise"], Tag("Name")] | _Colour, Discriminator(_name_or_colour)
]
"""Without the fill that depends on which pixels are removed: it would be solved for every batch of every epoch."""


def fill_name(fill: Any) -> str:
    """One word or two for a fill, in tables, pictures and keys of mappings: a name, or ``constant 0.5, 0, 1``.

    Args:
        fill: A name, or a ``ConstantFill`` or the mapping that it becomes in JSON.
    """
    if isinstance(fill, str):
        return fill
    value = fill.value if isinstance(fill, ConstantFill) else fill["value"]
    return f"constant {', '.join(f'{number:g}' for number in value)}"
