"""Grad-CAM at one layer.

captum's LayerGradCam lets the input require a gradient, so that the whole forward pass is recorded; here recording
starts at the layer. Tests hold it against captum and against the original code's arrays.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from roarline.attribution.passes import choose_targets
from roarline.errors import ModelError
from roarline.imaging.cam import Weights, grad_cam, resize_map
from roarline.models.layers import find_layer


def gradcam(
    model: nn.Module,
    images_BCHW: Tensor,
    targets_B: Tensor,
    *,
    layer: str,
    relu: bool = True,
    weights: Weights = "pooled",
) -> Tensor:
    """Activations of a layer weighted by the gradient of the target's logit, resized to the image, bilinear.

    Args:
        targets_B: int64; -1 means the predicted class.
        layer: Dotted module name; a module that is called twice is read at its last call.
        relu: Clamp the map at 0, before it is resized.
        weights: ``pooled`` or ``elementwise``.

    Returns:
        [B, H, W].

    Raises:
        ModelError: There is no such layer, or its output is not [B, C, h, w].

    Source: Selvaraju et al. 2017, arXiv 1610.02391.
    """
    seen: list[Tensor] = []

    def start_recording(module: nn.Module, args: Any, output: Any) -> Tensor:
        if not isinstance(output, Tensor) or output.ndim != 4:
            came = f"shape {list(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
            raise ModelError(
                f"gradcam: layer {layer!r} gives {came}, expected spatial maps [B, C, h, w]; choose another layer"
            )
        seen[:] = [output.detach().requires_grad_()]
        return seen[0].clone()  # what follows may write in place

    size = (images_BCHW.shape[2], images_BCHW.shape[3])
    handle = find_layer(model, layer, size).register_forward_hook(start_recording)
    try:
        with torch.enable_grad():
            logits = model(images_BCHW.detach())
            if not seen:
                raise ModelError(f"gradcam: layer {layer!r} is not called in a forward pass; choose another layer")
            chosen = choose_targets(logits, targets_B)
            (gradients,) = torch.autograd.grad(logits.gather(1, chosen[:, None]).sum(), seen[0])
    finally:
        handle.remove()
    maps = grad_cam(seen[0].detach(), gradients, weights, relu=relu)
    return resize_map(maps, size)
