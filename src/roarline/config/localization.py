"""The section evaluate-localization. Imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from roarline.config.metrics import METRICS, check_metrics
from roarline.config.section import Section, Threads

STAGE = "evaluate-localization"
ON_GRIDS = ("grid_pointing_game", "difull")
MASKS_AS_THEY_ARE = ("ground_truth", "constant", "explainer")
"""Methods whose maps are masks in [0, 1] without being scaled."""
DIFFICULT_SUBSET = "pointing_game_difficult"
POINTING = ("pointing_game", DIFFICULT_SUBSET, "stochastic_pointing_game")
"""Metrics whose published ground truth is ``DatasetComponent.pointed_at`` where a data set has several."""
OF_CLASSES = ("class_specificity", "own_class_probability", "other_class_probability")


Kind = Literal["auto", "segmentation", "boxes"]


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
    keep_masks: bool = Field(
        False, description="keep the masks, for `roarline export`: 4 bytes a pixel, image and class, before compression"
    )


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
    ground_truth: Kind | dict[str, Kind] = Field(
        "auto",
        description="which pixels are the object's, for all metrics or {metric: kind}; metrics of boxes always take "
        "boxes; auto: segmentation where the data set has one, else boxes, but boxes for pointing games on VOC",
    )
    tolerance_px: float = Field(
        15.0, ge=0, description="pointing games: a miss by less than this is a hit, in px of the network's input"
    )
    difficult_subset: str | None = Field(
        None,
        description="pointing_game_difficult: TorchRay's file, a row an image: its name, then 0 or 1 for each class, "
        "tab-separated; null: objects below a quarter of the image, beside another class",
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

    @model_validator(mode="after")
    def _kinds_of_metrics(self) -> EvaluateLocalization:
        asked = self.ground_truth if isinstance(self.ground_truth, dict) else {}
        for metric in asked:
            if metric not in self.metrics:
                raise ValueError(f"ground_truth: {metric!r} is not among the metrics")
            if "ground_truth" not in METRICS[metric].needs:
                which = "always takes boxes" if "boxes" in METRICS[metric].needs else "needs no ground truth"
                raise ValueError(f"ground_truth: {metric!r} {which}; leave it out")
        return self

    def kinds(self, pointed_at: Kind | None = None) -> dict[str, Kind]:
        """The kind of ground truth of each metric that needs one, as far as the configuration says.

        Args:
            pointed_at: Of the data set, see ``DatasetComponent``.
        """
        asked = self.ground_truth if isinstance(self.ground_truth, dict) else {}
        kinds: dict[str, Kind] = {}
        for metric in self.table_metrics:
            if "boxes" in METRICS[metric].needs:
                kinds[metric] = "boxes"
            elif "ground_truth" in METRICS[metric].needs:
                kind = asked.get(metric, "auto") if isinstance(self.ground_truth, dict) else self.ground_truth
                published = pointed_at if metric in POINTING else None
                kinds[metric] = published if kind == "auto" and published else kind
        return kinds

    @property
    def needs(self) -> dict[str, tuple[str, ...]]:
        """Each metric that needs ground truth, and which kinds do."""
        return {
            metric: ("segmentation", "boxes") if kind == "auto" else (kind,) for metric, kind in self.kinds().items()
        }
