"""A network run again from one layer on, with what comes before that layer remembered.

Shapes: B images, K classes, n altered outputs of one image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from roarline.errors import ModelError
from roarline.models.layers import find_layer


class Replay:
    """A first pass over all images, and passes from the layer on.

    What modules gave before the layer's last call is remembered, and given again instead of running them; only the
    code between them is run. Where that would not do, since that code writes into what they gave, or they give other
    things than tensors with a row for each image, all of the network is run again, and gives the same.

    Args:
        layer: Dotted name.
        images_BCHW: Network inputs.

    Attributes:
        logits_BK: Of the unchanged images.
        output: Of the layer at its last call, [B, ...].
        remembers: False where all of the network is run again.

    Raises:
        ModelError: There is no such layer, it is not called, or gives no tensor.
    """

    def __init__(self, model: nn.Module, layer: str, images_BCHW: Tensor) -> None:
        self._model, self._layer, self._images = model, find_layer(model, layer), images_BCHW
        first = _FirstPass(model, layer, self._layer)
        self.logits_BK: Tensor = first.run(images_BCHW)
        if not isinstance(first.output, Tensor):
            came = f"gives a {type(first.output).__name__}" if first.layer_calls else "is not called in a forward pass"
            raise ModelError(f"layer {layer!r} {came}; choose another layer, or layer: auto")
        self.output: Tensor = first.output
        self.remembers = first.can_be_remembered
        # Each call among the stand-ins before the layer's last one: which module, and what it gives (None: run it).
        self._calls: list[tuple[nn.Module, _Output | None]]
        if self.remembers:
            self._calls = [(call.module, call.output) for call in first.calls_before]
        else:
            self._calls = [(self._layer, None)] * (first.layer_calls - 1)

    @property
    def numbers_in_an_image(self) -> int:
        """C · H · W."""
        return self._images[0].numel()

    def logits(self, image: int, outputs: Tensor) -> Tensor:
        """Logits of one image where the layer gives something else at its last call.

        Args:
            image: Row of the images.
            outputs: [n, ...], each as a row of ``output``; the network may write to it.

        Returns:
            [n, K].

        Raises:
            ModelError: The network calls its modules in another order than in the first pass.
        """
        place = 0

        def stand_in(module: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
            def run(*args: Any, **kwargs: Any) -> Any:
                nonlocal place
                place += 1
                if place > len(self._calls) + 1:
                    return forward(*args, **kwargs)
                called, given = (self._layer, None) if place > len(self._calls) else self._calls[place - 1]
                if called is not module:
                    raise self._other_order()
                if place > len(self._calls):
                    return outputs
                return forward(*args, **kwargs) if given is None else given.expanded(image, len(outputs))

            return run

        with ExitStack() as stack, torch.no_grad():
            for module in {self._layer, *(module for module, _ in self._calls)}:
                stack.enter_context(_forward(module, stand_in(module, module.forward)))
            logits: Tensor = self._model(self._images[image : image + 1].expand(len(outputs), -1, -1, -1))
        if place <= len(self._calls):
            raise self._other_order()
        return logits

    def _other_order(self) -> ModelError:
        return ModelError(
            f"{type(self._model).__name__}: calls its modules in another order when it is run again, so that a layer's "
            "output can't be replaced; choose a method that runs the network as it is, e.g. gradcam"
        )


class _Output:
    """What a module gave, and who has written into it since."""

    def __init__(self, value: Any) -> None:
        self._value = value
        self._tensors = list(_leaves(value))
        self._version = self._versions()
        self.written_by_code = False
        self.written_after_layer = False

    def is_batch(self, images: int) -> bool:
        """A tensor with a row for each image, or a tuple or list of such."""
        return bool(self._tensors) and all(
            isinstance(leaf, Tensor) and leaf.ndim > 0 and len(leaf) == images for leaf in self._tensors
        )

    def see_writes(self) -> bool:
        """True where something was written since the last time this was asked."""
        before, self._version = self._version, self._versions()
        return before != self._version

    def expanded(self, image: int, count: int) -> Any:
        """One image's row, seen ``count`` times."""
        return _map_leaves(self._value, lambda leaf: leaf[image : image + 1].expand(count, *leaf.shape[1:]))

    def _versions(self) -> int:
        return sum(leaf._version for leaf in self._tensors if isinstance(leaf, Tensor))


class _Call:
    def __init__(self, module: nn.Module, value: Any) -> None:
        self.module, self.output = module, _Output(value)


class _FirstPass:
    """Listens to the modules on the way to the layer: the layer, and beside each module that holds it, its siblings.

    What lies within those and is called by other code directly is code like any other: it is run again.
    """

    def __init__(self, model: nn.Module, name: str, layer: nn.Module) -> None:
        self._model, self._layer = model, layer
        around = ["", *(name[:end] for end, character in enumerate(name) if character == ".")]
        holders = [model.get_submodule(one) for one in around]
        self._listened_to = {child for holder in holders for child in holder.children()} - set(holders)
        self._calls: list[_Call] = []
        self._depth, self._images = 0, 0
        self._nested = False
        self.layer_calls = 0
        self.output: Any = None

    def run(self, images_BCHW: Tensor) -> Tensor:
        self._images = len(images_BCHW)
        with ExitStack() as stack, torch.no_grad():
            for module in self._listened_to:
                stack.callback(module.register_forward_pre_hook(self._before).remove)
                stack.callback(module.register_forward_hook(self._after).remove)
            logits: Tensor = self._model(images_BCHW)
        self._blame_code()
        return logits

    @property
    def calls_before(self) -> list[_Call]:
        """The layer's last call."""
        last = max(place for place, call in enumerate(self._calls) if call.module is self._layer)
        return self._calls[:last]

    @property
    def can_be_remembered(self) -> bool:
        return not self._nested and all(
            call.output.is_batch(self._images)
            and not call.output.written_by_code
            and not call.output.written_after_layer
            for call in self.calls_before
        )

    def _before(self, module: nn.Module, args: Any) -> None:
        if self._depth == 0:
            self._blame_code()
        self._depth += 1

    def _after(self, module: nn.Module, args: Any, output: Any) -> None:
        self._depth -= 1
        if module is self._layer:
            self.layer_calls += 1
            self._nested = self._depth > 0
            self.output = output.clone() if isinstance(output, Tensor) else output  # what follows may write in place
        if self._depth > 0:
            return
        for call in self._calls:
            # A module before the layer is not run again, nor is the layer: what they write is written already.
            call.output.written_after_layer |= call.output.see_writes()
            if module is self._layer:
                call.output.written_after_layer = False
        self._calls.append(_Call(module, output))

    def _blame_code(self) -> None:
        for call in self._calls:
            call.output.written_by_code |= call.output.see_writes()


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, tuple | list):
        for part in value:
            yield from _leaves(part)
    elif value is not None:
        yield value


def _map_leaves(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, tuple | list):
        return type(value)(_map_leaves(part, function) for part in value)
    return None if value is None else function(value)


@contextmanager
def _forward(module: nn.Module, stand_in: Callable[..., Any]) -> Iterator[None]:
    """Let a module run something else; hooks on it are called as ever."""
    own = module.__dict__.get("forward")
    module.forward = stand_in
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own
