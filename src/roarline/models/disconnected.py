"""A grid of images through one network, no cell of which sees another.

DiFull asks a network that, by its construction, can only use one cell of a grid: whatever a method attributes to the
others is wrong. Here every operation that mixes neighbouring pixels is applied to each cell by itself, and pooling over
the whole image takes the chosen cell alone. Feature maps keep the grid's layout, so that methods that read layers see
what they expect. Shapes: n × n cells of h × w.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_LOCAL = {torch.conv2d, torch.max_pool2d, functional.max_pool2d, functional.avg_pool2d, functional.lp_pool2d}
_GLOBAL = {functional.adaptive_avg_pool2d, functional.adaptive_max_pool2d}
_MEANS = {torch.mean, Tensor.mean, torch.amax, Tensor.amax, torch.sum, Tensor.sum}


@contextmanager
def disconnected(model: nn.Module, side: int, cell: int) -> Iterator[None]:
    """Let a network see the cells of a grid apart, and decide by one of them, until the context ends.

    Only what runs inside the network's own forward pass is changed, not what a method computes around it.

    Args:
        side: n.
        cell: Which cell the network decides by, counted row by row.
    """
    own, original = vars(model).get("forward"), model.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        with _Apart(side, cell):
            return original(*args, **kwargs)

    model.forward = forward
    try:
        yield
    finally:
        if own is None:
            del model.forward
        else:
            model.forward = own


class _Apart(TorchFunctionMode):
    """Cuts the inputs of torch's functions into cells where they mix pixels."""

    def __init__(self, side: int, cell: int) -> None:
        super().__init__()
        self.side, self.cell = side, cell

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Called by torch in place of every function."""
        named = dict(kwargs or {})
        first = args[0] if args else named.get("input")
        if not isinstance(first, Tensor) or first.ndim != 4 or not self._is_grid(first):
            return func(*args, **named)
        if func in _LOCAL:
            return joined(func(apart(first, self.side), *args[1:], **_without(named, "input")), self.side)
        if func in _GLOBAL or (func in _MEANS and _over_pixels(args[1:], named)):
            return func(self._chosen(first), *args[1:], **_without(named, "input"))
        return func(*args, **named)

    def _is_grid(self, features: Tensor) -> bool:
        height, width = features.shape[2:]
        return height % self.side == 0 and width % self.side == 0

    def _chosen(self, features: Tensor) -> Tensor:
        height, width = features.shape[2] // self.side, features.shape[3] // self.side
        row, column = divmod(self.cell, self.side)
        return features[:, :, row * height : (row + 1) * height, column * width : (column + 1) * width]


def joined(cells: Tensor, side: int) -> Tensor:
    """[B · n · n, C, h, w] → [B, C, n · h, n · w]: cells row by row."""
    count, channels, height, width = cells.shape
    grid = cells.reshape(count // side**2, side, side, channels, height, width).permute(0, 3, 1, 4, 2, 5)
    return grid.reshape(count // side**2, channels, side * height, side * width)


def apart(grids: Tensor, side: int) -> Tensor:
    """[B, C, n · h, n · w] → [B · n · n, C, h, w], the inverse of ``joined``."""
    count, channels, height, width = grids.shape
    cells = grids.reshape(count, channels, side, height // side, side, width // side).permute(0, 2, 4, 1, 3, 5)
    return cells.reshape(count * side**2, channels, height // side, width // side)


def _over_pixels(positional: Sequence[Any], named: Mapping[str, Any]) -> bool:
    """True where a reduction is over the last two dimensions, and no others."""
    dims = named.get("dim", positional[0] if positional else None)
    return isinstance(dims, tuple | list) and sorted(int(dim) % 4 for dim in dims) == [2, 3]


def _without(named: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in named.items() if key != name}
