"""Layers of a network by dotted name, and which of them a CAM method may use."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from roarline.errors import ModelError
from roarline.models.grids import as_grid

AUTO = "auto"
_NO_FEATURES = (
    nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Dropout, nn.Dropout2d, nn.Identity,
)  # fmt: skip
_CHOSEN: WeakKeyDictionary[nn.Module, dict[tuple[int, ...], str]] = WeakKeyDictionary()


def find_layer(model: nn.Module, name: str, input_size: tuple[int, int] | None = None, channels: int = 3) -> nn.Module:
    """A layer by its dotted name, e.g. ``layer3.0.relu``.

    Args:
        input_size: (H, W) of the network's inputs in px; where given, the error lists the layers with spatial maps.
        channels: Of the network's inputs.

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
        known = f"layers that give spatial maps: {', '.join(spatial_layers(model, input_size, channels))}"
    raise ModelError(f"{type(model).__name__} has no layer {name!r}{hint}; {known}")


def layer_names(model: nn.Module, layer: str | Sequence[str], image_shape: Sequence[int]) -> list[str]:
    """The names that a method's ``layer`` parameter stands for, each of them checked.

    Args:
        layer: A dotted name, ``auto``, or a list of them.
        image_shape: (C, H, W) of one network input.

    Raises:
        ModelError: There is no such layer, none is given, or one twice.
    """
    asked = [layer] if isinstance(layer, str) else list(layer)
    names = [auto_layer(model, image_shape) if name == AUTO else name for name in asked]
    for name in names:
        find_layer(model, name, (image_shape[1], image_shape[2]), image_shape[0])
    if not names or len(set(names)) < len(names):
        raise ModelError(f"layer: came {names}, expected one name or a list of different names")
    return names


def auto_layer(model: nn.Module, image_shape: Sequence[int]) -> str:
    """The layer that ``auto`` stands for: the last one that still knows places and features.

    Among all modules, in the order in which they end in a forward pass of one image of noise, it is the last whose
    output is a map of more than one cell (``grids.as_grid``) and on whose cells the logits depend; but for adaptive
    pooling, dropout and identities, what lies inside an attention module, and maps of class scores (as many channels
    as classes, each for one class alone). Of modules with the same output the outermost is named. So torchvision's
    VGG, DenseNet, MobileNet, EfficientNet, SqueezeNet and ConvNeXt give ``features``, ResNets ``layer4``, ViTs the
    first norm of the last block (behind it the logits depend on the class token alone), Swins the norm behind the last
    block, its channels put first.

    Args:
        image_shape: (C, H, W) of one network input.

    Returns:
        A dotted name; remembered for this model and shape.

    Raises:
        ModelError: There is no such layer.
    """
    remembered = _CHOSEN.setdefault(model, {})
    shape = tuple(image_shape)
    if shape not in remembered:
        remembered[shape] = _choose(model, shape)
    return remembered[shape]


def spatial_layers(model: nn.Module, input_size: tuple[int, int], channels: int = 3) -> list[str]:
    """Names of the layers whose output is a map [B, C, h, w] with more than one cell, in order of first use.

    Args:
        input_size: (H, W) of the network's inputs in px.
        channels: Input channels.
    """
    names: dict[str, None] = {}

    def see(name: str, module: nn.Module, output: object) -> None:
        if as_grid(output, input_size) is not None:
            names.setdefault(name)

    with watching(model, see):
        probe_output(model, input_size, channels)
    return list(names)


def probe_output(model: nn.Module, input_size: tuple[int, int], channels: int = 3) -> object:
    """What the network gives for one black image, in eval mode; the model is left as it was."""
    device, dtype = device_and_dtype(model)
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


def _choose(model: nn.Module, shape: tuple[int, ...]) -> str:
    channels, *size = shape
    input_size = (size[0], size[1])
    inside_attention = {
        inner for outer in model.modules() if "attention" in type(outer).__name__.lower()
        for inner in outer.modules() if inner is not outer
    }  # fmt: skip
    outputs: dict[str, Tensor] = {}

    def see(name: str, module: nn.Module, output: object) -> None:
        outputs.pop(name, None)  # the last call counts, in the order of last calls
        if isinstance(module, _NO_FEATURES) or module in inside_attention:
            return
        if isinstance(output, Tensor) and output.requires_grad and as_grid(output, input_size) is not None:
            outputs[name] = output

    device, dtype = device_and_dtype(model)
    noise = torch.randn((1, channels, *size), generator=torch.Generator().manual_seed(0)).to(device, dtype)
    with evaluating(model), torch.enable_grad(), watching(model, see):
        # Not the model itself: hooks on it belong to whoever waits for the logits of the real images.
        logits = model.forward(noise.requires_grad_())
        weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1)).to(logits)
        names, tensors = list(outputs), list(outputs.values())
        of_all = _gradients((weights * logits).sum(), tensors) if tensors else []
        of_first = _gradients(logits[0, 0], tensors) if tensors else []
    for name, tensor, gradient, first in reversed(list(zip(names, tensors, of_all, of_first, strict=True))):
        cells, first_cells = as_grid(gradient, input_size), as_grid(first, input_size)
        if cells is None or first_cells is None or not bool(cells.any()):
            continue
        a_class_each = cells.shape[1] == logits.shape[1] > 1 and int(first_cells.any(dim=(2, 3)).sum()) <= 1
        if not a_class_each or tensor.ndim != 4:
            return name
    raise ModelError(
        f"layer: auto finds no layer of {type(model).__name__} with a map of several cells on which the logits depend; "
        f"name one, with images larger than {size[0]} × {size[1]} px if need be"
    )


def _gradients(score: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    found = torch.autograd.grad(score, tensors, retain_graph=True, allow_unused=True)
    return [
        torch.zeros_like(tensor) if gradient is None else gradient
        for tensor, gradient in zip(tensors, found, strict=True)
    ]


def device_and_dtype(model: nn.Module) -> tuple[torch.device | None, torch.dtype | None]:
    """Those of the first parameter; None where there is none."""
    parameter = next(model.parameters(), None)
    return (None, None) if parameter is None else (parameter.device, parameter.dtype)


@contextmanager
def watching(model: nn.Module, see: Callable[[str, nn.Module, object], None]) -> Iterator[None]:
    """Call ``see`` with name, module and output whenever a module ends, but for the model itself."""

    def watch(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        return module.register_forward_hook(lambda called, inputs, output: see(name, called, output))

    handles = [watch(name, module) for name, module in model.named_modules() if name]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
