"""Parameters of the methods that pass a signal back through the network. Imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from roarline.config.component import Params

_LAYER = "dotted module name, or auto: the last spatial one; a module called twice is read at its last call"


class LayerParams(Params):
    """A method that looks at one layer."""

    layer: str = Field("auto", description=_LAYER)


class GradientShapParams(Params):
    """Random points between the image and random baselines."""

    samples: int = Field(25, ge=1, description="draws of (baseline, point, noise) an image")
    noise: float = Field(0.0, ge=0, description="noise standard deviation as a fraction of the image's own value range")
    baselines: Literal["references", "constant"] = Field(
        "references", description="references: training images; constant: one value everywhere"
    )
    reference_images: int = Field(16, ge=1, description="how many training images baselines are drawn from")
    baseline: float = Field(0.0, description="the constant, in normalised space (0 is the mean colour)")
    multiply_by_inputs: bool = Field(True, description="times image - baseline")


class DeepLiftParams(Params):
    """The Rescale rule against a constant baseline."""

    baseline: float = Field(0.0, description="baseline value in normalised space (0 is the mean colour)")
    without_rule: Literal["refuse", "gradient"] = Field(
        "refuse",
        description="functions without a rule (attention, layer normalisation): refuse the network, or go on with the "
        "plain gradient, with which contributions no longer sum to the difference of the logits",
    )


class LrpParams(Params):
    """Rules of layer-wise relevance propagation."""

    rule: Literal["epsilon", "epsilon_plus", "epsilon_alpha2_beta1"] = Field(
        "epsilon_plus",
        description="epsilon: throughout; the others: epsilon in linear layers, alpha-beta (1, 0) or (2, 1) in "
        "convolutions, first_rule in the first (Kohlbrenner et al. 2020)",
    )
    first_rule: Literal["flat", "w2", "box"] = Field("flat", description="in the layers that read the image")
    epsilon: float = Field(1e-6, ge=0, description="added to denominators, with their sign")


class ExcitationParams(LayerParams):
    """Winner-take-all down to a layer."""

    compat: Literal["corrected", "original"] = Field(
        "corrected", description="corrected: activations below 0 excite nothing; original: they count as they are"
    )


class ContrastiveExcitationParams(ExcitationParams):
    """Winner-take-all less that of the negated classifier, down to a layer."""

    contrast_layer: str = Field(
        "classifier_input", description="where the two are subtracted: a dotted module name, or classifier_input"
    )
