"""Calling a method, built in or the user's own, and refusing what it must not return.

A built-in is called with a whole batch. The user's callable is called in one of the two styles of the configuration:
``batched: true``, (model, images [B, C, H, W], targets [B], **params); or ``batched: false``, once an image, as the
original ROAR code does: (model, preprocessed image [1, C, H, W], label, **params) → a map of the image's size.

Shapes: B rows, C channels, H × W px, K classes.
"""

from __future__ import annotations

import contextlib
import inspect
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from roarline.attribution.model_state import frozen, guarded
from roarline.attribution.passes import choose_targets
from roarline.config.component import load_object
from roarline.config.methods import METHODS
from roarline.errors import MethodError, RoarlineError

PREDICTED = -1
SeedOf = Callable[[int, int], int]


@dataclass(frozen=True)
class MethodCall:
    """A method with its parameters, ready to be called.

    Attributes:
        name: Named in every message.
        builtin: True for a line of the table: it may take ``seeds``.
        one_pass: Its one forward pass is of the unchanged images: it takes -1 as a target, and logits come with it.
        keeps_activations: Its passes are recorded for a backward pass to the input.
    """

    name: str
    function: Callable[..., Any]
    params: Mapping[str, Any] = field(default_factory=dict)
    batched: bool = True
    builtin: bool = False
    one_pass: bool = False
    keeps_activations: bool = True

    @cached_property
    def seeded(self) -> bool:
        """True for a built-in that draws random numbers, from ``seeds``, one a row."""
        return self.builtin and "seeds" in inspect.signature(self.function).parameters


@dataclass(frozen=True)
class Attribution:
    """Maps of one batch: maps [B, H, W] or [B, C, H, W] floating, targets [B] int64, logits [B, K]."""

    maps: Tensor
    targets: Tensor
    logits: Tensor


def find_method(method: str, params: Mapping[str, Any], *, batched: bool = True) -> MethodCall:
    """Look up a method by table name or dotted path.

    Raises:
        UserInputError: There is no such method.
    """
    if method in METHODS:
        component = METHODS[method]
        return MethodCall(
            method, component.load(), params, builtin=True, one_pass=component.one_pass,
            keeps_activations=component.keeps_activations,
        )  # fmt: skip
    return MethodCall(method, load_object(method), params, batched=batched)


def attribute(
    model: nn.Module,
    images_BCHW: Tensor,
    targets_B: Tensor,
    method: MethodCall,
    *,
    seed_of: SeedOf,
    sample_ids: Sequence[str],
) -> Attribution:
    """Compute the maps of one batch and leave the model as it was, also after an exception.

    Args:
        model: Classifier, [B, C, H, W] → [B, K].
        images_BCHW: Normalised network inputs.
        targets_B: int64 on the images' device; -1 means the predicted class, the one of the largest logit.
        seed_of: From (row of the batch, target class) to the seed of its random draws.
        sample_ids: One a row, for messages.

    Returns:
        Maps, the chosen targets and the logits, on the images' device.

    Raises:
        MethodError: The method fails, or returns something of the wrong type or shape. Values are not looked at: see
            ``artifacts.maps.check_rows``.
    """
    with frozen(model), contextlib.nullcontext() if method.builtin else guarded(model, method.name):
        if method.one_pass:
            with _first_output(model) as outputs:
                returned = method.function(model, images_BCHW, targets_B, **method.params)
            logits = outputs[0]
            targets = choose_targets(logits, targets_B)
        else:
            with torch.no_grad():
                logits = model(images_BCHW)
            targets = choose_targets(logits, targets_B)
            returned = _call(method, model, images_BCHW, targets, seed_of, sample_ids)
        maps = _check_maps(method, returned, images_BCHW, sample_ids)
    return Attribution(maps, targets, logits)


def _call(
    method: MethodCall,
    model: nn.Module,
    images_BCHW: Tensor,
    targets_B: Tensor,
    seed_of: SeedOf,
    sample_ids: Sequence[str],
) -> Any:
    if method.builtin and not method.seeded:
        return method.function(model, images_BCHW, targets_B, **method.params)
    seeds = [seed_of(row, target) for row, target in enumerate(targets_B.tolist())]
    if method.builtin:
        return method.function(model, images_BCHW, targets_B, **method.params, seeds=seeds)
    if method.batched:
        with _seeded_globals(seeds[0], images_BCHW.device):
            return _call_users(method, model, images_BCHW, targets_B.clone(), sample_ids[0])
    maps = []
    for row, seed in enumerate(seeds):
        with _seeded_globals(seed, images_BCHW.device):
            single = _call_users(method, model, images_BCHW[row : row + 1], targets_B[row].clone(), sample_ids[row])
        maps.append(_check_single(method, single, images_BCHW[row], sample_ids[row]))
    if len({map_.shape for map_ in maps}) > 1:
        raise MethodError(f"{method.name}: maps of different shapes: {sorted({tuple(map_.shape) for map_ in maps})}")
    return torch.stack(maps)


def _call_users(method: MethodCall, model: nn.Module, images: Tensor, targets: Tensor, sample_id: str) -> Any:
    """Call the user's function; whatever it raises becomes a MethodError that says whose fault it is."""
    with contextlib.suppress(ValueError):  # some callables written in C have no signature
        signature = inspect.signature(method.function)
        try:
            signature.bind(model, images, targets, **method.params)
        except TypeError as error:
            params = ", ".join(method.params) or "no params"
            raise MethodError(
                f"{method.name}: can't be called with (model, images, targets, {params}): {error}; its signature is "
                f"{signature}"
            ) from error
    try:
        return method.function(model, images, targets, **method.params)
    except RoarlineError:
        raise
    except Exception as error:
        batch = " (first of its batch; does the method expect `batched: false`?)" if method.batched else ""
        raise MethodError(
            f"{method.name}: failed at sample {sample_id!r}{batch}: {type(error).__name__}: {error}"
        ) from error


def _as_tensor(method: MethodCall, returned: Any, device: torch.device, where: str) -> Tensor:
    if isinstance(returned, np.ndarray) and (np.issubdtype(returned.dtype, np.number) or returned.dtype == np.bool_):
        returned = torch.from_numpy(np.ascontiguousarray(returned))
    if not isinstance(returned, Tensor):
        came = f"an array of {returned.dtype}" if isinstance(returned, np.ndarray) else f"a {type(returned).__name__}"
        raise MethodError(f"{method.name}: returned {came} for {where}, expected a tensor or a numeric array")
    if returned.is_complex():
        raise MethodError(f"{method.name}: returned complex values for {where}, expected real ones")
    tensor = returned.detach().to(device)
    return tensor if tensor.is_floating_point() else tensor.to(torch.float32)


def _check_maps(method: MethodCall, returned: Any, images_BCHW: Tensor, sample_ids: Sequence[str]) -> Tensor:
    where = f"the batch of {len(sample_ids)} that begins with sample {sample_ids[0]!r}"
    maps = _as_tensor(method, returned, images_BCHW.device, where)
    batch, channels, height, width = images_BCHW.shape
    if tuple(maps.shape) == (batch, height, width) or tuple(maps.shape) == (batch, channels, height, width):
        return maps
    if tuple(maps.shape) == (batch, 1, height, width):
        return maps[:, 0]
    raise MethodError(
        f"{method.name}: returned shape {list(maps.shape)} for {where}, expected {[batch, height, width]} or "
        f"{[batch, channels, height, width]}"
        + ("" if method.builtin else "; a method that takes one image at a time is declared with `batched: false`")
    )


def _check_single(method: MethodCall, returned: Any, image_CHW: Tensor, sample_id: str) -> Tensor:
    maps = _as_tensor(method, returned, image_CHW.device, f"sample {sample_id!r}")
    channels, height, width = image_CHW.shape
    if maps.ndim == 4 and maps.shape[0] == 1:
        maps = maps[0]
    if tuple(maps.shape) == (1, height, width):
        maps = maps[0]
    if tuple(maps.shape) in ((height, width), (channels, height, width)):
        return maps
    raise MethodError(
        f"{method.name}: returned shape {list(maps.shape)} for sample {sample_id!r}, expected {[height, width]} or "
        f"{[channels, height, width]}, the image's size"
    )


@contextlib.contextmanager
def _first_output(model: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what the model returns the first time it is called."""
    outputs: list[Tensor] = []

    def keep(module: nn.Module, args: Any, output: Tensor) -> None:
        if not outputs:
            outputs.append(output.detach())

    handle = model.register_forward_hook(keep)
    try:
        yield outputs
    finally:
        handle.remove()


@contextlib.contextmanager
def _seeded_globals(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's, numpy's and Python's global generators, which the user's code may draw from; put them back."""
    state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002 (the user's code may use it)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(state)
            np.random.set_state(numpy_state)  # noqa: NPY002
