"""Layers of a network by dotted name, and which of them a CAM method may use."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from roarline.errors import ModelError


def find_layer(model: nn.Module, name: str, input_size: tuple[int, int] | None = None) -> nn.Module:
    """A layer by its dotted name, e.g. ``layer3.0.relu``.

    Args:
        input_size: (H, W) of the network's inputs in px; where given, the error lists the layers with spatial maps.

    Raises:
        ModelError: There is no such layer; the message lists near names and the layers that may be used.
    """
    layers = dict(model.named_modules())
    layers.pop("", None)
    layer: nn.Module | None = layers.get(name)
    if layer is not None:
        return layer
    near = difflib.get_close_matches(name, layers, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    if input_size is None:
        known = f"its layers: {', '.join(layers)}"
    else:
        known = f"layers that give spatial maps: {', '.join(spatial_layers(model, input_size))}"
    raise ModelError(f"{type(model).__name__} has no layer {name!r}{hint}; {known}")


def spatial_layers(model: nn.Module, input_size: tuple[int, int], channels: int = 3) -> list[str]:
    """Names of the layers whose output is a map [B, C, h, w] with more than one place, in order of first use.

    Args:
        input_size: (H, W) of the network's inputs in px.
        channels: Input channels.
    """
    names: dict[str, None] = {}

    def watch(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def see(_module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] * output.shape[3] > 1:
                names.setdefault(name)

        return module.register_forward_hook(see)

    handles = [watch(name, module) for name, module in model.named_modules() if name]
    try:
        probe_output(model, input_size, channels)
    finally:
        for handle in handles:
            handle.remove()
    return list(names)


def probe_output(model: nn.Module, input_size: tuple[int, int], channels: int = 3) -> object:
    """What the network gives for one black image, in eval mode; the model is left as it was."""
    parameter = next(model.parameters(), None)
    device, dtype = (parameter.device, parameter.dtype) if parameter is not None else (None, None)
    with evaluating(model), torch.no_grad():
        return model(torch.zeros((1, channels, *input_size), device=device, dtype=dtype))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Eval mode inside, each module's own mode afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield model
    finally:
        for module, training in modes:
            module.training = training
