"""The section evaluate-localization. Imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from roarline.config.metrics import METRICS, check_metrics
from roarline.config.section import Section, Threads

STAGE = "evaluate-localization"
ON_GRIDS = ("grid_pointing_game", "difull")
MASKS_AS_THEY_ARE = ("ground_truth", "constant", "explainer")
"""Methods whose maps are masks in [0, 1] without being scaled."""
OF_CLASSES = ("class_specificity", "own_class_probability", "other_class_probability")


class Grid(Section):
    """Grids of test images of different classes."""

    side: int = Field(2, ge=2, le=8, description="images along each side of a grid")
    count: int = Field(50, ge=1, description="grids; each is scored once for every cell")
    confidence: float = Field(
        0.5, ge=0, le=1, description="least probability that the classifier must give an image's class"
    )


class ClassMatrix(Section):
    """Masks of every class, on images of every class."""

    classes: list[str] | None = Field(None, min_length=1, description="names; null: all of the data set's")
    images: int = Field(100, ge=1, description="test images that have one of the classes, a draw from the seed")


class EvaluateLocalization(Section):
    """Do maps lie on the object? And how concentrated are they? Rows without ground truth are rows with a status."""

    metrics: list[str] = Field(
        [
            "pointing_game", "content_heatmap", "relevance_mass_accuracy", "relevance_rank_accuracy",
            "topk_intersection", "pxap", "roc_auc",
        ],
        min_length=1,
        description="names of `roarline list metrics`",
    )  # fmt: skip
    ground_truth: Literal["auto", "segmentation", "boxes"] = Field(
        "auto",
        description="which pixels are the object's; auto: by segmentation where the data set has one, else boxes",
    )
    tolerance_px: float = Field(
        15.0, ge=0, description="pointing games: a miss by less than this is a hit, in px of the network's input"
    )
    draws: int = Field(100, ge=1, description="stochastic_pointing_game: pixels drawn of each map")
    topk_fraction: float = Field(0.02, gt=0, le=1, description="topk_intersection: highest pixels, of all")
    threshold_step: float = Field(
        0.01, gt=0, le=0.5, description="max_box_acc and pxap: thresholds 0, step, 2 · step, … below 1"
    )
    binarise: Literal["mean", "area"] = Field(
        "mean",
        description="om, le, sm: a mask's pixels are those above its mean; area: the highest, as many as its mean says",
    )
    epsilon: float = Field(
        1e-5, ge=0, lt=1, description="effective_complexity: pixels above this share of the largest magnitude count"
    )
    grid: Grid = Field(Grid(), description="grid_pointing_game and difull")
    class_matrix: ClassMatrix = Field(
        ClassMatrix(), description="class_specificity, own_class_probability, other_class_probability"
    )
    limit: int | None = Field(None, ge=1, description="test images, a draw from the seed; null means all")
    compat: Literal["corrected", "original"] = Field(
        "corrected",
        description="original repeats published code: boxes a pixel too large or too small, holes as boxes, void "
        "borders as objects, softmax where labels are not exclusive",
    )
    threads: Threads = 2

    @field_validator("metrics")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        check_metrics(value, STAGE)
        if len(set(value)) != len(value):
            raise ValueError("holds a metric twice")
        return value

    @property
    def table_metrics(self) -> list[str]:
        """The metrics in the order of the table."""
        return [name for name in METRICS if name in self.metrics]

    @property
    def needs(self) -> dict[str, tuple[str, ...]]:
        """Each metric that needs ground truth, and which kinds do."""
        if self.ground_truth != "auto":
            kinds: tuple[str, ...] = (self.ground_truth,)
        else:
            kinds = ("segmentation", "boxes")
        return {
            name: ("boxes",) if "boxes" in METRICS[name].needs else kinds
            for name in self.metrics
            if {"boxes", "ground_truth"} & set(METRICS[name].needs)
        }
