"""What layers give in a forward pass, and the gradient of a score with respect to it.

captum's layer methods let the input require a gradient, so that the whole forward pass is recorded; here recording
starts at the first of the layers.

Shapes: B images, C channels, h × w cells of a layer, H × W px of the image.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from roarline.errors import ModelError
from roarline.models.grids import grid_of_layer
from roarline.models.layers import find_layer, layer_names
from roarline.models.layouts import channel_dimensions


class Recording:
    """Outputs of some layers in the last forward pass.

    Attributes:
        names: Dotted names of the layers, as asked for, ``auto`` resolved.
    """

    def __init__(
        self, names: Sequence[str], input_size: tuple[int, int], spatial: bool, channels: Mapping[str, int]
    ) -> None:
        self.names = list(names)
        self._input_size, self._spatial, self._channels = input_size, spatial, channels
        self._outputs: dict[str, Tensor] = {}

    @property
    def outputs(self) -> list[Tensor]:
        """Of each layer, as the network has it, in the graph where one is recorded.

        Raises:
            ModelError: A layer was not called.
        """
        for name in self.names:
            if name not in self._outputs:
                raise ModelError(f"layer {name!r} is not called in a forward pass; choose another layer")
        return [self._outputs[name] for name in self.names]

    @property
    def activations(self) -> list[Tensor]:
        """Of each layer, detached: maps [B, C, h, w]; with ``spatial=False`` of any shape."""
        return [self._grid(name, output.detach()) for name, output in zip(self.names, self.outputs, strict=True)]

    def gradients(self, score: Tensor, *, retain_graph: bool = False) -> list[Tensor]:
        """Gradient of a scalar score with respect to each layer's output, in the shape of ``activations``.

        Args:
            retain_graph: The score's graph is needed once more.

        Raises:
            ModelError: The score does not depend on a layer, or of its tokens on the class token alone.
        """
        outputs = self.outputs
        found = torch.autograd.grad(score, outputs, allow_unused=True, retain_graph=retain_graph)
        gradients = []
        for name, output, gradient in zip(self.names, outputs, found, strict=True):
            cells = None if gradient is None else self._grid(name, gradient)
            if cells is None or (self._spatial and output.ndim == 3 and not bool(cells.any())):
                raise ModelError(
                    f"layer {name!r}: the logits do not depend on what it gives, or on its class token alone; choose "
                    "an earlier layer, or layer: auto"
                )
            gradients.append(cells)
        return gradients

    def grid(self, name: str, values: object) -> Tensor:
        """A layer's output, or what has its shape, as a map [B, C, h, w] (``grids.grid_of_layer``).

        Raises:
            ModelError: It is none.
        """
        return grid_of_layer(name, values, self._input_size, self._channels.get(name))

    def _grid(self, name: str, output: Tensor) -> Tensor:
        return self.grid(name, output) if self._spatial else output

    def _check(self, name: str, output: Any) -> None:
        if self._spatial:
            self.grid(name, output)
        elif not isinstance(output, Tensor):
            raise ModelError(f"layer {name!r} gives a {type(output).__name__}, expected a tensor; choose another layer")


@contextmanager
def recording(
    model: nn.Module,
    layer: str | Sequence[str],
    images_BCHW: Tensor,
    *,
    gradients: bool = True,
    spatial: bool = True,
    keep_graph: bool = False,
) -> Iterator[Recording]:
    """Keep what layers give in forward passes inside the context, each layer at its last call.

    Pass on ``images.detach()``, so that nothing before the first layer is recorded. What follows a layer may write in
    place: it gets a copy.

        with recording(model, "auto", images) as recorded, torch.enable_grad():
            logits = model(images.detach())
            gradients = recorded.gradients(logits[:, 0].sum())
        maps = (recorded.activations[0] * gradients[0]).sum(dim=1)

    Args:
        layer: A dotted name, ``auto``, or a list of them.
        images_BCHW: Network inputs; only their shape counts here.
        gradients: False: nothing is recorded for a backward pass; outputs are detached.
        spatial: True: outputs are maps, tokens and channels-last ones turned into [B, C, h, w] (``grids.as_grid``).
        keep_graph: True: the graph goes on to the images where they require a gradient, instead of starting anew at a
            single layer.

    Raises:
        ModelError: There is no such layer, or its output is of another kind (while the network runs).
    """
    _, channels, height, width = images_BCHW.shape
    names = layer_names(model, layer, (channels, height, width))
    dimensions = channel_dimensions(model, (channels, height, width))
    recorded = Recording(names, (height, width), spatial, dimensions)

    def hook(name: str) -> Any:
        def keep(module: nn.Module, args: Any, output: Any) -> Any:
            recorded._check(name, output)
            # A single layer cuts the graph anew at each call; several must stay linked to each other.
            cuts = len(names) == 1 and not keep_graph
            if not gradients or cuts or not output.requires_grad:
                output = output.detach().requires_grad_(gradients)
            recorded._outputs[name] = output
            return output.clone()

        return keep

    handles = [find_layer(model, name).register_forward_hook(hook(name)) for name in names]
    try:
        yield recorded
    finally:
        for handle in handles:
            handle.remove()
