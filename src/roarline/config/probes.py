"""Parameters of the metrics that probe the classifier, or the method, on altered images. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from roarline.config.section import Section, told_apart

Share = Annotated[float, Field(gt=0, lt=1)]
Baseline = Literal["mean", "zero", "blur"]


class SensitivityN(Section):
    """Does the relevance of random pixel sets go along with what their removal costs?"""

    fractions: list[Share] = Field(
        [0.01, 0.05, 0.2, 0.5, 0.8], min_length=1, description="n, as shares of the pixels; one pixel at least"
    )
    subsets: int = Field(100, ge=3, description="random pixel sets of each n; a set holds those of smaller n")
    fill: Baseline = Field("mean", description="what removed pixels become")

    @field_validator("fractions")
    @classmethod
    def _apart(cls, value: list[float]) -> list[float]:
        return sorted(told_apart(value))


class FaithfulnessCorrelation(Section):
    """The same for sets of one size; where size and fill are those of sensitivity_n, the passes are shared."""

    fraction: Share = Field(0.05, description="pixels of a set, as a share of all; one pixel at least")
    subsets: int = Field(100, ge=3, description="random pixel sets")
    fill: Baseline = Field("mean", description="what removed pixels become")


class Infidelity(Section):
    """How far is the relevance of a perturbation from what it costs?"""

    perturbations: list[Literal["square", "noise"]] = Field(
        ["square", "noise"],
        min_length=1,
        description="square: pixels of a random square give way to the fill; noise: each pixel moves towards the fill, "
        "or away from it, by a Gaussian share of the way",
    )
    samples: int = Field(50, ge=2, description="perturbations of each kind")
    sides: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        [0.1, 0.2, 0.3, 0.4], min_length=1, description="square: shares of the shorter side, one of which is drawn"
    )
    noise: float = Field(0.2, gt=0, description="noise: standard deviation of the share")
    normalise: bool = Field(
        True, description="scale each map so that it fits best, since methods have no common scale; false: as it is"
    )
    fill: Baseline = Field("mean", description="what pixels of a square become")

    @field_validator("perturbations", "sides")
    @classmethod
    def _distinct(cls, value: list[str] | list[float]) -> list[str] | list[float]:
        if len(set(value)) != len(value):
            raise ValueError("holds a value twice")
        return value


class MapSensitivity(Section):
    """How much does the map change with noise that nobody sees? max_sensitivity and avg_sensitivity."""

    samples: int = Field(10, ge=1, description="noisy copies of each image; the method is called on every one")
    radius: float = Field(0.02, gt=0, description="of uniform noise on each channel, in pixel values of [0, 1]")


class InformationCurve(Section):
    """What does the classifier know once the compressed image has so much information? aic and sic."""

    fractions: list[Share] = Field(
        [0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.07, 0.1, 0.13, 0.21, 0.34, 0.5, 0.75],
        min_length=1,
        description="of the pixels, most relevant first, that are sharp on a blurred image",
    )
    compression: Literal["png", "webp"] = Field(
        "png", description="lossless; information is the size of the file; webp, as published, takes far longer"
    )
    least_probability: float = Field(
        0.0, ge=0, le=1, description="rows whose target has less on the whole image fail; the published code took 0.8"
    )
    monotone: bool = Field(True, description="as published: no point of a curve lies below one with fewer pixels")

    @field_validator("fractions")
    @classmethod
    def _apart(cls, value: list[float]) -> list[float]:
        return sorted(told_apart(value))


PROBES: dict[str, tuple[str, ...]] = {
    "sensitivity_n": ("sensitivity_n",),
    "faithfulness_correlation": ("faithfulness_correlation",),
    "infidelity": ("infidelity",),
    "map_sensitivity": ("max_sensitivity", "avg_sensitivity"),
    "information_curve": ("aic", "sic"),
}
"""Section of evaluate-perturbation to the metrics that read it."""

CALL_THE_METHOD = PROBES["map_sensitivity"]
"""Metrics for which the method itself is called again."""
