"""From what a method returns to one number a pixel: channels, sign, several targets of one image.

Shapes: B rows, C channels, T targets of one image, H × W px.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

Channels = Literal["sum", "mean", "max", "max_abs", "none"]
Sign = Literal["signed", "positive", "absolute", "squared"]
MergeNormalization = Literal["min_max", "none"]


def reduce_channels(maps_BCHW: Tensor, channels: Channels) -> Tensor:
    """Reduce the channels of signed maps.

    Args:
        maps_BCHW: [B, C, H, W].
        channels: ``sum``, ``mean``, ``max``, ``max_abs`` (the largest magnitude, so never negative), or ``none``.

    Returns:
        [B, H, W]; the maps as they are for ``none``.

    Raises:
        ValueError: The shape or the reduction is none of these.
    """
    if maps_BCHW.ndim != 4:
        raise ValueError(f"maps have shape {list(maps_BCHW.shape)}, expected [B, C, H, W]")
    if channels == "sum":
        return maps_BCHW.sum(dim=1)
    if channels == "mean":
        return maps_BCHW.mean(dim=1)
    if channels == "max":
        return maps_BCHW.amax(dim=1)
    if channels == "max_abs":
        return maps_BCHW.abs().amax(dim=1)
    if channels == "none":
        return maps_BCHW
    raise ValueError(f"channels is {channels!r}, expected sum, mean, max, max_abs or none")


def apply_sign(maps: Tensor, sign: Sign) -> Tensor:
    """How values are read where pixels are ranked.

    Args:
        maps: Signed, any shape.
        sign: ``signed``: as they are, evidence against the class ranks lowest; ``positive``: negative values become 0
            and so tie; ``absolute``: magnitudes; ``squared``: ranks as absolute does, within float32's range.

    Returns:
        A tensor of the same shape.

    Raises:
        ValueError: The sign is none of these.
    """
    if sign == "signed":
        return maps
    if sign == "positive":
        return maps.clamp_min(0)
    if sign == "absolute":
        return maps.abs()
    if sign == "squared":
        return maps.square()
    raise ValueError(f"sign is {sign!r}, expected signed, positive, absolute or squared")


def merge_targets(maps_THW: Tensor, normalization: MergeNormalization) -> Tensor:
    """Merge the maps of one image's targets to one ranking: the pixelwise maximum.

    Args:
        maps_THW: [T, H, W], signs already applied; T at least 1.
        normalization: ``min_max`` scales each map to [0, 1] first (a constant map to 0), so that no target outweighs
            another by its scale; ``none`` takes values as they are. A single map is returned as it is.

    Returns:
        [H, W].

    Raises:
        ValueError: There is no map, or the normalisation is none of these.
    """
    if maps_THW.ndim != 3 or maps_THW.shape[0] == 0:
        raise ValueError(f"maps have shape {list(maps_THW.shape)}, expected [T, H, W] with T at least 1")
    if normalization not in ("min_max", "none"):
        raise ValueError(f"normalization is {normalization!r}, expected min_max or none")
    if maps_THW.shape[0] == 1:  # scaling could only merge values that lie close together
        return maps_THW[0]
    if normalization == "min_max":
        low = maps_THW.amin(dim=(1, 2), keepdim=True)
        span = maps_THW.amax(dim=(1, 2), keepdim=True) - low
        maps_THW = (maps_THW - low) / span.where(span > 0, 1.0)
    return maps_THW.amax(dim=0)
