"""A network by name: a line of the table, ``torchvision:NAME``, ``timm:NAME`` or a dotted path; its weights."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from roarline.config.component import load_object, locate
from roarline.config.load import parse_params
from roarline.config.models import MODELS
from roarline.errors import ModelError, RoarlineError
from roarline.models.heads import head_name, take_pooling, use_max_pooling
from roarline.models.layers import probe_output
from roarline.models.passes import is_published

# Networks with auxiliary heads are built without them, since one logit row an image is the contract; their published
# weights expect another normalisation than the usual one, to which `transform_input` maps.
_INCEPTION = {"aux_logits": False, "init_weights": True, "transform_input": True}
_TORCHVISION_DEFAULTS: dict[str, dict[str, Any]] = {"googlenet": _INCEPTION, "inception_v3": _INCEPTION}
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")


def build(
    arch: str,
    params: Mapping[str, Any],
    num_classes: int,
    *,
    input_size: tuple[int, int] | None,
    weights: str | None = None,
    weights_file: Path | None = None,
    seed: int,
    replace_head: bool = False,
    new_head: bool = False,
) -> nn.Module:
    """Build a classifier on the CPU, in training mode.

    Args:
        arch: Name; a dotted path is called as ``build(num_classes=K, **params)``.
        params: Keyword arguments of the network; torchvision's ResNets also know ``pooling``, see ``use_max_pooling``.
        num_classes: K, the data set's classes.
        input_size: (H, W) in px with which the network is tried once, or None.
        weights: Name of published weights: torchvision's own (``IMAGENET1K_V2``), or ``pretrained`` for timm.
        weights_file: A state dict as safetensors or for ``torch.load(weights_only=True)``.
        seed: Of the random initialisation; the global generators are left as they were.
        replace_head: True where the network will be trained: a head of another class count keeps its random initial
            values. False: it is an error.
        new_head: True: the whole head keeps its random initial values, whatever its shape.

    Returns:
        A module from images [B, 3, H, W] to logits [B, K].

    Raises:
        ModelError: No such network, weights that don't fit, or an output that is not [B, K].
        UserInputError: Parameters that the network doesn't have.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = _construct(arch, params, num_classes)
    state = _weights(arch, weights, weights_file)
    if state is not None:
        source = str(weights_file) if weights_file else f"weights {weights!r}"
        fresh = copy.deepcopy(model.get_submodule(head_name(model))) if new_head else None
        _load_state(model, state, num_classes, f"{arch} with {source}", replace_head=replace_head)
        if fresh is not None:
            model.set_submodule(head_name(model), fresh)
    if input_size is not None:
        _check_output(model, arch, num_classes, input_size)
    return model


def _construct(arch: str, params: Mapping[str, Any], num_classes: int) -> nn.Module:
    factory, settings = _factory(arch, params)
    try:
        model = factory(num_classes=num_classes, **settings)
    except RoarlineError:
        raise
    except TypeError as error:
        raise ModelError(f"model {arch!r} can't be built with params {dict(params)}: {error}") from error
    except Exception as error:  # whatever a user's own code may raise
        if is_published(arch):
            raise
        raise ModelError(f"model {arch!r} can't be built: {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"model {arch!r} gave a {type(model).__name__}, expected a torch.nn.Module")
    return model


def _factory(arch: str, params: Mapping[str, Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    if arch in MODELS:
        parsed = parse_params("model", arch, MODELS[arch].params, dict(params))
        return MODELS[arch].load(), parsed.model_dump()
    library, colon, name = arch.partition(":")
    if colon and library == "torchvision":
        return _torchvision(name), {**_TORCHVISION_DEFAULTS.get(name, {}), **params}
    if colon and library == "timm":
        return _timm(name), dict(params)
    return load_object(locate(arch, "roarline.models").dotted_path), dict(params)


def _torchvision(name: str) -> Callable[..., Any]:
    import torchvision.models as zoo

    classifiers = zoo.list_models(module=zoo)
    if name not in classifiers:
        raise ModelError(f"torchvision has no classifier {name!r}; it has {', '.join(classifiers)}")

    def construct(**settings: Any) -> nn.Module:
        own, pooling = take_pooling(settings)
        model: nn.Module = zoo.get_model(name, weights=None, **own)
        if pooling == "max":
            use_max_pooling(model)
        return model

    return construct


def _timm(name: str) -> Callable[..., Any]:
    try:
        import timm
    except ModuleNotFoundError as error:
        raise ModelError(f"model 'timm:{name}' needs the package timm: pip install timm") from error
    if not timm.is_model(name.partition(".")[0]):
        raise ModelError(f"timm has no model {name!r}; see timm.list_models()")
    return lambda **settings: timm.create_model(name, pretrained=False, **settings)


def _weights(arch: str, weights: str | None, weights_file: Path | None) -> Mapping[str, Tensor] | None:
    if weights_file is not None:
        return read_state(weights_file)
    if weights is None:
        return None
    library, colon, name = arch.partition(":")
    if colon and library == "torchvision":
        return torchvision_weights(name, weights)
    if colon and library == "timm":
        if weights != "pretrained":
            raise ModelError(
                f"model.weights {weights!r}: timm's weights are part of the model's name, e.g. timm:resnet50.a1_in1k "
                "with weights: pretrained"
            )
        import timm

        state: Mapping[str, Tensor] = timm.create_model(name, pretrained=True).state_dict()
        return state
    raise ModelError(
        f"model.weights {weights!r}: {arch!r} has no published weights by name; give a path to a .safetensors or "
        ".pth file"
    )


def torchvision_weights(name: str, weights: str) -> Mapping[str, Tensor]:
    """A state dict that torchvision publishes, downloaded where it is not at hand.

    Args:
        name: Of the classifier, e.g. ``resnet50``.
        weights: A name of its weights, e.g. ``IMAGENET1K_V2``.

    Raises:
        ModelError: There are no such weights, or they can't be downloaded.
    """
    import torchvision.models as zoo

    known = zoo.get_model_weights(name)
    names = [entry.name for entry in known]
    if weights not in [*names, "DEFAULT"]:
        raise ModelError(f"torchvision:{name} has no weights {weights!r}; it has {', '.join(names)}")
    try:
        state: Mapping[str, Tensor] = known[weights].get_state_dict(progress=False, check_hash=True)
    except OSError as error:
        raise ModelError(
            f"torchvision:{name}: weights {weights} can't be downloaded ({error}); fetch {known[weights].url} "
            "elsewhere and give its path as model.weights"
        ) from error
    if _TORCHVISION_DEFAULTS.get(name, {}).get("aux_logits") is False:
        state = {key: value for key, value in state.items() if not key.startswith(_AUXILIARY)}
    return state


def read_state(path: Path) -> dict[str, Tensor]:
    """A state dict from a file; one nested under ``state_dict`` or ``model`` and DistributedDataParallel's prefix
    ``module.`` are understood.

    Raises:
        ModelError: It is missing, damaged, or holds anything but tensors.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            loaded: Any = load_file(path)
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such file") from error
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ModelError(
            f"{path}: can't be read as weights; expected safetensors, or a state dict saved by torch.save that holds "
            f"tensors alone ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
        ) from error
    for nest in ("state_dict", "model"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(nest), Mapping):
            loaded = loaded[nest]
    if not isinstance(loaded, Mapping) or not loaded or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise ModelError(f"{path}: holds no state dict (names to tensors)")
    prefix = "module." if all(key.startswith("module.") for key in loaded) else ""
    return {key.removeprefix(prefix): value for key, value in loaded.items()}


def _load_state(
    model: nn.Module, state: Mapping[str, Tensor], num_classes: int, what: str, *, replace_head: bool
) -> None:
    own = model.state_dict()
    missing, unknown = [k for k in own if k not in state], [k for k in state if k not in own]
    if missing or unknown:
        said = [f"{len(n)} {label} (first: {n[0]})" for n, label in ((missing, "missing"), (unknown, "unknown")) if n]
        raise ModelError(f"{what}: the weights are of another network: {' and '.join(said)} of {len(own)} names")
    other = [key for key in own if own[key].shape != state[key].shape]
    head = [
        key
        for key in other
        if own[key].shape[:1] == (num_classes,) and state[key].ndim and own[key].shape[1:] == state[key].shape[1:]
    ]
    if other and head != other:
        wrong = next(key for key in other if key not in head)
        raise ModelError(f"{what}: {wrong} is {list(state[wrong].shape)}, expected {list(own[wrong].shape)}")
    if head and not replace_head:
        raise ModelError(
            f"{what}: the weights are for {state[head[0]].shape[0]} classes, the data set has {num_classes}; "
            "use weights that were trained on these classes, or add a train-cls section, which trains a new head"
        )
    model.load_state_dict({key: own[key] if key in head else state[key] for key in own})


def _check_output(model: nn.Module, arch: str, num_classes: int, input_size: tuple[int, int]) -> None:
    height, width = input_size
    try:
        logits = probe_output(model, input_size)
    except RuntimeError as error:
        raise ModelError(
            f"model {arch!r} can't take images of {height}×{width} px with 3 channels: {str(error).splitlines()[0]}; "
            "set data.resize_px and data.crop_px, or choose another network"
        ) from error
    if not isinstance(logits, Tensor):
        raise ModelError(
            f"model {arch!r} gave a {type(logits).__name__}, expected logits [1, {num_classes}] for one image"
        )
    if tuple(logits.shape) != (1, num_classes):
        raise ModelError(
            f"model {arch!r} gave {list(logits.shape)} for one image, expected [1, {num_classes}]: the data set has "
            f"{num_classes} classes; build the network for as many"
        )
