"""The sections that train networks anew to judge maps. Imports no torch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from roarline.config.section import Compat, Fraction, Section, Threads, Ties, told_apart
from roarline.config.training import TrainCls

MergeNormalization = Literal["min_max", "none"]


class EvaluateRoar(Section):
    """Remove and retrain."""

    fractions: list[Fraction] = Field(
        [0.1, 0.3, 0.5, 0.7, 0.9], min_length=1, description="removed_fraction of the pixels"
    )
    modes: list[Literal["roar", "kar"]] = Field(
        ["roar", "kar"], min_length=1, description="roar removes the most relevant pixels, kar the least relevant"
    )
    repeats: int = Field(5, ge=1, description="trainings a cell, each from its own initialisation")
    fill: Literal["mean", "zero", "blur"] = Field(
        "mean", description="mean: of the training split; zero: black; blur: of the image"
    )
    probe_repeats: int = Field(1, ge=0, description="trainings a cell of the leakage probe; 0 leaves it out")
    training: TrainCls | None = Field(None, description="default: as train-cls")
    engine: Literal["single"] = Field("single", description="single: one network at a time in a worker")
    ties: Ties = "random"
    merge_normalization: MergeNormalization = Field(
        "min_max", description="of each map before the maps of an image with several targets merge by pixelwise maximum"
    )
    compat: Compat = "corrected"
    threads: Threads = 1

    @field_validator("fractions", "modes")
    @classmethod
    def _distinct(cls, value: list[Any]) -> list[Any]:
        if len(set(value)) != len(value):
            raise ValueError("holds a value twice")
        return value

    @field_validator("fractions")
    @classmethod
    def _apart(cls, value: list[float]) -> list[float]:
        return told_apart(value)
