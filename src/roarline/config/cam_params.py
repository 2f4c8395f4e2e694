"""Parameters of the CAM family. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from roarline.config.component import Params


def _name_or_different_names(layer: Any) -> Any:
    names = layer if isinstance(layer, list) else [layer]
    if not names or not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
        raise ValueError(f"is {layer!r}, expected a layer's dotted name, auto, or a list of different ones")
    return layer


Layer = Annotated[str | list[str], BeforeValidator(_name_or_different_names)]


class CamParams(Params):
    """Class activation maps at one or several layers."""

    layer: Layer = Field(
        "auto",
        description="dotted module name, e.g. layer4 (a module called twice is read at its last call), auto for the "
        "last layer with places, or a list of names",
    )
    relu: bool = Field(True, description="clamp the map at 0")
    fuse: Literal["mean", "max"] = Field(
        "mean", description="of several layers' maps, each scaled by its largest value"
    )
    resize: Literal["bilinear", "align_corners", "bicubic"] = Field(
        "bilinear", description="from the layer's size to the image's; bilinear is torch's and cv2's alike"
    )


class GradCamParams(CamParams):
    """Grad-CAM."""

    weights: Literal["pooled", "elementwise", "summed"] = Field(
        "pooled", description="of the gradient the spatial mean (as published), each cell's own, or the spatial sum"
    )


class HiResCamParams(CamParams):
    """HiResCAM."""

    relu: bool = Field(False, description="clamp the map at 0; as published it is signed")


class ScoreCamParams(CamParams):
    """Score-CAM."""

    weights: Literal["channel_softmax", "probability"] = Field(
        "channel_softmax",
        description="softmax over channels of the logits (as published), or the class probability (the authors' code)",
    )
    max_channels: int | None = Field(
        None, ge=1, description="only the channels with the largest spatial standard deviation; null: all"
    )


class AblationCamParams(CamParams):
    """Ablation-CAM."""

    max_channels: int | None = Field(
        None, ge=1, description="only the channels with the largest spatial standard deviation; null: all"
    )
    compat: Literal["corrected", "original"] = Field(
        "corrected", description="original divides by the logit, which turns all signs where that is below 0"
    )


class EigenCamParams(CamParams):
    """Eigen-CAM."""

    centre: bool = Field(False, description="take each channel's spatial mean away first, as pytorch-grad-cam does")
    relu: bool = Field(False, description="clamp the map at 0")
