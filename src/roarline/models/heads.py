"""Which part of a classifier is its head, and how the pooling before it is done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from roarline.errors import ModelError

POOLING = "pooling"
_HEADS = ("fc", "classifier", "linear", "head", "heads")
_WAYS = ("mean", "max")


def head_name(model: nn.Module) -> str:
    """Name of the child that makes logits of features: all other children are the backbone.

    Raises:
        ModelError: No child has one of the usual names and parameters.
    """
    children = dict(model.named_children())
    for name in _HEADS:
        if name in children and any(True for _ in children[name].parameters()):
            return name
    raise ModelError(
        f"{type(model).__name__} has no head named {', '.join(_HEADS)}: its backbone can't be told from it; its "
        f"children: {', '.join(children) or 'none'}"
    )


def freeze_backbone(model: nn.Module) -> None:
    """Let nothing but the head be trained.

    Raises:
        ModelError: There is no head.
    """
    head = head_name(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(f"{head}."))


def backbone(model: nn.Module) -> list[nn.Module]:
    """The children that are not the head."""
    head = head_name(model)
    return [child for name, child in model.named_children() if name != head]


def take_pooling(params: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Part ``pooling``, which is not the network's own, from a network's parameters.

    Raises:
        ModelError: It is neither ``mean`` nor ``max``.
    """
    others = dict(params)
    pooling = others.pop(POOLING, "mean")
    if pooling not in _WAYS:
        raise ModelError(f"model.params: pooling is {pooling!r}, expected mean or max")
    return others, pooling


def use_max_pooling(model: nn.Module) -> None:
    """Let the last pooling over all places take the maximum instead of the mean.

    Raises:
        ModelError: The network has no pooling that is known to be this one.

    Source: spec S2.3 (GMP).
    """
    pool = getattr(model, "avgpool", None)
    if isinstance(pool, nn.AdaptiveAvgPool2d) and pool.output_size in (1, (1, 1)):
        model.avgpool = nn.AdaptiveMaxPool2d(1)
        return
    raise ModelError(
        f"{type(model).__name__} can't have pooling: max, for want of a global mean named avgpool, as torchvision's "
        "ResNets have it"
    )


def pooled(features_BCHW: Tensor, pooling: str) -> Tensor:
    """The mean or the maximum over all places, [B, C]; of equal maxima the first."""
    if pooling == "max":
        return F.adaptive_max_pool2d(features_BCHW, 1).flatten(1)
    return features_BCHW.mean((2, 3))
