"""Filters over attribution maps: controls that are only blurrier or coarser than the method they come from."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from roarline.imaging.smoothing import gaussian_blur


def blur_maps(maps: Tensor, sigma_px: float) -> Tensor:
    """A Gaussian over the last two dimensions, mirrored at the border.

    Args:
        maps: [..., H, W], signed.
        sigma_px: Standard deviation.

    Returns:
        [..., H, W].

    Source: control against ROAR's preference for blurry maps, arXiv 2304.13836.
    """
    return gaussian_blur(maps, sigma_px)


def max_filter_maps(maps: Tensor, window_px: int) -> Tensor:
    """The largest value of the square window around each pixel; outside the image there is nothing.

    Args:
        maps: [..., H, W], signed.
        window_px: Side of the window, odd.

    Returns:
        [..., H, W].

    Raises:
        ValueError: The window is even or below 1.

    Source: control against ROAR's preference for blurry maps, arXiv 2304.13836.
    """
    if window_px < 1 or window_px % 2 == 0:
        raise ValueError(f"window_px is {window_px}, expected an odd number of 1 or more")
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    # Square windows are separable, and two narrow passes are cheaper than one wide one.
    half = window_px // 2
    rows = functional.max_pool2d(flat, (window_px, 1), stride=1, padding=(half, 0))
    return functional.max_pool2d(rows, (1, window_px), stride=1, padding=(0, half)).reshape(maps.shape)
