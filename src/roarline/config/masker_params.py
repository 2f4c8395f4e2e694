"""Parameters of the maskers that read a classifier's hidden layers, FIX and CA. Imports no torch.

Defaults are the published settings: saliency_investigation's assets/fix.json and ca.json, and layers 3,4 of ResNet-50.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from roarline.config.component import Params

Weight = Annotated[float, Field(ge=0)]
BUILT_IN_INFILLERS = ("none", "mean", "blur")


class MaskerNetwork(Params):
    """1×1 blocks on hidden layers of the classifier, one grid, one mask an image."""

    layers: Literal["auto"] | Annotated[list[str], Field(min_length=1)] = Field(
        "auto",
        description="of the classifier, by name; auto: the layer that auto is for Grad-CAM, and the last before it "
        "with a finer map (layer3 and layer4 in ResNets, as published)",
    )
    unchanged: list[str] = Field(
        default_factory=list, description="of these layers, those without a 1×1 block (published: the stem)"
    )
    channels: int = Field(64, ge=1, description="of each 1×1 block")
    cell_px: int | None = Field(
        None, ge=1, description="side of a mask cell; null: 4 px as published, or the finest layer's, where it is finer"
    )
    output: Literal["sigmoid", "gumbel_hard", "gumbel_soft"] = Field(
        "sigmoid",
        description="gumbel: a mask drawn near 0 and 1 (soft) or rounded (hard) in training, logit > 0 in use",
    )
    temperature: float | None = Field(0.1, gt=0, description="gumbel only; null: learned")
    enlargement: Literal["nearest", "bilinear"] = Field("nearest", description="of the mask's cells to the image")
    area_channel: bool = Field(False, description="the masker is told the area that its mask shall have")
    area: float = Field(0.5, gt=0, lt=1, description="area_channel: what it is told in use; in training 0.25 to 0.75")
    class_channels: bool = Field(
        False, description="the masker is told the label, and in use the class that the classifier predicts"
    )


_OBJECTIVE = "of the masked image; prior: a divergence from the classes' prior; none: this side doesn't count"
_AREA = "weight of the reward for small masks where the game is won"
SideObjective = Literal["classification", "entropy", "prior", "none"]


class MaskSide(Params):
    """What is asked of the classifier's answer to one side of the mask, and of the mask for it."""

    objective: SideObjective = Field(description=_OBJECTIVE)
    direction: Literal["maximize", "minimize"] = Field("maximize", description="of classification and entropy")
    weight: Weight = Field(1.0, description="of all that this side asks")
    area: Weight = Field(description=_AREA)
    variation: Weight = Field(0.001, description="weight of squared differences of neighbours, and of the border")
    area_gap: Literal["l1", "l2"] = Field(
        "l1", description="area_channel: how the distance from the wished area is measured"
    )


class MaskIn(MaskSide):
    """The masked-in image, by default as FIX and CA have it."""

    objective: SideObjective = Field("classification", description=_OBJECTIVE)
    area: Weight = Field(1.0, description=_AREA)


class MaskOut(MaskSide):
    """The masked-out image, by default as FIX has it."""

    objective: SideObjective = Field("entropy", description=_OBJECTIVE)
    area: Weight = Field(10.0, description=_AREA)


class CaMaskOut(MaskOut):
    """The masked-out image, by default as CA has it."""

    area: Weight = Field(15.0, description=_AREA)


class PriorTerms(Params):
    """What the objective ``prior`` compares the answer with."""

    class_weights: list[Annotated[float, Field(gt=0)]] | None = Field(
        None, description="one number a class; the prior is their inverses, normalised; null: a uniform prior"
    )
    divergence: Literal["forward", "backward"] = Field(
        "forward", description="forward: cross entropy under the prior; backward: KL divergence of the answer from it"
    )
    compared: Literal["subtract", "divide"] = Field(
        "subtract", description="how probabilities are set against the prior before a class is called the highest"
    )
    clean_correct_only: bool = Field(False, description="only images count whose label is found when clean")
    weigh_classes: bool = Field(False, description="an image weighs as its class does")
    always_small: bool = Field(False, description="the mask's area is punished whether or not the game is won")


class InfillTerms(Params):
    """What stands in for what is masked."""

    infiller: str = Field(
        "none",
        description="none: 0 after normalisation, its mean colour; mean: the image's own; blur: of the image; or the "
        "dotted path of (images, kept, **params) -> images",
    )
    sigma_px: float = Field(20.0, gt=0, description="blur only; published for 224 px")
    params: dict[str, Any] = Field(default_factory=dict, description="of an infiller by dotted path")
    sides: list[Literal["mask_in", "mask_out"]] = Field(
        ["mask_in", "mask_out"], description="which masked images are filled in"
    )

    @model_validator(mode="after")
    def _params_of_ones_own(self) -> InfillTerms:
        if self.params and self.infiller in BUILT_IN_INFILLERS:
            raise ValueError(f"infiller {self.infiller!r} takes no params; they belong to one by dotted path")
        return self


class MaskerLosses(Params):
    """Two games: the masked-in image stays what it is, and the masked-out image becomes undecided."""

    mask_in: MaskIn = MaskIn()
    mask_out: MaskOut = MaskOut()
    prior: PriorTerms = PriorTerms()
    infill: InfillTerms = InfillTerms()

    @model_validator(mode="after")
    def _one_side_at_least(self) -> MaskerLosses:
        if self.mask_in.objective == self.mask_out.objective == "none":
            raise ValueError("mask_in and mask_out are both none: nothing is asked of the mask")
        return self


class OpponentOptimizer(Params):
    """SGD with which CA trains its copies of the classifier; the rate falls as the masker's does."""

    lr: float = Field(1e-3, gt=0, description="learning rate at the start")
    momentum: float = Field(0.9, ge=0, lt=1, description="of SGD")
    weight_decay: float = Field(1e-4, ge=0, description="L2 penalty")


class PoolTerms(Params):
    """The pool of classifiers of CA."""

    size: int = Field(30, ge=1, description="most copies; beyond that one drawn at random is replaced")
    every: int = Field(100, ge=1, description="steps between two copies")
    share: float = Field(
        0.5, ge=0, le=1, description="of the steps whose masks a classifier drawn from the pool is asked about"
    )
    use: Literal["used", "unused"] = Field(
        "used",
        description="unused: as the published code, which draws from the pool and then asks the current classifier, "
        "without training it on the masked images",
    )


class CaMaskerLosses(MaskerLosses):
    """CA: as FIX, against classifiers that learn to see through masks."""

    mask_out: CaMaskOut = CaMaskOut()
    opponent: OpponentOptimizer = OpponentOptimizer()
    pool: PoolTerms = PoolTerms()


class FixMaskerParams(Params):
    """A masker for a classifier that stays as it is."""

    network: MaskerNetwork = MaskerNetwork()
    losses: MaskerLosses = MaskerLosses()


class CaMaskerParams(Params):
    """A masker and a classifier that are trained against each other."""

    network: MaskerNetwork = MaskerNetwork()
    losses: CaMaskerLosses = CaMaskerLosses()
