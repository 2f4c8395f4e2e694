"""What a retrained network sees beside images with removed pixels: the removal masks, and the original code's images.

Shapes: B images, C channels, H × W px.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from roarline.data.channel_values import channel_values


def mask_inputs(removed_BHW: Tensor, removed_pixels: int) -> Tensor:
    """Inputs of the leakage probe: 1 where a pixel was removed, 0 elsewhere, standardised.

    All masks of a cell hold the same number of ones, so that their mean f = removed_pixels / (H · W) and their standard
    deviation sqrt(f (1 - f)) are known beforehand; where nothing or everything is removed the input is 0.

    Args:
        removed_BHW: bool [B, H, W].
        removed_pixels: How many are True in each row, in [0, H · W].

    Returns:
        float32 [B, 1, H, W]; expand it to the network's channels.

    Source: the probe of Rong et al. 2022, arXiv 2202.00449, section 4.
    """
    share = removed_pixels / (removed_BHW.shape[-2] * removed_BHW.shape[-1])
    spread = math.sqrt(share * (1 - share))
    masks = removed_BHW[:, None].float()
    return (masks - share) / spread if spread > 0 else torch.zeros_like(masks)


def cut_to_8_bits(images_BCHW: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Images as the original ROAR code kept them between extraction and retraining (``compat: original``).

    It undoes the normalisation in float32, as a normalisation by -mean / std and 1 / std, and cuts to 8 bits, which
    loses one grey level wherever the float comes out just below a whole number.

    Args:
        images_BCHW: float32, normalised.
        mean: Of the normalisation, one number a channel.
        std: As ``mean``.

    Returns:
        float32 [B, C, H, W], normalised again.

    Source: saurabheights/ROAR, extraction of input images.
    """

    def channels(values: Sequence[float]) -> Tensor:
        return channel_values(values, images_BCHW.dtype, images_BCHW.device)

    offset = channels([-m / s for m, s in zip(mean, std, strict=True)])
    pixels = (images_BCHW - offset) / channels([1 / s for s in std])
    levels = (pixels * 255).floor().clamp(0, 255)
    return (levels / 255 - channels(mean)) / channels(std)
