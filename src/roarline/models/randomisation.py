"""A network's layers in the order of their use, and random weights in place of learned ones.

Random weights are drawn on the CPU from a seed for each module, so that they are the same for every method, device and
order of layers.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from roarline.models.layers import evaluating

WHOLE = "(network)"
State = dict[str, Tensor]


@dataclass(frozen=True)
class Layer:
    """What is randomised at once: a name, and the modules whose own parameters belong to it."""

    name: str
    modules: tuple[str, ...]


def layers_by_use(model: nn.Module, image_shape: Sequence[int], depth: int | None = None) -> list[Layer]:
    """The layers that have parameters, from the input to the output.

    A module counts where it is first called in a forward pass; one that is never called by itself (a part of an
    attention module, say) at the nearest module around it that is. A module of scales and shifts alone, such as a
    batch norm, belongs to the layer before it.

    Args:
        image_shape: (C, H, W) of one network input.
        depth: Layers whose dotted names begin with the same so many words are one, e.g. 2: ``layer4.1``; None: each
            stands for itself.
    """
    position = _first_calls(model, image_shape)
    named = [(name, module) for name, module in model.named_modules() if _own_parameters(module)]
    order = {name: place for place, (name, _) in enumerate(model.named_modules())}
    named.sort(key=lambda item: (position[_called(item[0], position)], order[item[0]]))
    groups: dict[str, list[str]] = {}
    group = ""
    for name, module in named:
        only_scales = all(parameter.ndim <= 1 for parameter in _own_parameters(module))
        if not (only_scales and groups):
            group = ".".join(name.split(".")[:depth]) or WHOLE
        groups.setdefault(group, []).append(name)
    return [Layer(name, tuple(modules)) for name, modules in groups.items()]


class RandomWeights:
    """The learned weights of a network, and random ones to take their place layer by layer.

    Args:
        model: Is changed in place, only inside ``restoring``.
        layers: Of this model.
        seed_of: From a module's name to the seed of its draw.
    """

    def __init__(self, model: nn.Module, layers: Sequence[Layer], seed_of: Callable[[str], int]) -> None:
        self._modules = dict(model.named_modules())
        self._layers, self._seed_of = list(layers), seed_of
        names = [name for layer in layers for name in layer.modules]
        self._learned = {name: _state(self._modules[name], copied=True) for name in names}
        self._drawn: dict[str, State] = {}

    @contextmanager
    def restoring(self) -> Iterator[None]:
        """Layers may be randomised inside; afterwards, also after an exception, all weights are the learned ones."""
        try:
            yield
        finally:
            for layer in self._layers:
                self.restore(layer)

    def randomise(self, layer: Layer) -> None:
        """Put random weights in place of a layer's own."""
        for name in layer.modules:
            if name not in self._drawn:
                self._drawn[name] = random_state(self._modules[name], self._learned[name], self._seed_of(name))
            _load(self._modules[name], self._drawn[name])

    def restore(self, layer: Layer) -> None:
        """Put a layer's learned weights back."""
        for name in layer.modules:
            _load(self._modules[name], self._learned[name])


def random_state(module: nn.Module, learned: State, seed: int) -> State:
    """Random values for a module's own parameters, on their devices.

    A module with a ``reset_parameters`` that asks for nothing draws them as it does when it is built; its own buffers,
    such as a batch norm's statistics, are reset with them, since they were learned, too. Of any other module the
    learned values of each parameter are permuted: their distribution stays, what they encode is lost.

    Args:
        learned: The module's own parameters and buffers.
        seed: Of the draw, on the CPU.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(seed)
        reset = getattr(module, "reset_parameters", None)
        if callable(reset) and not _required(reset):
            fresh = copy.deepcopy(module).cpu()
            fresh.reset_parameters()  # type: ignore[operator]
            return {name: value.to(learned[name].device) for name, value in _state(fresh, copied=True).items()}
        drawn = dict(learned)
        for name, parameter in module._parameters.items():
            if parameter is not None:
                values = learned[name].flatten()
                shuffled = values[torch.randperm(len(values)).to(values.device)]
                drawn[name] = shuffled.reshape(learned[name].shape)
        return drawn


def _own_parameters(module: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in module._parameters.values() if parameter is not None]


def _state(module: nn.Module, *, copied: bool) -> State:
    own = {**module._parameters, **module._buffers}
    return {name: value.detach().clone() if copied else value for name, value in own.items() if value is not None}


def _load(module: nn.Module, state: State) -> None:
    with torch.no_grad():
        for name, value in _state(module, copied=False).items():
            value.copy_(state[name])


def _required(function: Callable[..., object]) -> bool:
    """True where it can't be called without arguments."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(function).parameters.values()
    return any(item.default is inspect.Parameter.empty and item.kind in kinds for item in parameters)


def _first_calls(model: nn.Module, image_shape: Sequence[int]) -> dict[str, int]:
    """Name of each module that is called in a forward pass to its place in the order in which calls begin."""
    position: dict[str, int] = {}

    def watch(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def note(called: nn.Module, inputs: object) -> None:
            position.setdefault(name, len(position))

        return module.register_forward_pre_hook(note)

    handles = [watch(name, module) for name, module in model.named_modules()]
    parameter = next(model.parameters(), torch.empty(0))
    noise = torch.randn((1, *image_shape), generator=torch.Generator().manual_seed(0))
    try:
        with evaluating(model), torch.no_grad():
            model(noise.to(parameter.device, parameter.dtype))
    finally:
        for handle in handles:
            handle.remove()
    return position


def _called(name: str, position: dict[str, int]) -> str:
    """The module itself, or the nearest one around it that is called."""
    while name and name not in position:
        name = name.rpartition(".")[0]
    return name
