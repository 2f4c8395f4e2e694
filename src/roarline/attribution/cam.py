"""Class activation maps from one forward pass, most with one backward pass to the layers.

All recording starts at the first of the layers; captum's LayerGradCam records the whole forward pass. Tests hold them
against captum, pytorch-grad-cam and the original code's arrays.

What they share: ``layer`` is a dotted module name, ``auto`` (``models.layers.auto_layer``) or a list of names, whose
maps are fused (``imaging.cam.to_image``); a module that is called several times is read at its last call. Targets of -1
mean the predicted class. Maps are [B, H, W]; ``relu`` clamps them at 0 before they are resized. A ModelError says where
there is no such layer, or where it has no places.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from roarline.attribution.passes import choose_targets
from roarline.imaging import cam
from roarline.models.recording import recording


def gradcam(
    model: nn.Module,
    images_BCHW: Tensor,
    targets_B: Tensor,
    *,
    layer: str | Sequence[str] = "auto",
    weights: cam.Weights = "pooled",
    relu: bool = True,
    fuse: cam.Fuse = "mean",
    resize: cam.Resize = "bilinear",
) -> Tensor:
    """Grad-CAM: activations weighted by the gradient of the target's logit.

    Args:
        targets_B: int64; -1 means the predicted class.
        layer: Dotted name, ``auto``, or a list.
        weights: The gradient's spatial mean (``pooled``, as published), its sum (``summed``) or ``elementwise``.
        relu: Clamp the map at 0.
        fuse: ``mean`` or ``max`` of several layers' maps, each scaled by its largest value.
        resize: ``bilinear`` (torch's and cv2's), ``align_corners`` or ``bicubic``.

    Returns:
        [B, H, W].

    Raises:
        ModelError: There is no such layer, or its output is no map.

    Source: Selvaraju et al. 2017, arXiv 1610.02391.
    """

    def combine(activations: Tensor, gradients: Tensor) -> Tensor:
        return cam.grad_cam(activations, gradients, weights)

    return _from_gradients(model, images_BCHW, targets_B, layer, combine, relu, fuse, resize)


def gradcam_plus_plus(
    model: nn.Module,
    images_BCHW: Tensor,
    targets_B: Tensor,
    *,
    layer: str | Sequence[str] = "auto",
    relu: bool = True,
    fuse: cam.Fuse = "mean",
    resize: cam.Resize = "bilinear",
) -> Tensor:
    """Grad-CAM++: weights are sums of positive gradients, each corrected for how often its channel is active.

    Arguments and result as ``gradcam``.

    Source: Chattopadhyay et al. 2018, arXiv 1710.11063; see ``imaging.cam.grad_cam_plus_plus`` for what differs.
    """
    return _from_gradients(model, images_BCHW, targets_B, layer, cam.grad_cam_plus_plus, relu, fuse, resize)


def hirescam(
    model: nn.Module,
    images_BCHW: Tensor,
    targets_B: Tensor,
    *,
    layer: str | Sequence[str] = "auto",
    relu: bool = False,
    fuse: cam.Fuse = "mean",
    resize: cam.Resize = "bilinear",
) -> Tensor:
    """HiResCAM: activations times gradients, cell by cell; signed, as published.

    Arguments and result as ``gradcam``; before a global mean and a linear layer the cells' sum is the logit, but for
    the bias.

    Source: Draelos and Carin 2020, arXiv 2011.08891, equation 4.
    """
    return _from_gradients(model, images_BCHW, targets_B, layer, _elementwise, relu, fuse, resize)


def layercam(
    model: nn.Module,
    images_BCHW: Tensor,
    targets_B: Tensor,
    *,
    layer: str | Sequence[str] = "auto",
    relu: bool = True,
    fuse: cam.Fuse = "mean",
    resize: cam.Resize = "bilinear",
) -> Tensor:
    """LayerCAM: activations times positive gradients, cell by cell; made for earlier layers too.

    Arguments and result as ``gradcam``.

    Source: Jiang et al. 2021, LayerCAM, IEEE TIP 30.
    Differs: of several layers the paper scales the earlier ones by tanh and takes the maximum; here see ``fuse``.
    """
    return _from_gradients(model, images_BCHW, targets_B, layer, cam.layer_cam, relu, fuse, resize)


def xgradcam(
    model: nn.Module,
    images_BCHW: Tensor,
    targets_B: Tensor,
    *,
    layer: str | Sequence[str] = "auto",
    relu: bool = True,
    fuse: cam.Fuse = "mean",
    resize: cam.Resize = "bilinear",
) -> Tensor:
    """XGrad-CAM: weights are gradients, averaged by each cell's share of its channel's activation.

    Arguments and result as ``gradcam``.

    Source: Fu et al. 2020, arXiv 2008.02312.
    """
    return _from_gradients(model, images_BCHW, targets_B, layer, cam.x_grad_cam, relu, fuse, resize)


def eigen_cam(
    model: nn.Module,
    images_BCHW: Tensor,
    targets_B: Tensor,
    *,
    layer: str | Sequence[str] = "auto",
    centre: bool = False,
    relu: bool = False,
    fuse: cam.Fuse = "mean",
    resize: cam.Resize = "bilinear",
) -> Tensor:
    """Eigen-CAM: activations along their first principal direction; the target plays no part.

    Args:
        centre: Take each channel's spatial mean away first, as pytorch-grad-cam does; the map then sums to 0.

    Other arguments and the result as ``gradcam``; the sign is chosen so that the map is large where activations are.

    Source: Muhammad and Yeasin 2020, arXiv 2008.00299.
    """
    with recording(model, layer, images_BCHW, gradients=False) as recorded, torch.no_grad():
        model(images_BCHW)
    maps = [cam.eigen_cam(activations, centre=centre) for activations in recorded.activations]
    return cam.to_image(maps, _size(images_BCHW), relu=relu, fuse=fuse, resize=resize)


def _elementwise(activations: Tensor, gradients: Tensor) -> Tensor:
    return cam.grad_cam(activations, gradients, "elementwise")


def _from_gradients(
    model: nn.Module,
    images_BCHW: Tensor,
    targets_B: Tensor,
    layer: str | Sequence[str],
    combine: Callable[[Tensor, Tensor], Tensor],
    relu: bool,
    fuse: cam.Fuse,
    resize: cam.Resize,
) -> Tensor:
    """Maps [B, H, W] from each layer's activations and gradients [B, C, h, w], combined to [B, h, w]."""
    with recording(model, layer, images_BCHW) as recorded, torch.enable_grad():
        logits = model(images_BCHW.detach())
        chosen = choose_targets(logits, targets_B)
        gradients = recorded.gradients(logits.gather(1, chosen[:, None]).sum())
    maps = [combine(*pair) for pair in zip(recorded.activations, gradients, strict=True)]
    return cam.to_image(maps, _size(images_BCHW), relu=relu, fuse=fuse, resize=resize)


def _size(images_BCHW: Tensor) -> tuple[int, int]:
    return images_BCHW.shape[2], images_BCHW.shape[3]
