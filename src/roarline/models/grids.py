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


def as_grid(output: object, input_size: tuple[int, int]) -> Tensor | None:
    """A layer's output as a map, or None where it is none: another type or shape, or a single cell.

    [B, C, h, w] stays; [B, h, w, C] (Swin) is known by h : w being the image's own proportions and C : h not; of tokens
    [B, T, C] (ViT) the last h · w are the cells, row by row, where H × W px cut into square patches give so many, and
    the up to 5 before them (class token, registers) are dropped.

    Args:
        input_size: (H, W) of the network's inputs in px.

    Returns:
        [B, C, h, w] with more than one cell.
    """
    if not isinstance(output, Tensor):
        return None
    grid: Tensor | None = None
    if output.ndim == 4:
        grid = output.movedim(channel_dimension(output, input_size), 1)
    elif output.ndim == 3:
        cells = token_cells(output.shape[1], input_size)
        if cells is not None:
            grid = output[:, -math.prod(cells) :].transpose(1, 2).reshape(len(output), -1, *cells)
    return grid if grid is not None and grid.shape[2] * grid.shape[3] > 1 else None


def grid_of_layer(layer: str, output: object, input_size: tuple[int, int]) -> Tensor:
    """As ``as_grid``, for a layer that a user named; half precision becomes float32, since maps are sums.

    Raises:
        ModelError: Its output is no map.
    """
    grid = as_grid(output, input_size)
    if grid is None:
        came = f"shape {list(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
        raise ModelError(
            f"layer {layer!r} gives {came}, expected spatial maps [B, C, h, w] of several cells; choose another layer, "
            "or layer: auto"
        )
    return grid.float() if grid.dtype in (torch.float16, torch.bfloat16) else grid


def channel_dimension(output: Tensor, input_size: tuple[int, int]) -> int:
    """Which dimension of a layer's output its channels are, in the same reading as ``as_grid``."""
    if output.ndim == 4:
        return 3 if _channels_come_last(output, input_size) else 1
    return 2


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


def _channels_come_last(output: Tensor, input_size: tuple[int, int]) -> bool:
    """True where [B, h, w, C] keeps the image's proportions clearly better than [B, C, h, w]."""
    if 0 in output.shape:
        return False
    proportions = math.log(input_size[0] / input_size[1])
    one, two, three = output.shape[1:]
    off_if_last = abs(math.log(one / two) - proportions)
    off_if_first = abs(math.log(two / three) - proportions)
    return off_if_last + _CLEARLY < off_if_first
