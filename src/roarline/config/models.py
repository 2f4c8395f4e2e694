"""The table of model architectures. Imports no torch.

To add a model: write one function in ``roarline/models/`` that returns an ``nn.Module``, and one line in
``MODELS``. ``torchvision:NAME``, ``timm:NAME`` and dotted paths need no line.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from roarline.config.component import Component, Params


class PoolingParams(Params):
    """How a network's last map becomes one vector."""

    pooling: Literal["mean", "max"] = Field("mean", description="of the last map's places; max: global max pooling")

    @model_serializer(mode="wrap")
    def _without_the_usual(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Keys from before there was a choice stay as they are."""
        return {name: value for name, value in handler(self).items() if (name, value) != ("pooling", "mean")}


class SmallCnnParams(PoolingParams):
    """Three convolutions for images of 8×8 to 32×32 px."""

    width: int = Field(32, ge=4, description="channels of the first convolution; the later ones have 2 ×")


class NarrowResNetParams(PoolingParams):
    """A residual network with few channels."""

    width: int = Field(16, ge=4, description="channels of the first stage; the later ones have 2 × and 4 ×")
    stem_stride: int = Field(1, ge=1, le=4, description="of the first convolution; 2 is four times faster")


_MODELS = "roarline.models"
_CIFAR_RESNET = "CIFAR form: 3×3 stem without pooling, widths 64/128/256"

MODELS: dict[str, Component] = {
    "resnet8": Component(
        f"{_MODELS}.cifar_resnet:resnet8", PoolingParams, f"ResNet-8, {_CIFAR_RESNET}", "saurabheights/ROAR"
    ),
    "narrow_resnet8": Component(
        f"{_MODELS}.cifar_resnet:narrow_resnet8",
        NarrowResNetParams,
        "ResNet-8, CIFAR form, with few channels: fast on a CPU",
        "He et al. 2016, arXiv 1512.03385",
    ),
    "resnet14": Component(
        f"{_MODELS}.cifar_resnet:resnet14",
        PoolingParams,
        f"ResNet-14, {_CIFAR_RESNET}",
        "saurabheights/ROAR family",
    ),
    "resnet20": Component(
        f"{_MODELS}.cifar_resnet:resnet20",
        PoolingParams,
        f"ResNet-20, {_CIFAR_RESNET}",
        "saurabheights/ROAR family",
    ),
    "resnet18": Component(
        f"{_MODELS}.cifar_resnet:resnet18",
        PoolingParams,
        "ResNet-18, CIFAR form: 3×3 stem without pooling, widths 64/128/256/512",
        "He et al. 2016, arXiv 1512.03385",
    ),
    "small_cnn": Component(
        f"{_MODELS}.small_cnn:small_cnn", SmallCnnParams, "Three convolutions for 8×8 to 32×32 px", "roarline"
    ),
}
