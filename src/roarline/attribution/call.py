"""Calling a method, built in or the user's own, and refusing what it must not return.

A built-in is called with a whole batch. The user's callable is called in one of the two styles of the configuration:
``batched: true``, (model, images [B, C, H, W], targets [B], **params); or ``batched: false``, once an image, as the
original ROAR code does: (model, preprocessed image [1, C, H, W], label, **params) → a map of the image's size.

Shapes: B rows, C channels, H × W px, K classes.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from roarline.attribution.global_random import seeded_globals
from roarline.attribution.memory import PassLimit, within_memory
from roarline.attribution.model_state import frozen, guarded
from roarline.attribution.noise import noisy_moments
from roarline.attribution.passes import choose_targets
from roarline.attribution.precision import mixed_passes
from roarline.attribution.surroundings import Surroundings, extras_for, wanted_extras
from roarline.config.component import Smooth, load_object, locate
from roarline.config.methods import METHODS
from roarline.errors import MethodError, RoarlineError
from roarline.models.folding import fold_batch_norms
from roarline.models.layers import layer_names
from roarline.models.passes import pass_size
from roarline.seeds import derive_seed

PREDICTED = -1
SeedOf = Callable[[int, int], int]


@dataclass(frozen=True)
class MethodCall:
    """A method with its parameters, ready to be called.

    Attributes:
        name: Named in every message.
        builtin: True for a line of the table: its signature may name ``surroundings.EXTRAS``.
        one_pass: Its one forward pass is of the unchanged images: it takes -1 as a target, and logits come with it.
        keeps_activations: Its passes are recorded for a backward pass to the input.
        needs_layer: Its parameter ``layer`` names a layer, or several.
    """

    name: str
    function: Callable[..., Any]
    params: Mapping[str, Any] = field(default_factory=dict)
    batched: bool = True
    builtin: bool = False
    one_pass: bool = False
    keeps_activations: bool = True
    needs_layer: bool = False
    smooth: Smooth | None = None

    @cached_property
    def extras(self) -> frozenset[str]:
        """What a built-in wants to know beside model, images and targets."""
        return wanted_extras(self.function) if self.builtin else frozenset()


@dataclass(frozen=True)
class Attribution:
    """Maps of one batch: maps [B, H, W] or [B, C, H, W] floating, targets [B] int64, logits [B, K]."""

    maps: Tensor
    targets: Tensor
    logits: Tensor


def find_method(
    method: str, params: Mapping[str, Any], *, batched: bool = True, smooth: Smooth | None = None
) -> MethodCall:
    """Look up a method by table name, entry point or dotted path.

    Args:
        smooth: Take a moment of its maps over noisy copies of the image.

    Raises:
        UserInputError: There is no such method.
    """
    if method in METHODS:
        component = METHODS[method]
        return MethodCall(
            method, component.load(), params, builtin=True, one_pass=component.one_pass and smooth is None,
            keeps_activations=component.keeps_activations, needs_layer=component.needs_layer, smooth=smooth,
        )  # fmt: skip
    path = method if ":" in method else locate(method, "roarline.methods").dotted_path
    return MethodCall(method, load_object(path), params, batched=batched, smooth=smooth)


def network_for(method: MethodCall, model: nn.Module, image_shape: Sequence[int]) -> nn.Module:
    """The network as the method may see it: with batch normalisation folded, from a method's layer on as it is.

    Args:
        image_shape: (C, H, W) of its inputs.

    Returns:
        A copy, or the model itself where nothing is folded; methods of users get the model itself, and so do learned
        explainers, which may read any of its layers.

    Raises:
        ModelError: There is no such layer.
    """
    if not method.builtin or "explainer" in method.extras:
        return model
    layer = method.params.get("layer", "auto")
    return fold_batch_norms(
        model, image_shape, before=layer_names(model, layer, image_shape) if method.needs_layer else ()
    )


def attribute(
    model: nn.Module,
    images_BCHW: Tensor,
    targets_B: Tensor,
    method: MethodCall,
    *,
    seed_of: SeedOf,
    sample_ids: Sequence[str],
    surroundings: Surroundings | None = None,
    limit: PassLimit | None = None,
) -> Attribution:
    """Compute the maps of one batch and leave the model as it was, also after an exception.

    Args:
        model: Classifier, [B, C, H, W] → [B, K].
        images_BCHW: Normalised network inputs.
        targets_B: int64 on the images' device; -1 means the predicted class, the one of the largest logit.
        seed_of: From (row of the batch, target class) to the seed of its random draws.
        sample_ids: One a row, for messages; rows with the same id are the same image.
        surroundings: What built-in methods may ask for.
        limit: Images in a pass; lowered where memory runs out, and then kept for the next batch.

    Returns:
        Maps, the chosen targets and the logits, on the images' device.

    Raises:
        MethodError: The method fails, or returns something of the wrong type or shape. Values are not looked at: see
            ``artifacts.maps.check_rows``.
        ModelError: A single image is too much for the device's memory.
    """
    around = surroundings or Surroundings()

    def compute(rows: slice) -> Attribution:
        return _attribute(
            model, images_BCHW[rows], targets_B[rows], method, lambda row, target: seed_of(rows.start + row, target),
            sample_ids[rows], around,
        )  # fmt: skip

    count = len(images_BCHW)
    height, width = images_BCHW.shape[2:]
    rule = pass_size(height, width, images_BCHW.device, keeps_activations=method.keeps_activations)
    device_type = images_BCHW.device.type
    # A user's code may call parts of the network by themselves: it runs in the caller's precision as it is.
    around_call = mixed_passes(model, device_type) if method.builtin else guarded(model, method.name)
    with frozen(model), around_call:
        slices = list(within_memory(limit or PassLimit(), count, rule, method.name, compute))
    if len(slices) == 1:
        return slices[0]
    return Attribution(
        torch.cat([part.maps for part in slices]),
        torch.cat([part.targets for part in slices]),
        torch.cat([part.logits for part in slices]),
    )


def _attribute(
    model: nn.Module,
    images_BCHW: Tensor,
    targets_B: Tensor,
    method: MethodCall,
    seed_of: SeedOf,
    sample_ids: Sequence[str],
    around: Surroundings,
) -> Attribution:
    if method.one_pass:
        extras = extras_for(
            method.name, method.extras, around, seeds=(), logits_BK=None, targets_B=targets_B, sample_ids=sample_ids
        )
        with _first_output(model) as outputs:
            returned = method.function(model, images_BCHW, targets_B, **method.params, **extras)
        logits = outputs[0]
        maps = _check_maps(method, returned, images_BCHW, sample_ids)
        return Attribution(maps, choose_targets(logits, targets_B), logits)
    with torch.no_grad():
        logits = model(images_BCHW)
    targets = choose_targets(logits, targets_B)
    seeds = [seed_of(row, target) for row, target in enumerate(targets.tolist())]
    if method.smooth is None:
        maps = _call(method, model, images_BCHW, targets, seeds, sample_ids, around, logits)
    else:
        maps = _smoothed(method, method.smooth, model, images_BCHW, targets, seeds, sample_ids, around)
    return Attribution(maps, targets, logits)


def _smoothed(
    method: MethodCall,
    smooth: Smooth,
    model: nn.Module,
    images_BCHW: Tensor,
    targets_B: Tensor,
    seeds: Sequence[int],
    sample_ids: Sequence[str],
    around: Surroundings,
) -> Tensor:
    """Mean, mean square or variance of the method's maps over noisy copies of each image."""

    def maps_of(inputs: Tensor, copies: Sequence[tuple[int, int]]) -> Tensor:
        owners = torch.tensor([row for row, _ in copies], device=targets_B.device)
        copy_seeds = [derive_seed(seeds[row], "copy", copy) for row, copy in copies]
        ids = [sample_ids[row] for row, _ in copies]
        inputs = inputs.contiguous(memory_format=_memory_format(images_BCHW))
        return _call(method, model, inputs, targets_B[owners], copy_seeds, ids, around, None)

    mean, variance = noisy_moments(
        images_BCHW, smooth.samples, smooth.noise, seeds, maps_of, keeps_activations=method.keeps_activations
    )
    if smooth.kind == "mean":
        return mean
    return variance if smooth.kind == "variance" else variance + mean.square()


def _call(
    method: MethodCall,
    model: nn.Module,
    images_BCHW: Tensor,
    targets_B: Tensor,
    seeds: Sequence[int],
    sample_ids: Sequence[str],
    around: Surroundings,
    logits_BK: Tensor | None,
) -> Tensor:
    """Checked maps of one call; without ``logits_BK`` the images are noisy copies, each an image of its own."""
    if method.builtin:
        numbered = sample_ids if logits_BK is not None else [f"{row}" for row in range(len(sample_ids))]
        if logits_BK is None and "logits_BK" in method.extras:
            with torch.no_grad():
                logits_BK = model(images_BCHW)
        extras = extras_for(
            method.name, method.extras, around, seeds=seeds, logits_BK=logits_BK, targets_B=targets_B,
            sample_ids=sample_ids, image_ids=numbered,
        )  # fmt: skip
        returned = method.function(model, images_BCHW, targets_B, **method.params, **extras)
    elif method.batched:
        with seeded_globals(seeds[0], images_BCHW.device):
            returned = _call_users(method, model, images_BCHW, targets_B.clone(), sample_ids[0])
    else:
        returned = _one_by_one(method, model, images_BCHW, targets_B, seeds, sample_ids)
    return _check_maps(method, returned, images_BCHW, sample_ids)


def _one_by_one(
    method: MethodCall,
    model: nn.Module,
    images_BCHW: Tensor,
    targets_B: Tensor,
    seeds: Sequence[int],
    sample_ids: Sequence[str],
) -> Tensor:
    maps = []
    for row, seed in enumerate(seeds):
        with seeded_globals(seed, images_BCHW.device):
            single = _call_users(method, model, images_BCHW[row : row + 1], targets_B[row].clone(), sample_ids[row])
        maps.append(_check_single(method, single, images_BCHW[row], sample_ids[row]))
    if len({map_.shape for map_ in maps}) > 1:
        raise MethodError(f"{method.name}: maps of different shapes: {sorted({tuple(map_.shape) for map_ in maps})}")
    return torch.stack(maps)


def _memory_format(images_BCHW: Tensor) -> torch.memory_format:
    channels_last = images_BCHW.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if channels_last and not images_BCHW.is_contiguous() else torch.contiguous_format


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
    except (RoarlineError, torch.OutOfMemoryError):
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
