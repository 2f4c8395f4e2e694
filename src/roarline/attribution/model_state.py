"""A model that a method may use, and that is afterwards as it was: modes, hooks, requires_grad; weights are checked."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from roarline.errors import MethodError

_HOOKS = (
    "_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called",
    "_forward_pre_hooks_with_kwargs", "_backward_hooks", "_backward_pre_hooks", "_non_full_backward_hooks",
)  # fmt: skip


@contextlib.contextmanager
def borrowed(model: nn.Module, method: str) -> Iterator[None]:
    """Freeze a model in evaluation mode; on leaving, also after an exception, put back modes, hooks and requires_grad.

    Args:
        method: Named in the message.

    Raises:
        MethodError: The method changed a weight or a buffer, so that every later map would be of another model.
    """
    modules = list(model.modules())
    modes = [module.training for module in modules]
    hooks = [_copy_hooks(module) for module in modules]
    parameters = list(model.parameters())
    required = [parameter.requires_grad for parameter in parameters]
    contents = {name: _stamp(tensor) for name, tensor in _tensors(model)}
    model.eval()
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for module, mode, kept in zip(modules, modes, hooks, strict=True):
            module.training = mode
            _restore_hooks(module, kept)
        for parameter, flag in zip(parameters, required, strict=True):
            parameter.requires_grad_(flag)
            parameter.grad = None
    changed = sorted(name for name, tensor in _tensors(model) if contents.get(name) != _stamp(tensor))
    if changed:
        others = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise MethodError(
            f"{method}: changed the model itself ({changed[0]}{others}), expected it as it was; let the "
            "method work on copy.deepcopy(model), and keep it in evaluation mode"
        )


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _stamp(tensor: Tensor) -> tuple[int, int]:
    """Where the values lie, and how often they were written."""
    return tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version


def _copy_hooks(module: nn.Module) -> dict[str, Any]:
    return {name: getattr(module, name).copy() for name in _HOOKS if getattr(module, name, None) is not None}


def _restore_hooks(module: nn.Module, kept: dict[str, Any]) -> None:
    for name, hooks in kept.items():
        current = getattr(module, name)
        if current != hooks:
            current.clear()
            current.update(hooks)
