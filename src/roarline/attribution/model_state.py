"""A model that a method may use, and that is afterwards as it was: modes, requires_grad, hooks; weights are checked."""

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
def frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradient of parameters inside; each module's and parameter's own flags afterwards."""
    modules = list(model.modules())  # walked once: for a deep network a walk takes as long as a layer
    parameters = [p for module in modules for p in module._parameters.values() if p is not None]
    training = [module for module in modules if module.training]
    wanting = [parameter for parameter in parameters if parameter.requires_grad]
    for module in training:
        module.training = False
    for parameter in wanting:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in wanting:
            parameter.requires_grad_(True)
        for module in training:
            module.training = True


@contextlib.contextmanager
def guarded(model: nn.Module, method: str) -> Iterator[None]:
    """Let code of the user's own work on a frozen model, and put everything back, also after an exception.

    Args:
        method: Named in the message.

    Raises:
        MethodError: The method changed a weight or a buffer, so that every later map would be of another model.
    """
    modules = list(model.modules())
    hooks = [{name: dict(registered) for name, registered in _hooks(module)} for module in modules]
    modes = [module.training for module in modules]
    parameters = [p for module in modules for p in module._parameters.values() if p is not None]
    flags = [(parameter, parameter.requires_grad) for parameter in parameters]
    contents = _contents(model)
    try:
        yield
    finally:
        for module, mode, kept in zip(modules, modes, hooks, strict=True):
            module.training = mode
            for name, registered in _hooks(module):
                if registered != kept[name]:
                    registered.clear()
                    registered.update(kept[name])
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
            parameter.grad = None
    after = _contents(model)
    changed = sorted(name for name in {*contents, *after} if contents.get(name) != after.get(name))
    if changed:
        others = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise MethodError(
            f"{method}: changed the model itself ({changed[0]}{others}), expected it as it was; let the method work on "
            "copy.deepcopy(model), and keep it in evaluation mode"
        )


def _hooks(module: nn.Module) -> Iterator[tuple[str, Any]]:
    for name in _HOOKS:
        registered = getattr(module, name, None)
        if registered is not None:
            yield name, registered


def _contents(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Of every parameter and buffer where its values lie, and how often they were written."""
    tensors: list[tuple[str, Tensor]] = [*model.named_parameters(), *model.named_buffers()]
    return {name: (t.data_ptr(), 0 if t.is_inference() else t._version) for name, t in tensors}
