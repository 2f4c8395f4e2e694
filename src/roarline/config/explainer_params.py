"""Parameters of explainers with one map a class: their network, and the weights of their losses. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from roarline.config.component import Params

Weight = Annotated[float, Field(ge=0)]


class ClassMapNetwork(Params):
    """A segmentation network from an image to one map a class."""

    backbone: Literal["deeplabv3_resnet50", "light"] = Field(
        "deeplabv3_resnet50",
        description="deeplabv3_resnet50: torchvision's, as published; light: a small U-Net for 20 to 96 px and CPUs",
    )
    weights: str | None = Field(
        None,
        description="deeplabv3_resnet50: what its ResNet-50 starts from, a torchvision weight name (published: "
        "IMAGENET1K_V1) or a path; null: random",
    )
    width: int = Field(16, ge=4, description="light: channels at the image's own size, twice as many with every level")
    levels: int = Field(
        2, ge=1, le=5, description="light: how often sides are halved; a place then sees about 13, 33, 70, … px"
    )

    @model_validator(mode="after")
    def _weights_of_a_resnet(self) -> ClassMapNetwork:
        if self.weights is not None and self.backbone != "deeplabv3_resnet50":
            raise ValueError(f"weights: backbone {self.backbone} starts at random; leave them out")
        return self


class AreaTerms(Params):
    """Weights that the NN-Explainer and the self-explainer share; 0 leaves a term out."""

    variation: Weight = Field(1.0, description="weight of the masks' total variation")
    area_bound: Weight = Field(
        1.0, description="weight of what an image's class masks lack or exceed in area, see smallest_ and largest_area"
    )
    target_area: Weight = Field(0.1, description="weight of the mean of the target mask")
    other_area: Weight = Field(0.3, description="weight of the mean of the mask of the classes that an image has not")
    smallest_area: float = Field(0.05, ge=0, le=1, description="share of the image that a class mask fills at least")
    largest_area: float = Field(0.3, ge=0, le=1, description="share of the image outside of which it is to be 0")
    over_classes: Literal["mean", "sum"] = Field(
        "mean", description="of the area bounds of an image with several classes; sum: as the published code"
    )

    @model_validator(mode="after")
    def _in_order(self) -> AreaTerms:
        if self.smallest_area > self.largest_area:
            raise ValueError(f"smallest_area is {self.smallest_area:g}, more than largest_area {self.largest_area:g}")
        return self


class NnExplainerLosses(AreaTerms):
    """The NN-Explainer's; the defaults are those published for VGG-16 on VOC."""

    entropy: Weight = Field(1.0, description="weight of the negative entropy on the complement of the target mask")


class SelfExplainerLosses(AreaTerms):
    """The self-explainer's."""

    coherency: Weight = Field(1.0, description="weight of the distance between the teacher's and the student's masks")


class RealTimeSaliencyLosses(Params):
    """Those of Real-Time Saliency, with the weights that NN-Explainer's code gives them."""

    variation: Weight = Field(10.0, description="weight of the mask's total variation, squared differences")
    area: Weight = Field(1.0, description="weight of the mask's mean; 1e-3 in Dabkowski and Gal")
    destruction: Weight = Field(5.0, description="weight of the classes' probability without the masked part")
    exponent: float = Field(0.3, gt=0, le=1, description="of that probability")
    compat: Literal["corrected", "original"] = Field(
        "corrected",
        description="of what stands in for masked pixels; original: noise of mean 0.11 and deviation 1, one draw for a "
        "batch, dark borders",
    )


class NnExplainerParams(Params):
    """A network that draws one mask a class, for which a frozen classifier finds the right words."""

    network: ClassMapNetwork = ClassMapNetwork()
    losses: NnExplainerLosses = NnExplainerLosses()


class SelfExplainerParams(Params):
    """A network that classifies by the mean of its own maps."""

    network: ClassMapNetwork = ClassMapNetwork()
    losses: SelfExplainerLosses = SelfExplainerLosses()


class RealTimeSaliencyParams(Params):
    """The NN-Explainer's network under the losses of Real-Time Saliency."""

    network: ClassMapNetwork = ClassMapNetwork()
    losses: RealTimeSaliencyLosses = RealTimeSaliencyLosses()
