"""Mixed precision for the network's passes alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn


@contextlib.contextmanager
def mixed_passes(model: nn.Module, device_type: str) -> Iterator[None]:
    """Where the caller has turned autocast on, leave it on for calls of the model, and off for all around them.

    A method's own arithmetic (blurs, integrals, regularisers, singular vectors, least squares) needs float32: its sums
    are longer and its differences smaller than a network's. Logits come as float32.

    Args:
        model: Its own ``forward`` is what counts as a pass.
        device_type: ``cpu``, ``cuda``, … whose autocast is meant.
    """
    if not torch.is_autocast_enabled(device_type):
        yield
        return
    dtype = torch.get_autocast_dtype(device_type)
    passes: list[contextlib.ExitStack] = []

    def begin(module: nn.Module, args: Any) -> None:
        passes.append(contextlib.ExitStack())
        passes[-1].enter_context(torch.autocast(device_type, dtype=dtype))

    def end(module: nn.Module, args: Any, output: Any) -> Any:
        if passes:  # empty where another hook failed before the pass began
            passes.pop().close()
        return output.float() if isinstance(output, torch.Tensor) else output

    # always_call: a pass that fails must not leave autocast on.
    handles = [
        model.register_forward_pre_hook(begin, prepend=True),
        model.register_forward_hook(end, prepend=True, always_call=True),
    ]
    try:
        with torch.autocast(device_type, enabled=False):
            yield
    finally:
        for handle in handles:
            handle.remove()
