"""Calls of torch functions inside a network, seen one by one, so that a method may change how signals pass back.

A hook on a module misses functional calls and meets a module that is used twice twice over; here every call counts,
of a module, a function or a tensor's method. Nothing is left on the model.

Two things do all the work: ``Interception`` shows a method each call with a result of its own to return, and ``carry``
gives a value the backward pass of the method's choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from roarline.errors import MethodError

Back = Callable[..., tuple[Tensor | None, ...]]

_ARGUMENTS = {
    "conv2d": ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
    "linear": ("input", "weight", "bias"),
    "batch_norm": ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"),
    "max_pool2d": ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices"),
    "adaptive_max_pool2d": ("input", "output_size", "return_indices"),
    "hardtanh": ("input", "min_val", "max_val"),
}
RELUS = frozenset({"relu", "relu6"})
_BOUNDS = {"clamp": ("min", "max"), "clip": ("min", "max"), "clamp_min": ("min",), "threshold": ("threshold", "value")}
"""Arguments behind the first, of functions that are ReLUs where these are 0, and ``max`` is None."""
QUERIES = frozenset({
    "dim", "element_size", "get_device", "is_complex", "is_contiguous", "is_floating_point", "len", "ndimension",
    "nelement", "numel", "size", "stride",
})  # fmt: skip
"""What a network may ask of a tensor without using its values."""
RESHAPES = frozenset({
    "alpha_dropout", "channel_shuffle", "chunk", "clone", "contiguous", "cpu", "double", "dropout", "dropout1d",
    "dropout2d", "dropout3d", "expand", "feature_alpha_dropout", "flatten", "flip", "float", "getitem", "identity",
    "index_select", "movedim", "narrow", "pad", "permute", "pixel_shuffle", "pixel_unshuffle", "repeat",
    "requires_grad", "reshape", "roll", "select", "setitem", "split", "squeeze", "stack", "swapaxes", "to", "transpose",
    "type_as", "unbind", "unflatten", "unsqueeze", "view", "view_as", "cat",
})  # fmt: skip
"""Functions that give back the values that they got, elsewhere."""
LINEAR = RESHAPES | frozenset({
    "adaptive_avg_pool2d", "add", "avg_pool2d", "div", "interpolate", "mean", "mul", "neg", "rsub", "sub", "sum",
    "true_divide",
})  # fmt: skip
"""Functions that are linear in what depends on the image, products and quotients with constants included."""


@dataclass(frozen=True)
class Call:
    """One call of a torch function.

    Attributes:
        name: Of the function, the same for all ways to call it: ``relu``, ``add``, ``conv2d``.
        args: Positional arguments; a tensor that is written to comes as it was before.
        in_place: The caller wants the first argument overwritten.
    """

    name: str
    function: Callable[..., Any]
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    in_place: bool = False

    def __call__(self) -> Any:
        """The function's result in a tensor of its own, also where the caller wants to overwrite."""
        return self.function(*self.args, **self.kwargs)

    @property
    def input(self) -> Any:
        """The first argument."""
        return self.args[0] if self.args else self.kwargs.get("input")

    def named(self) -> dict[str, Any]:
        """All arguments by name, of the functions that methods have rules for."""
        return dict(zip(_ARGUMENTS[self.name], self.args, strict=False)) | dict(self.kwargs)

    def tensors(self) -> list[Tensor]:
        """Arguments that are tensors, also those in a list."""
        return tensors_in((*self.args, *self.kwargs.values()))

    def depends_on_image(self) -> bool:
        """An argument is part of the recorded graph; parameters are frozen and are not."""
        return any(tensor.requires_grad for tensor in self.tensors())

    def is_linear(self) -> bool:
        """Of ``LINEAR``, and not the product or quotient of two activations."""
        if self.name in ("mul", "div", "true_divide"):
            return sum(tensor.requires_grad for tensor in self.tensors()) == 1
        return self.name in LINEAR

    def without_rule(self, method: str, hint: str = "") -> Any:
        """The result, where no signal passes back through it.

        Raises:
            MethodError: One would.
        """
        result = self()
        if any(tensor.requires_grad for tensor in tensors_in([result])):
            raise MethodError(
                f"{method}: the network calls {self.name}, for which the method has no rule {hint}".rstrip()
            )
        return result

    def is_relu(self) -> bool:
        """ReLU or ReLU6; ``nn.ReLU6`` calls hardtanh, whose lower bound then is 0."""
        return self.name in RELUS or (self.name == "hardtanh" and float(self.named().get("min_val", -1.0)) == 0.0)


def tensors_in(values: Sequence[Any]) -> list[Tensor]:
    """The tensors among some arguments and in the lists and tuples among them."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found.extend(tensors_in(value))
    return found


class Interception(TorchFunctionMode):
    """While active, each call of a torch function is given to ``handle``, whose return value the network goes on with.

    Writing in place is undone: the result is a new tensor that stands for the old one in all later calls, so that
    neither the network's own backward pass nor the method loses what was there before; so is ``z[...] = value``. Only
    where the network writes into a view of another tensor it does so, with what a copy of the view gave.
    """

    def __init__(self) -> None:
        super().__init__()
        self._overwritten = WeakTensorKeyDictionary()

    def run(self, model: nn.Module, inputs_BCHW: Tensor) -> Tensor:
        """The network's logits, its calls seen; the backward pass belongs outside."""
        with self:
            logits = model(inputs_BCHW)
            return self._current(logits)  # type: ignore[no-any-return]

    def handle(self, call: Call) -> Any:
        """The result of a call; overridden by each method."""
        raise NotImplementedError

    def __exit__(self, *exception: Any) -> None:
        self._overwritten.clear()
        super().__exit__(*exception)  # type: ignore[no-untyped-call]

    def _replace(self, tensor: Tensor, result: Tensor) -> None:
        """From now on the network means the result where it names the tensor."""
        if result is not tensor:  # by itself it would be looked up for ever
            self._overwritten[tensor] = result

    def _current(self, value: Any) -> Any:
        """What the network means by a tensor, or by those in a list: the result of its last writing in place."""
        if isinstance(value, Tensor):
            while value in self._overwritten:
                value = self._overwritten[value]
        elif type(value) in (list, tuple):
            return type(value)(self._current(part) for part in value)
        return value

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "__get__":  # an attribute, e.g. its shape
            return func(*args, **kwargs)
        if len(self._overwritten):
            args = [self._current(value) for value in args]
            kwargs = {key: self._current(value) for key, value in kwargs.items()}
        call = as_call(func, name, args, kwargs)
        if call.in_place and call.args and call.input._base is not None:
            view, *others = call.args
            return view.copy_(self.handle(replace(call, args=[view.clone(), *others], in_place=False)))
        result = self.handle(call)
        if call.in_place and isinstance(result, Tensor):
            self._replace(call.input, result)
        return result


def as_call(func: Callable[..., Any], name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Call:
    """A call under its canonical name; one that writes in place becomes its counterpart that does not.

    Clamping at 0 from below, ``x.clamp(min=0)`` for example, is a ReLU by another name.

    Args:
        func: What was called.
        name: Its own name.
    """
    call = _out_of_place(func, name, args, kwargs)
    return replace(call, name="relu") if _clamps_at_0(call) else call


def _out_of_place(func: Callable[..., Any], name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Call:
    written = args[0] if args else kwargs.get("input")
    if isinstance(written, Tensor) and any(part.requires_grad for part in tensors_in(args)):
        if kwargs.get("inplace"):
            return Call(name.strip("_"), func, args, {**kwargs, "inplace": False}, in_place=True)
        if name == "__setitem__":
            return Call("setitem", _with_item, args, kwargs, in_place=True)
        if name.endswith("_") and not name.endswith("__"):
            plain = _counterpart(name.rstrip("_"))
            if plain is not None:
                return Call(name.rstrip("_"), plain, args, kwargs, in_place=True)
    names = {"max_pool2d_with_indices": "max_pool2d", "adaptive_max_pool2d_with_indices": "adaptive_max_pool2d"}
    return Call(names.get(name, name.strip("_")), func, args, kwargs)


def _clamps_at_0(call: Call) -> bool:
    """Of x and 0 it gives the larger one."""
    if call.name not in _BOUNDS:
        return False
    bounds = dict(zip(_BOUNDS[call.name], call.args[1:], strict=False)) | dict(call.kwargs)
    low = [bounds.get(name) for name in _BOUNDS[call.name] if name != "max"]
    return bounds.get("max") is None and all(type(bound) in (int, float) and bound == 0 for bound in low)


def _with_item(tensor: Tensor, index: Any, value: Any) -> Tensor:
    """``tensor[index] = value``, in a copy."""
    copy = tensor.clone()
    copy[index] = value
    return copy


def _counterpart(name: str) -> Callable[..., Any] | None:
    if name in _FILLS:
        return None
    for home in (Tensor, functional, torch):
        found: Callable[..., Any] | None = getattr(home, name, None)
        if found is not None:
            return found
    return None


_FILLS = frozenset({"requires_grad", "retain_grad", "set", "detach", "copy", "fill", "zero", "normal", "bernoulli"})


class _Carry(torch.autograd.Function):
    """Forward: a value that is already known. Backward: what ``back`` says, to each of the carriers."""

    @staticmethod
    def forward(ctx: Any, value: list[Tensor], back: Back, saved: tuple[Tensor, ...], *carriers: Tensor) -> Tensor:
        ctx.back = back
        ctx.save_for_backward(*saved)
        return value[0]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return (None, None, None, *ctx.back(gradients[0], *ctx.saved_tensors))


def carry(value: Tensor, carriers: Sequence[Tensor], saved: Sequence[Tensor], back: Back) -> Tensor:
    """A value whose backward pass is the method's own.

    Args:
        value: What the network goes on with.
        carriers: Tensors of the graph that signals pass back to.
        saved: What ``back`` needs, kept until then.
        back: From the signal at ``value`` and the saved tensors to one signal a carrier; it changes neither.
    """
    result: Tensor = _Carry.apply(  # type: ignore[no-untyped-call]
        [value.detach()], back, tuple(tensor.detach() for tensor in saved), *carriers
    )
    return result


@contextmanager
def refusing_lost_values(method: str) -> Iterator[None]:
    """Around a backward pass: values that a network overwrote through a view are lost to the method.

    Raises:
        MethodError: One was needed.
    """
    try:
        yield
    except RuntimeError as error:
        if "modified by an inplace operation" not in str(error):
            raise
        raise MethodError(
            f"{method}: the network writes into a part of a tensor, z[:, 0].relu_() or z[:, 0] *= 2 for example, and "
            "the method needs what was there before; use a network that builds a new tensor there"
        ) from error


def refuse_closed_networks(model: nn.Module, method: str) -> None:
    """Refuse scripted and compiled networks, whose calls can't be seen.

    Raises:
        MethodError: The network, or a part of it, is one.
    """
    for name, module in model.named_modules():
        scripted = isinstance(module, torch.jit.ScriptModule)
        if scripted or hasattr(module, "_orig_mod"):
            kind = "scripted" if scripted else "compiled"
            raise MethodError(
                f"{method}: {name or type(model).__name__!r} is {kind}, and the calls inside can't be seen; use the "
                f"network before it was {kind}"
            )
