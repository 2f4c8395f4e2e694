"""Parameters of the methods that optimise a mask. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from roarline.config.component import Params

_PRESET = "null: the preset's"
_SMALL = "but at most half of the image's shorter side"
_SCALED = "at 224 px, and in proportion for other shorter sides"

Area = Annotated[float, Field(gt=0, lt=1)]


class MeaningfulPerturbationParams(Params):
    """One mask an image, by Adam. Every constant but the preset stands over the preset's."""

    preset: Literal["seed", "paper"] = Field(
        "seed", description="seed: jacobgil/pytorch-explain-black-box; paper: the authors' perturb_explanations"
    )
    iterations: int | None = Field(None, ge=1, description=f"steps of Adam; {_PRESET} (500, 300)")
    learning_rate: float | None = Field(None, gt=0, description=f"of Adam; {_PRESET} (0.1)")
    l1: float | None = Field(None, ge=0, description=f"weight of what is deleted; {_PRESET} (0.01, 1e-4)")
    tv: float | None = Field(None, ge=0, description=f"weight of total variation; {_PRESET} (0.2, 0.01)")
    tv_exponent: float | None = Field(None, ge=1, description=f"of its differences; {_PRESET} (3)")
    regularisers: Literal["mean", "sum"] | None = Field(
        None, description=f"mean over cells, axes apart; sum over cells, isotropic; {_PRESET} (mean, sum)"
    )
    mask_size: int | None = Field(None, ge=2, description=f"cells along a side; {_PRESET} (28), {_SMALL}")
    upsampling: Literal["bilinear", "nearest"] | None = Field(None, description=f"{_PRESET} (bilinear, nearest)")
    mask_sigma_px: float | None = Field(None, ge=0, description=f"Gaussian over the mask in pixels; {_PRESET} (0, 5)")
    start: Literal["ones", "disc"] | None = Field(
        None, description=f"disc: all but the smallest centred disc that takes 99 % of the drop; {_PRESET} (ones, disc)"
    )
    perturbation: Literal["median", "gaussian", "average", "mean_colour", "noise"] | None = Field(
        None, description=f"what shows where the mask is 0; average: of the two blurs; {_PRESET} (median, gaussian)"
    )
    median_px: int | None = Field(None, ge=1, description=f"side of the median's window, odd; {_PRESET} (11)")
    blur_sigma_px: float | None = Field(None, gt=0, description=f"of the Gaussian blur; {_PRESET} (5, 10)")
    blur_radius_px: int | None = Field(None, ge=1, description=f"where its kernel ends; {_PRESET} (5, 40)")
    jitter_px: int | None = Field(None, ge=0, description=f"shifts of the image to draw from; {_PRESET} (0, 4)")
    noise: float | None = Field(
        None, ge=0, description=f"standard deviation, added to normalised inputs; {_PRESET} (0.2, 0)"
    )
    mask_noise: float | None = Field(None, ge=0, description=f"standard deviation, added to cells; {_PRESET} (0)")
    top_classes: int | None = Field(
        None,
        ge=1,
        description=f"above 1: the likeliest classes' summed probability in place of the target's; {_PRESET} (1)",
    )

    @field_validator("median_px")
    @classmethod
    def _has_a_middle(cls, median_px: int | None) -> int | None:
        if median_px is not None and median_px % 2 == 0:
            raise ValueError(f"median_px is {median_px}, expected an odd number: the window is centred on a pixel")
        return median_px


class ExtremalPerturbationParams(Params):
    """A mask for every area, and the rule that makes one map of them."""

    areas: list[Area] = Field([0.05, 0.1, 0.2, 0.3], min_length=1, description="shares of the image")
    select: Literal["first_area_reaching_logit", "sum"] = Field(
        "first_area_reaching_logit",
        description="the smallest area whose mask keeps the target's logit, else the largest; sum: of all masks",
    )
    variant: Literal["preserve", "delete", "dual"] = Field(
        "preserve", description="preserve: what keeps the reward; delete: what takes it away; dual: both"
    )
    reward: Literal["contrastive", "simple"] = Field(
        "contrastive", description="simple: the target's logit; contrastive: minus the largest other one"
    )
    perturbation: Literal["blur", "fade"] = Field("blur", description="what a mask below 1 does to a pixel")
    levels: int = Field(8, ge=2, description="of the perturbation, the strongest to none")
    max_sigma_px: float | None = Field(None, gt=0, description=f"of the strongest blur; null: 20 {_SCALED}")
    padding: Literal["zero", "reflect", "replicate"] = Field(
        "zero", description="what the blur sees outside; zero is the mean colour, as in the original"
    )
    iterations: int = Field(800, ge=1, description="steps of gradient ascent")
    learning_rate: float = Field(0.01, gt=0, description="step size of the optimiser")
    momentum: float = Field(0.9, ge=0, lt=1, description="gradients enter it with 1 - momentum")
    area_weight: float = Field(
        300.0,
        ge=0,
        description="weight of the area's constraint at the first step; made for logits of 10 to 20",
    )
    area_weight_growth: float = Field(1.0035, gt=0, description="factor on it after each step")
    jitter: bool = Field(True, description="mirror the image at every other step")
    combine: Literal["smooth_max", "sum", "sigmoid"] = Field(
        "smooth_max", description="how a pixel combines the parameters around it"
    )
    step_px: int | None = Field(None, ge=1, description=f"distance of parameters; null: 7 {_SCALED}")
    sigma_px: float | None = Field(None, gt=0, description="width of one parameter's bump; null: 3 steps")
    smooth: float = Field(
        0.09, ge=0, description="Gaussian over finished masks: standard deviation as a fraction of the shorter side"
    )
    compat: Literal["corrected", "original"] = Field(
        "corrected", description="original: the area counts an invisible margin, so that the visible one is too large"
    )


class IgosParams(Params):
    """One mask along integrated gradients."""

    compat: Literal["corrected", "original"] = Field(
        "corrected", description="original: iterations and integration steps swapped, 20 and 15"
    )
    iterations: int | None = Field(None, ge=1, description="null: 15")
    integration_steps: int | None = Field(None, ge=1, description="points on a path; null: 20")
    mask_size: int | None = Field(None, ge=2, description=f"cells along a side; null: 28, {_SMALL}")
    l1: float = Field(1.0, ge=0, description="weight of what is deleted")
    l2: float = Field(20.0, ge=0, description="weight of total variation, in iGOS++ bilateral")
    step: float = Field(8.0, gt=0, description="where the line search starts; it goes on with a fifth")
    noise: float = Field(0.2, ge=0, description="standard deviation, added to normalised inputs")
    blur_sigma_px: float = Field(50.0, gt=0, description="of the baseline, the blurred image")
    blur_radius_px: int = Field(25, ge=1, description="where that blur's kernel ends")


class IgosPlusPlusParams(IgosParams):
    """Two masks, one that deletes and one that inserts, and their product."""

    compat: Literal["corrected", "original"] = Field(
        "corrected",
        description="original: iterations and integration steps swapped, 20 and 15; an image's vertical edges excuse "
        "the mask's by another formula than its horizontal ones",
    )
    step: float = Field(1000.0, gt=0, description="where the line search starts; it goes on with a fifth")
