"""Parameters of the methods that look at the network through altered images. Imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from roarline.config.component import Params

_BASELINE = "a value in normalised space (0 is the mean colour), image_mean or blur"
_SCORE = "of the target: logit, softmax or sigmoid probability"

Baseline = float | Literal["image_mean", "blur"]
RegionBaseline = float | Literal["region_mean", "image_mean", "blur"]
Score = Literal["logit", "softmax", "sigmoid"]


class OcclusionParams(Params):
    """A square window that slides over the image."""

    window_px: int | None = Field(
        None, ge=1, description="side of the window; null: a seventh of the shorter side, rounded up"
    )
    stride_px: int | None = Field(None, ge=1, description="step between windows; null: half the window, rounded up")
    baseline: Baseline = Field(0.0, description=f"what the window shows: {_BASELINE}")
    score: Score = Field("logit", description=_SCORE)


class RiseParams(Params):
    """Random masks. TorchRay's form: score sigmoid, divide_by_p false, enlargement whole_px."""

    masks: int = Field(8000, ge=1, description="how many; one forward pass each")
    cells: int = Field(7, ge=1, description="of the random grid behind a mask, along each side")
    p: float = Field(0.5, gt=0, le=1, description="probability that a cell is kept")
    score: Score = Field("softmax", description=_SCORE)
    divide_by_p: bool = Field(True, description="divide the mean by p, as the paper does and TorchRay does not")
    enlargement: Literal["exact", "whole_px"] = Field(
        "exact", description="exact: cells fill the canvas, as in the paper's code; whole_px: as TorchRay"
    )


class SuperpixelParams(Params):
    """Regions that are shown or hidden as a whole."""

    samples: int = Field(1000, ge=2, description="altered copies an image")
    superpixels: Literal["slic", "grid"] = Field("slic", description="slic: by colour and place; grid: square cells")
    segments: int = Field(50, ge=1, description="about how many regions")
    compactness: float = Field(20.0, gt=0, description="slic: weight of place against colour")
    score: Score = Field("logit", description=_SCORE)


class LimeParams(SuperpixelParams):
    """A ridge regression on which regions are shown."""

    baseline: RegionBaseline = Field("region_mean", description=f"what hides a region: its mean colour, {_BASELINE}")
    kernel_width: float = Field(0.25, gt=0, description="of a sample's weight, in cosine distance")
    ridge: float = Field(1.0, gt=0, description="penalty on the squared coefficients")


class KernelShapParams(SuperpixelParams):
    """Shapley values of regions by weighted least squares."""

    baseline: RegionBaseline = Field(0.0, description=f"what hides a region: region_mean, {_BASELINE}")


class SobolParams(Params):
    """Cells that fade in and out along a quasi-random sequence."""

    designs: int = Field(32, ge=2, description="points of the sequence, a power of 2")
    cells: int = Field(8, ge=1, le=100, description="along each side")
    baseline: Baseline = Field(0.0, description=f"what a cell fades to: {_BASELINE}")
    score: Score = Field("logit", description=_SCORE)

    @field_validator("designs")
    @classmethod
    def _power_of_two(cls, designs: int) -> int:
        if designs & (designs - 1):
            raise ValueError(f"designs is {designs}, expected a power of 2: a Sobol sequence is balanced only there")
        return designs


class HsicParams(Params):
    """Cells shown or hidden at random."""

    samples: int = Field(1500, ge=2, description="altered copies an image")
    cells: int = Field(7, ge=1, description="along each side")
    baseline: Baseline = Field(0.0, description=f"what hides a cell: {_BASELINE}")
    score: Score = Field("logit", description=_SCORE)


class GreedyDeletionParams(Params):
    """Cells taken one by one, each time the one that matters most."""

    cells: int = Field(7, ge=1, description="along each side")
    order: Literal["deletion", "insertion"] = Field(
        "deletion", description="deletion: lower the score from the image down; insertion: raise it from the baseline"
    )
    candidates: int | None = Field(
        None, ge=1, description="try only so many cells a step, those that gained most when last tried; null: all"
    )
    baseline: Baseline = Field(0.0, description=f"what stands where a cell is gone: {_BASELINE}")
    score: Literal["probability", "logit"] = Field(
        "probability", description="of the target: softmax probability, compared by its log odds, or logit"
    )
