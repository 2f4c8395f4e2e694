"""Networks that draw one mask a class, and how an explainer is made anew from its artifact.

What every explainer's network offers is ``masks(classifier, images_BCHW)``: [B, K, H, W] in [0, 1], one mask a class,
or [B, 1, H, W] where one serves all. The classifier is handed in at every call and is no part of the network, so that
it is no part of the artifact's weights. Shapes: B images, C channels, K classes, H × W px.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from roarline.config.explainers import EXPLAINERS
from roarline.errors import ModelError
from roarline.models.build import read_state, torchvision_weights
from roarline.models.light_unet import LightUnet

Backbone = Literal["deeplabv3_resnet50", "light"]

_DEEPLAB_SMALLEST_PX = 32


@runtime_checkable
class DrawsMasks(Protocol):
    """An explainer's network."""

    def masks(self, classifier: nn.Module, images_BCHW: Tensor) -> Tensor:
        """Masks of normalised images, [B, K, H, W] or [B, 1, H, W], in [0, 1].

        Args:
            classifier: The one that is explained, in eval mode.
        """
        ...


class ClassMapExplainer(nn.Module):
    """One map a class, at the image's size, before the sigmoid.

    Args:
        network: From images [B, 3, H, W] to maps [B, K, h, w] of any size.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Maps [B, K, H, W], resized bilinearly; torchvision's networks give theirs by name."""
        maps = self.network(images_BCHW)
        maps = maps["out"] if isinstance(maps, Mapping) else maps
        size = images_BCHW.shape[-2:]
        if maps.shape[-2:] == size:
            return maps  # type: ignore[no-any-return]
        return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)

    def masks(self, classifier: nn.Module, images_BCHW: Tensor) -> Tensor:
        """See ``DrawsMasks``; the classifier is not asked."""
        masks: Tensor = self(images_BCHW).sigmoid()
        return masks


def class_map_explainer(
    classifier: nn.Module,
    *,
    num_classes: int,
    input_size: tuple[int, int],
    backbone: Backbone = "deeplabv3_resnet50",
    weights: str | None = None,
    weights_file: Path | None = None,
    width: int = 16,
    levels: int = 2,
) -> ClassMapExplainer:
    """The network of the NN-Explainer, the self-explainer and Real-Time Saliency.

    Args:
        classifier: Not asked.
        num_classes: K.
        input_size: (H, W) of the images, px.
        backbone: ``deeplabv3_resnet50``: torchvision's, without the auxiliary head; ``light``: ``LightUnet``.
        weights: Of deeplabv3_resnet50's ResNet-50: a torchvision name.
        weights_file: Instead: a state dict of a ResNet-50, its ``fc`` layer left out.
        width, levels: Of ``light``.

    Raises:
        ModelError: The images are too small, or the weights are of another network.

    Source: Stalder et al. 2022, arXiv 2205.11266, section 3; NN-Explainer ``explainer.py``.
    Differs: torchvision 0.11, which the original pins, loads ImageNet weights into the ResNet-50 unasked.
    """
    if backbone == "light":
        return ClassMapExplainer(LightUnet(num_classes, width, levels))
    if min(input_size) < _DEEPLAB_SMALLEST_PX:
        raise ModelError(
            f"backbone deeplabv3_resnet50 needs images of {_DEEPLAB_SMALLEST_PX} px or more, these have "
            f"{input_size[0]}×{input_size[1]} px; use backbone: light"
        )
    from torchvision.models.segmentation import deeplabv3_resnet50

    network = deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=num_classes, aux_loss=False)
    state: Mapping[str, Tensor] | None = None
    if weights_file is not None:
        state = read_state(weights_file)
    elif weights is not None:
        state = torchvision_weights("resnet50", weights)
    if state is not None:
        _load_backbone(network.backbone, state, str(weights_file or weights))
    return ClassMapExplainer(network)


def build_explainer(
    explainer: str,
    classifier: nn.Module,
    network_params: Mapping[str, Any],
    *,
    num_classes: int,
    input_size: tuple[int, int],
    seed: int,
    weights_file: Path | None = None,
) -> nn.Module:
    """An explainer's network with random weights, or those its parameters ask for, on the CPU.

    Args:
        explainer: A name of ``EXPLAINERS``.
        classifier: The one to be explained, on the CPU.
        network_params: Its own.
        input_size: (H, W) of the images, px.
        seed: Of the random weights; the global generators are left as they were.
        weights_file: In place of the parameter ``weights``.

    Raises:
        ModelError: The network doesn't go with the images or the classifier.
    """
    extra: dict[str, Any] = {} if weights_file is None else {"weights_file": weights_file}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network: nn.Module = EXPLAINERS[explainer].load()(
            classifier, num_classes=num_classes, input_size=input_size, **network_params, **extra
        )
    return network


def _load_backbone(backbone: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    own = backbone.state_dict()
    given = {name: value for name, value in state.items() if not name.startswith("fc.")}
    differing = sorted(set(own) ^ set(given)) or [name for name in own if own[name].shape != given[name].shape]
    if differing:
        raise ModelError(
            f"network.weights {source}: not those of a ResNet-50: {len(differing)} names or shapes differ (first: "
            f"{differing[0]})"
        )
    backbone.load_state_dict(given)
