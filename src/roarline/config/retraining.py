"""The sections that train networks anew to judge maps. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from roarline.config.fills import PLAIN_FILL_HELP, PlainFill
from roarline.config.section import Compat, Fraction, Precision, Section, Threads, Ties, told_apart
from roarline.config.training import TrainCls

MergeNormalization = Literal["min_max", "none"]
RECURSIVE = "recursive_roar"


def _plain(training: TrainCls | None) -> TrainCls | None:
    if training is not None and not training.is_plain:
        raise ValueError("consistency and frozen_backbone are train-cls's alone: leave them out here")
    return training


PlainTraining = Annotated[TrainCls | None, AfterValidator(_plain)]


class EvaluateRoar(Section):
    """Remove and retrain."""

    fractions: list[Fraction] = Field(
        [0.1, 0.3, 0.5, 0.7, 0.9], min_length=1, description="removed_fraction of the pixels"
    )
    modes: list[Literal["roar", "kar", "recursive_roar"]] = Field(
        ["roar", "kar"],
        min_length=1,
        description="roar removes the most relevant pixels, kar the least relevant; recursive_roar: as roar, but "
        "fraction by fraction, each by new maps of the network that was retrained on the fraction before",
    )
    repeats: int = Field(5, ge=1, description="trainings a cell, each from its own initialisation")
    fill: PlainFill = Field("mean", description=PLAIN_FILL_HELP)
    probe_repeats: int = Field(1, ge=0, description="trainings a cell of the leakage probe; 0 leaves it out")
    training: PlainTraining = Field(None, description="default: as train-cls")
    engine: Literal["auto", "single", "stacked"] = Field(
        "auto",
        description="single: one network at a time in a worker; stacked: several cells trained as one network, faster "
        "where networks are small; auto: stacked where a step is small, see docs/speed.md",
    )
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

    @model_validator(mode="after")
    def _recursion_is_new(self) -> EvaluateRoar:
        if RECURSIVE in self.modes and self.compat == "original":
            raise ValueError(f"compat: original repeats code that knows no {RECURSIVE}; leave out one of the two")
        return self


class FineTuned(Section):
    """What evaluations share that ask a fine-tuned copy of the classifier."""

    training: PlainTraining = Field(
        None, description="of the fine-tuning; default: as train-cls, with a tenth of its learning rate"
    )
    fill: Literal["mean", "zero", "blur"] = Field(
        "mean", description="what stands in the gaps, here and in fine-tuning"
    )
    limit: int | None = Field(None, ge=1, description="test images, a draw from the seed; null means all")
    precision: Precision = "float32"
    threads: Threads = 2


class EvaluateFFidelity(FineTuned):
    """F-Fidelity: random gaps within and outside of what a map calls relevant, seen by a network that knows gaps."""

    beta: float = Field(
        0.1, gt=0, le=1, description="most of an image that is taken away, in fine-tuning and in scoring"
    )
    alpha_plus: float = Field(
        0.5, gt=0, le=1, description="ffid_plus: share of the explanation that is taken away, beta allowing"
    )
    alpha_minus: float = Field(
        0.5, gt=0, le=1, description="ffid_minus: share of the rest that is taken away, beta allowing"
    )
    sizes: list[Annotated[float, Field(gt=0, lt=1)]] = Field(
        [0.1, 0.3, 0.5, 0.7, 0.9],
        min_length=1,
        description="explanation_size: shares of the pixels, most relevant first, that count as the explanation",
    )
    samples: int = Field(10, ge=1, description="random gaps for each size and part; the paper draws 50")
    score: Literal["decision", "probability"] = Field(
        "decision", description="decision: 1 where the network decides for the target, else 0; or its probability"
    )
    maps_of: Literal["classifier", "fine_tuned"] = Field(
        "classifier", description="whose maps are scored; fine_tuned: new maps, of the copy that is asked"
    )
    ties: Ties = "random"

    @field_validator("sizes")
    @classmethod
    def _apart(cls, value: list[float]) -> list[float]:
        return told_apart(value)


class EvaluateIdsds(FineTuned):
    """In-domain single deletion score: rank correlation of a patch's attribution with what its deletion costs."""

    grid: int = Field(4, ge=2, le=32, description="patches along each side of an image")
    deleted_share: float = Field(
        0.5, gt=0, le=1, description="share of the images that lose a patch in fine-tuning, drawn anew in each epoch"
    )
    score: Literal["logit", "probability"] = Field("logit", description="of the target class, whose drop is ranked")
    maps_of: Literal["classifier", "fine_tuned"] = Field(
        "fine_tuned",
        description="whose maps are scored; fine_tuned: new maps, of the copy that is asked",
    )
