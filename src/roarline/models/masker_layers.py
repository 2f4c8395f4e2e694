"""Which hidden layers a masker reads, and what shape they have in a given network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from roarline.errors import ModelError
from roarline.models.grids import as_grid
from roarline.models.layers import (
    AUTO,
    auto_layer,
    device_and_dtype,
    evaluating,
    layer_names,
    probe_output,
    watching,
)
from roarline.models.recording import recording


@dataclass(frozen=True)
class LayerShape:
    """A layer as the masker sees it.

    Attributes:
        name: Dotted, in the classifier.
        channels: Of its output.
        size: (h, w), its cells.
    """

    name: str
    channels: int
    size: tuple[int, int]

    def stride_px(self, image_size: tuple[int, int]) -> int:
        """Pixels of the image a cell stands for, at least 1, along the side where they are fewer."""
        return max(1, min(round(image_size[axis] / self.size[axis]) for axis in range(2)))


def masker_layers(model: nn.Module, layers: Sequence[str] | str, image_size: tuple[int, int]) -> list[LayerShape]:
    """The layers that a masker's parameter ``layers`` stands for, with their shapes.

    Args:
        model: The classifier; left as it was.
        layers: Dotted names; or ``auto``: the layer that ``auto`` stands for in CAM methods, and the last one before it
            with a finer map. In ResNets these are layer3 and layer4, which the published final models read.
        image_size: (H, W) of the classifier's inputs in px.

    Raises:
        ModelError: There is no such layer, one is named twice, or one has no spatial map.
    """
    image_shape = (3, *image_size)
    if layers == AUTO:
        last = auto_layer(model, image_shape)
        finer = _last_finer(model, last, image_size)
        names = [last] if finer is None else [finer, last]
    else:
        names = layer_names(model, layers, image_shape)
    device, dtype = device_and_dtype(model)
    images = torch.zeros((1, *image_shape), device=device, dtype=dtype)
    with evaluating(model), torch.no_grad(), recording(model, names, images, gradients=False) as recorded:
        model(images)
        shapes = [tuple(activation.shape[1:]) for activation in recorded.activations]
    return [LayerShape(name, shape[0], (shape[1], shape[2])) for name, shape in zip(names, shapes, strict=True)]


def _last_finer(model: nn.Module, last: str, image_size: tuple[int, int]) -> str | None:
    """The last layer beside ``last`` with a finer map, or where there is none, the last one inside it."""
    cells: dict[str, int] = {}

    def see(name: str, module: nn.Module, output: object) -> None:
        cells.pop(name, None)  # the last call counts, in the order of last calls
        grid = as_grid(output, image_size) if isinstance(output, Tensor) else None
        if grid is not None:
            cells[name] = grid.shape[2] * grid.shape[3]

    with watching(model, see):
        probe_output(model, image_size)
    if last not in cells:
        raise ModelError(f"layer {last!r} gives no spatial map; name the masker's layers")
    before = list(cells)[: list(cells).index(last)]
    parent = last.rpartition(".")[0]
    beside = [name for name in before if name.rpartition(".")[0] == parent]
    inside = [name for name in before if name.rpartition(".")[0] == last]
    for candidates in (beside, inside):
        finer = [name for name in candidates if cells[name] > cells[last]]
        if finer:
            return finer[-1]
    return None
