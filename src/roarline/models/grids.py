"""Outputs of a layer as maps [B, C, h, w]: of convolutions, of transformers over tokens, of Swin.

Shapes: B images, T tokens, C channels, h × w cells of the layer, H × W px of the image.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from roarline.errors import ModelError

_LEADING_TOKENS = 5  # a class token and up to 4 registers or a distillation token
_CLEARLY = 0.1


def as_grid(output: object, input_size: tuple[int, int], channels: int | None = None) -> Tensor | None:
    """A layer's output as a map, or None where it is none: another type or shape, or a single cell.

    [B, C, h, w] stays; [B, h, w, C] (Swin), where ``channels`` does not say it, is known by h : w being the image's own
    proportions and C : h not; of tokens [B, T, C] (ViT) the last h · w are the cells, row by row, where H × W px cut
    into square patches give so many, and the up to 5 before them (class token, registers) are dropped.

    Args:
        input_size: (H, W) of the network's inputs in px.
        channels: Which of four dimensions the channels are (``layouts.channel_dimensions``).

    Returns:
        [B, C, h, w] with more than one cell.
    """
    if not isinstance(output, Tensor):
        return None
    grid: Tensor | None = None
    if output.ndim == 4:
        grid = output.movedim(channels or (3 if _excess(output, input_size) > _CLEARLY else 1), 1)
    elif output.ndim == 3:
        cells = token_cells(output.shape[1], input_size)
        if cells is not None:
            grid = output[:, -math.prod(cells) :].transpose(1, 2).reshape(len(output), -1, *cells)
    return grid if grid is not None and grid.shape[2] * grid.shape[3] > 1 else None


def grid_of_layer(layer: str, output: object, input_size: tuple[int, int], channels: int | None = None) -> Tensor:
    """As ``as_grid``, for a layer that a user named; half precision becomes float32, since maps are sums.

    Raises:
        ModelError: Its output is no map, or could be read as one in two ways.
    """
    grid = as_grid(output, input_size, channels or channel_dimension(layer, output, input_size))
    if grid is None:
        came = f"shape {list(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
        raise ModelError(
            f"layer {layer!r} gives {came}, expected spatial maps [B, C, h, w] of several cells; choose another layer, "
            "or layer: auto"
        )
    return grid.float() if grid.dtype in (torch.float16, torch.bfloat16) else grid


def channel_dimension(layer: str, output: object, input_size: tuple[int, int]) -> int:
    """Which dimension of a layer's output its channels are, in the same reading as ``as_grid``.

    Raises:
        ModelError: [B, C, h, w] and [B, h, w, C] have the image's proportions about equally.
    """
    if not isinstance(output, Tensor) or output.ndim != 4:
        return 2
    excess = _excess(output, input_size)
    if abs(excess) <= _CLEARLY:
        raise ModelError(
            f"layer {layer!r} gives shape {list(output.shape)}, which may be [B, C, h, w] or [B, h, w, C], and nothing "
            "in the network says which; choose another layer, or images of another size (data.resize_px, data.crop_px)"
        )
    return 3 if excess > 0 else 1


def token_cells(tokens: int, input_size: tuple[int, int]) -> tuple[int, int] | None:
    """The (h, w) into which square patches of some side cut the image, so that they are all but the first tokens.

    Args:
        tokens: T, cells and up to 5 leading tokens.
        input_size: (H, W) in px.

    Returns:
        (h, w) for the fewest leading tokens; None where no patch side fits.
    """
    height, width = input_size
    for leading in range(_LEADING_TOKENS + 1):
        for side in range(1, max(height, width)):
            for cells in ((height // side, width // side), (-(-height // side), -(-width // side))):
                if math.prod(cells) == tokens - leading > 1:
                    return cells
    return None


def _excess(output: Tensor, input_size: tuple[int, int]) -> float:
    """By how much more, in logarithms, [B, C, h, w] is off the image's proportions than [B, h, w, C]."""
    if 0 in output.shape:
        return -math.inf
    proportions = math.log(input_size[0] / input_size[1])
    one, two, three = output.shape[1:]
    return abs(math.log(two / three) - proportions) - abs(math.log(one / two) - proportions)
