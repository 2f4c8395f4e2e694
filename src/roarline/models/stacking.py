"""Several networks of one architecture as one: convolutions in groups, batch norm over all channels, one matrix each.

Every kernel is launched once for all of them, which is what small networks spend their time on. Network k owns the k-th
part of each parameter's first dimension, and nothing of one network reaches another.

Shapes: B images, S networks of a stack, C channels, H × W px, K classes, F features.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from roarline.errors import ModelError
from roarline.models.layers import device_and_dtype, evaluating

_TRIED_IMAGES = 2
# Sums of float32 products in another order; a network whose channels mix between networks is off by far more.
_TOLERANCE = 1e-3


class StackedNetworks(nn.Module):
    """Networks that see images of their own and are trained together.

    Args:
        networks: Of one architecture, on one device; they are left as they are.
        input_size: (H, W) in px with which the stack is tried once.

    Raises:
        ModelError: A layer can't be stacked, or the stack gives other logits than its networks do.
    """

    def __init__(self, networks: Sequence[nn.Module], input_size: tuple[int, int]) -> None:
        super().__init__()
        self.count = len(networks)
        self.together = copy.deepcopy(networks[0])
        for name, module in networks[0].named_modules():
            layers = [network.get_submodule(name) for network in networks]
            stacked = _stacked(layers, f"{type(networks[0]).__name__}.{name}")
            if stacked is not None:
                self.together.set_submodule(name, stacked.train(module.training))
        self._check(networks, input_size)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Logits [B, S, K] of images [B, S · 3, H, W], the channels of one network's image together."""
        logits: Tensor = self.together(images_BCHW)
        return logits.reshape(len(images_BCHW), self.count, -1)

    def part(self, value: Tensor, place: int) -> Tensor:
        """What of a parameter, its gradient or a buffer belongs to one network; a view, where it is not shared."""
        return value if value.ndim == 0 else by_network(value, self.count)[place]

    def state_of(self, place: int) -> dict[str, Tensor]:
        """The state dict of one network, as views."""
        return {name: self.part(value, place) for name, value in self.together.state_dict().items()}

    def load_into(self, place: int, state: Mapping[str, Tensor]) -> None:
        """Give one network a state; how many batches batch norm has seen is the whole stack's, and stays."""
        for name, value in self.state_of(place).items():
            if value.ndim:
                value.copy_(state[name])

    def _check(self, networks: Sequence[nn.Module], input_size: tuple[int, int]) -> None:
        """On the CPU: a GPU may round products to TF32, for the one convolution and not for the other."""
        _, dtype = device_and_dtype(self)
        generator = torch.Generator().manual_seed(0)
        images = torch.randn((_TRIED_IMAGES, self.count * 3, *input_size), generator=generator).to(dtype)
        stack = _on_cpu(self)
        with torch.no_grad(), evaluating(stack):
            expected = []
            for network, own in zip(map(_on_cpu, networks), images.chunk(self.count, 1), strict=True):
                with evaluating(network):
                    expected.append(network(own))
            wanted = torch.stack(expected, 1)
            try:
                found = stack(images)
            except RuntimeError as error:
                raise _unsuited(networks[0], str(error).splitlines()[0]) from error
        scale = float(wanted.abs().max()) or 1.0
        if found.shape != wanted.shape or float((found - wanted).abs().max()) > _TOLERANCE * scale:
            raise _unsuited(networks[0], "a stack of it gives other logits than each network alone")


def _on_cpu(network: nn.Module) -> nn.Module:
    device, _ = device_and_dtype(network)
    return network if device is None or device.type == "cpu" else copy.deepcopy(network).cpu()


def by_network(value: Tensor, count: int) -> Tensor:
    """[S · n, …] as [S, n, …], in the same memory."""
    return value.view(count, -1, *value.shape[1:])


def _stacked(layers: Sequence[nn.Module], name: str) -> nn.Module | None:
    """One layer for all; None where the layer has nothing of its own and serves as it is."""
    first: Any = layers[0]
    if isinstance(first, nn.Conv2d) and first.padding_mode == "zeros":
        return _Convolutions(layers)
    if type(first) is nn.BatchNorm2d:
        return _batch_norm(layers)
    if type(first) is nn.Linear:
        return _Linears(layers)
    if any(True for _ in first.parameters(recurse=False)) or any(True for _ in first.buffers(recurse=False)):
        raise ModelError(
            f"{name}: a {type(first).__name__} can't be stacked, only Conv2d, BatchNorm2d, Linear and layers without "
            "parameters; set evaluate-roar.engine: single"
        )
    return None


def _joined(layers: Sequence[Any], name: str) -> nn.Parameter | None:
    values = [getattr(layer, name) for layer in layers]
    return None if values[0] is None else nn.Parameter(torch.cat([value.detach() for value in values]))


class _Convolutions(nn.Module):
    """Convolutions side by side: as many groups as networks (times the layer's own)."""

    def __init__(self, layers: Sequence[Any]) -> None:
        super().__init__()
        first = layers[0]
        self.weight, self.bias = _joined(layers, "weight"), _joined(layers, "bias")
        self.settings = first.stride, first.padding, first.dilation, first.groups * len(layers)

    def forward(self, x: Tensor) -> Tensor:
        """[B, S · C, H, W] to [B, S · channels, h, w]."""
        assert self.weight is not None
        return F.conv2d(x, self.weight, self.bias, *self.settings)


class _Linears(nn.Module):
    """One matrix for each network."""

    def __init__(self, layers: Sequence[Any]) -> None:
        super().__init__()
        self.count = len(layers)
        self.weight, self.bias = _joined(layers, "weight"), _joined(layers, "bias")

    def forward(self, x: Tensor) -> Tensor:
        """[B, S · F] to [B, S · features]."""
        assert self.weight is not None
        own_SBF = x.reshape(len(x), self.count, -1).transpose(0, 1)
        weight_SFO = by_network(self.weight, self.count).transpose(1, 2)
        if self.bias is None:
            found = torch.bmm(own_SBF, weight_SFO)
        else:
            found = torch.baddbmm(self.bias.view(self.count, 1, -1), own_SBF, weight_SFO)
        return found.transpose(0, 1).flatten(1)


def _batch_norm(layers: Sequence[Any]) -> nn.BatchNorm2d:
    """Batch norm is over each channel by itself, so that more channels are more networks."""
    first = layers[0]
    stacked = nn.BatchNorm2d(
        first.num_features * len(layers), first.eps, first.momentum, first.affine, first.track_running_stats
    )
    state = [copy.deepcopy(layer.state_dict()) for layer in layers]
    joined = {
        name: value if value.ndim == 0 else torch.cat([s[name] for s in state]) for name, value in state[0].items()
    }
    stacked.load_state_dict(joined, assign=True)
    return stacked


def _unsuited(network: nn.Module, why: str) -> ModelError:
    return ModelError(f"{type(network).__name__} can't be trained in a stack: {why}; set evaluate-roar.engine: single")
