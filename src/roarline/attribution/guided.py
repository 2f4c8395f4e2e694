"""Backpropagation with other rules at ReLUs: guided backpropagation, deconvnet, and guided Grad-CAM.

captum's GuidedBackprop and Deconvolution know ``nn.ReLU`` modules alone and pass over the rest silently; here every
call of a ReLU counts: modules, ``torch.relu`` and ``functional.relu``, in place or not, ``clamp(min=0)``, and ReLU6.
Other activations of a network that has ReLUs too (MobileNetV3's hardswish) pass back their plain gradient.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from roarline.attribution.intercept import Call, Interception, carry, refuse_closed_networks
from roarline.attribution.passes import choose_targets
from roarline.errors import MethodError
from roarline.imaging.cam import grad_cam, resize_map
from roarline.models.recording import recording


def guided_backprop(model: nn.Module, images_BCHW: Tensor, targets_B: Tensor) -> Tensor:
    """Gradient of the target's logit where a ReLU's backward pass is g · [x > 0] · [g > 0].

    Args:
        targets_B: int64; -1 means the predicted class.

    Returns:
        [B, C, H, W].

    Raises:
        MethodError: No ReLU was called: the network has other activations; or it is compiled or scripted.

    Source: Springenberg et al. 2015, arXiv 1412.6806, figure 1.
    Differs: TorchRay also passes signals where x is exactly 0.
    """
    return _gradient(model, images_BCHW, targets_B, _GuidedReLUs(), "guided_backprop")


def deconvnet(model: nn.Module, images_BCHW: Tensor, targets_B: Tensor) -> Tensor:
    """Gradient of the target's logit where a ReLU's backward pass is g · [g > 0], whatever its input was.

    Args:
        targets_B: int64; -1 means the predicted class.

    Returns:
        [B, C, H, W].

    Raises:
        MethodError: As ``guided_backprop``.

    Source: Zeiler and Fergus 2014, arXiv 1311.2901; as a rule of backpropagation Simonyan et al. 2014, arXiv 1312.6034,
    section 4. A ReLU6 is taken for a ReLU: its upper end stops no signal.
    """
    return _gradient(model, images_BCHW, targets_B, _DeconvReLUs(), "deconvnet")


def guided_gradcam(
    model: nn.Module, images_BCHW: Tensor, targets_B: Tensor, *, layer: str | Sequence[str] = "auto"
) -> Tensor:
    """Guided backpropagation times Grad-CAM (clamped at 0, then resized to the image, bilinear).

    The forward pass is shared: back to the layer the signal is the plain gradient, back to the image the guided one.

    Args:
        targets_B: int64; -1 means the predicted class.
        layer: Dotted module name, or ``auto``; a module that is called twice is read at its last call.

    Returns:
        [B, C, H, W].

    Raises:
        MethodError: As ``guided_backprop``.
        ModelError: There is no such layer, or its output is no map.

    Source: Selvaraju et al. 2017, arXiv 1610.02391, section 3.2.
    Differs: captum resizes with nearest neighbours unless told otherwise.
    """
    relus = _GuidedReLUs()
    refuse_closed_networks(model, "guided_gradcam")
    size = (images_BCHW.shape[2], images_BCHW.shape[3])
    with torch.enable_grad(), recording(model, layer, images_BCHW, keep_graph=True) as recorded:
        leaf = images_BCHW.detach().requires_grad_()
        logits = relus.run(model, leaf)
        relus.expect_some(model, "guided_gradcam")
        score = logits.gather(1, choose_targets(logits, targets_B)[:, None]).sum()
        relus.guides = False
        gradients = recorded.gradients(score, retain_graph=True)[0]
        relus.guides = True
        (guided,) = torch.autograd.grad(score, leaf)
        maps = grad_cam(recorded.activations[0], gradients, "pooled")
    return guided * resize_map(maps.clamp(min=0), size)[:, None]


class _ReLUs(Interception):
    """Counts the calls of ReLUs on what depends on the image and lets ``altered`` stand for each."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def handle(self, call: Call) -> Any:
        if not call.is_relu() or not call.input.requires_grad:  # a ReLU of constants: the position bias of Swin v2
            return call()
        self.calls += 1
        return self.altered(call)

    def altered(self, call: Call) -> Tensor:
        """The ReLU's result, with a backward pass of the method's own."""
        raise NotImplementedError

    def expect_some(self, model: nn.Module, method: str) -> None:
        """Raise MethodError where no ReLU was called."""
        if self.calls == 0:
            raise MethodError(
                f"{method}: {type(model).__name__} called no ReLU between image and logits, and without one the method "
                "is the plain gradient; use `gradient` for networks with other activations"
            )


class _GuidedReLUs(_ReLUs):
    """Every ReLU passes only positive signals back; while not ``guides``, it passes all, as it is."""

    guides = True

    def altered(self, call: Call) -> Tensor:
        with torch.no_grad():
            value: Tensor = call()
        top = 6.0 if call.name == "relu6" else call.named()["max_val"] if call.name == "hardtanh" else math.inf

        def back(gradient: Tensor, value: Tensor) -> tuple[Tensor]:
            passed = torch.ops.aten.hardtanh_backward(gradient, value, 0.0, top)
            return (passed.clamp_(min=0) if self.guides else passed,)

        return carry(value, [call.input], [value], back)


class _DeconvReLUs(_ReLUs):
    """Every ReLU passes only positive signals back, whatever its input was."""

    def altered(self, call: Call) -> Tensor:
        with torch.no_grad():
            value: Tensor = call()
        return carry(value, [call.input], [], lambda gradient: (gradient.clamp(min=0),))


def _gradient(model: nn.Module, images_BCHW: Tensor, targets_B: Tensor, relus: _ReLUs, method: str) -> Tensor:
    refuse_closed_networks(model, method)
    with torch.enable_grad():
        leaf = images_BCHW.detach().requires_grad_()
        logits = relus.run(model, leaf)
        relus.expect_some(model, method)
        (gradient,) = torch.autograd.grad(logits.gather(1, choose_targets(logits, targets_B)[:, None]).sum(), leaf)
    return gradient
