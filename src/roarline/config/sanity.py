"""The section evaluate-sanity. Imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from roarline.config.metrics import METRICS, check_metrics
from roarline.config.section import Section, Threads
from roarline.config.training import TrainCls

STAGE = "evaluate-sanity"
DATA_RANDOMISATION = "data_randomisation"

Similarity = Literal["ssim", "spearman", "spearman_abs", "hog"]


class NoisyCopies(Section):
    """What smooth_randomisation averages over."""

    samples: int = Field(50, ge=1, description="noisy copies an image")
    noise: float = Field(0.1, gt=0, description="noise standard deviation as a fraction of the image's own value range")


class EvaluateSanity(Section):
    """Do maps change where nothing is left of what was learned? A map that doesn't can't explain the network."""

    metrics: list[str] = Field(
        ["cascading_randomisation", "efficient_randomisation", "random_logit"],
        min_length=1,
        description="names of `roarline list metrics`",
    )
    similarities: list[Similarity] = Field(
        ["ssim", "spearman", "spearman_abs", "hog"],
        min_length=1,
        description="ssim and hog: of maps as pixels are ranked by them; spearman: of signed values, spearman_abs: of "
        "magnitudes",
    )
    order: Literal["top_down", "bottom_up"] = Field(
        "top_down", description="cascading and smooth: from the output to the input, or the other way"
    )
    depth: int | None = Field(
        2,
        ge=1,
        description="layers whose dotted names share so many words are randomised together, e.g. 2: layer4.1; "
        "null: each layer with weights by itself",
    )
    repeats: int = Field(1, ge=1, description="draws of random weights, the same for every method; values are means")
    smooth: NoisyCopies = Field(NoisyCopies(), description="smooth_randomisation")
    bins: int = Field(100, ge=2, description="efficient_randomisation: of the histogram of a map's values")
    normalisation: Literal["second_moment", "min_max"] = Field(
        "second_moment",
        description="ssim and hog: maps are divided by their root mean square, or scaled from lowest to highest value",
    )
    window_px: int = Field(7, ge=3, le=101, description="ssim: side of its window, odd; less where images are smaller")
    chance_draws: int = Field(
        4, ge=1, description="ssim and hog: random displacements whose mean similarity is what chance gives"
    )
    training: TrainCls | None = Field(
        None, description="data_randomisation: of the network that learns shuffled labels; default: as train-cls"
    )
    limit: int | None = Field(None, ge=1, description="test images, a draw from the seed; null means all")
    threads: Threads = 2

    @field_validator("metrics")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        check_metrics(value, STAGE)
        return value

    @field_validator("metrics", "similarities")
    @classmethod
    def _distinct(cls, value: list[str]) -> list[str]:
        if len(set(value)) != len(value):
            raise ValueError("holds a name twice")
        return value

    @field_validator("window_px")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError(f"is {value}, expected an odd number: the window is centred on a pixel")
        return value

    @property
    def table_metrics(self) -> list[str]:
        """The metrics in the order of the table."""
        return [name for name in METRICS if name in self.metrics]
