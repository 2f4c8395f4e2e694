"""Guided backpropagation: the gradient, with only positive signals passed back through every ReLU.

captum's GuidedBackprop knows ``nn.ReLU`` modules alone and passes over the rest silently; here every call of a ReLU
counts: modules, ``torch.relu`` and ``functional.relu``, in place or not, and ReLU6.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from roarline.attribution.passes import target_logit_gradient
from roarline.errors import MethodError

_RELUS = frozenset({functional.relu, functional.relu6, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_})


def guided_backprop(model: nn.Module, images_BCHW: Tensor, targets_B: Tensor) -> Tensor:
    """Gradient of the target's logit where a ReLU's backward pass is g · [x > 0] · [g > 0].

    Args:
        targets_B: int64; -1 means the predicted class.

    Returns:
        [B, C, H, W].

    Raises:
        MethodError: No ReLU was called: the network has other activations, or is compiled or scripted.

    Source: Springenberg et al. 2015, arXiv 1412.6806, figure 1.
    Differs: TorchRay also passes signals where x is exactly 0.
    """
    with _GuidedReLUs() as relus:
        gradient = target_logit_gradient(model, images_BCHW, targets_B)
    if relus.calls == 0:
        raise MethodError(
            f"guided_backprop: {type(model).__name__} called no ReLU, and without one the method is the plain "
            "gradient; use `gradient` for networks with other activations, else an uncompiled, unscripted network"
        )
    return gradient


class _GuidedReLUs(TorchFunctionMode):
    """While active, every ReLU's output passes only positive gradients back; nothing is left on the model."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in _RELUS or _is_relu6(func, args, kwargs or {}):
            self.calls += 1
            if result.requires_grad:
                result.register_hook(_positive)
        return result


def _is_relu6(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """``nn.ReLU6`` calls hardtanh, whose lower bound then is 0."""
    if func is not functional.hardtanh:
        return False
    return float(kwargs.get("min_val", args[1] if len(args) > 1 else -1.0)) == 0.0


def _positive(gradient: Tensor) -> Tensor:
    return gradient.clamp(min=0)
