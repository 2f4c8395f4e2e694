"""What stands in for masked pixels while a masker is trained.

Shapes: B images, C channels, H × W px.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from roarline.config.component import load_object, locate
from roarline.errors import MethodError
from roarline.imaging.smoothing import gaussian_blur

Infiller = Callable[[Tensor, Tensor], Tensor]
"""(normalised images [B, C, H, W], what is kept of them [B, 1, H, W] in [0, 1]) to what stands in for the rest
[B, C, H, W], normalised. It is called without gradients."""


def make_infiller(name: str, *, sigma_px: float = 20.0, params: Mapping[str, Any] | None = None) -> Infiller | None:
    """An infiller by name.

    Args:
        name: ``none``: 0, the normalisation's mean colour; ``mean``: each image's own mean colour; ``blur``: the image
            under a Gaussian, 0 beyond its border; else the dotted path of a function, e.g. one that asks an inpainting
            network: ``(images, kept, **params) -> images``, shapes as of ``Infiller``.
        sigma_px: Of ``blur``.
        params: Of a function of one's own.

    Returns:
        None for ``none``.

    Raises:
        UserInputError: The name is neither known nor a function's path.

    Source: spec S3.4; casme ``archs.py`` (BlurInfiller, DummyInfiller).
    """
    if name == "none":
        return None
    if name == "mean":
        return lambda images, kept: images.mean(dim=(2, 3), keepdim=True).expand_as(images)
    if name == "blur":
        return lambda images, kept: gaussian_blur(images, sigma_px, "zero")
    function = load_object(locate(name, "roarline.infillers").dotted_path)
    return lambda images, kept: _checked(function(images, kept, **(params or {})), images, name)


def keep(images_BCHW: Tensor, kept_B1HW: Tensor, infiller: Infiller | None = None) -> Tensor:
    """Images of which only a part is kept: kept · image + (1 - kept) · what the infiller gives.

    Args:
        images_BCHW: Normalised.
        kept_B1HW: In [0, 1], differentiable: the mask for the masked-in image, 1 - mask for the masked-out one.
        infiller: None: 0.

    Returns:
        [B, C, H, W].

    Source: spec S3.4.
    Differs: the original's wrapper of DFNet multiplies what it fills in by the mask on both sides, though on the
        masked-in one 1 - mask is the hole, and its caller multiplies once more (spec B3.3). Here an infiller is told
        what is kept of its own side, and what it gives is multiplied once, by what is not kept.
    """
    if infiller is None:
        return images_BCHW * kept_B1HW
    with torch.no_grad():
        filling = infiller(images_BCHW, kept_B1HW.detach())
    return images_BCHW * kept_B1HW + filling * (1 - kept_B1HW)


def _checked(filling: object, images_BCHW: Tensor, name: str) -> Tensor:
    if not isinstance(filling, Tensor) or filling.shape != images_BCHW.shape:
        came = list(filling.shape) if isinstance(filling, Tensor) else type(filling).__name__
        raise MethodError(f"infiller {name!r} gave {came}, expected a tensor {list(images_BCHW.shape)}")
    return filling.to(images_BCHW)
