"""DeepLIFT with the Rescale rule, on any network: its calls are seen as they happen.

captum's DeepLift hooks modules: a module that is used twice is wrong or fails, and functional activations are passed
over silently. Here the image goes forward first, then one baseline, whose values stand beside the image's in the
backward pass: each nonlinearity passes back Δoutput / Δinput instead of its derivative.

Shapes: B images, n of whatever a network moves into the batch (windows, for instance).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.weak import WeakTensorKeyDictionary

from roarline.attribution.intercept import (
    LINEAR,
    QUERIES,
    Call,
    Interception,
    carry,
    refuse_closed_networks,
    refusing_lost_values,
)
from roarline.attribution.passes import choose_targets
from roarline.errors import MethodError

_CLIPS = frozenset({"relu", "relu6", "hardtanh"})
_ELEMENTWISE = _CLIPS | frozenset({
    "abs", "celu", "clamp", "clamp_max", "clamp_min", "clip", "elu", "erf", "exp", "gelu", "hardshrink", "hardsigmoid",
    "hardswish", "leaky_relu", "log", "log_softmax", "logsigmoid", "mish", "pow", "prelu", "rdiv", "reciprocal", "rpow",
    "rrelu", "rsqrt", "selu", "sigmoid", "silu", "softmax", "softplus", "softshrink", "softsign", "sqrt", "square",
    "tanh", "tanhshrink", "threshold",
})  # fmt: skip
_POOLS = frozenset({"max_pool2d", "adaptive_max_pool2d"})
_FORGETFUL = frozenset({
    "AddBackward0", "AddmmBackward0", "ConvolutionBackward0", "CudnnBatchNormBackward0", "NativeBatchNormBackward0",
})  # fmt: skip
"""What autograd calls functions that don't read their own results again."""
_PRODUCTS = frozenset({"mul", "multiply", "rmul"})
_QUOTIENTS = frozenset({"div", "divide", "true_divide"})
_LINEAR = LINEAR - _QUOTIENTS | frozenset({
    "bfloat16", "broadcast_to", "concat", "concatenate", "constant_pad_nd", "cuda", "cumsum", "diagonal", "expand_as",
    "fold", "gather", "half", "hstack", "moveaxis", "negative", "ravel", "repeat_interleave", "reshape_as", "rot90",
    "subtract", "swapdims", "t", "take_along_dim", "tensor_split", "tile", "tril", "triu", "unfold", "upsample",
    "vstack",
})  # fmt: skip
_LINEAR_IN_ONE = frozenset({
    "addmm", "baddbmm", "bmm", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
    "einsum", "linear", "matmul", "mm", "mv",
})  # fmt: skip


def deeplift(
    model: nn.Module,
    images_BCHW: Tensor,
    targets_B: Tensor,
    *,
    baseline: float = 0.0,
    without_rule: str = "refuse",
) -> Tensor:
    """Contributions of each input to the difference of the target's logit from that of a constant baseline.

    Rules, each of which keeps the sum of contributions (completeness: they sum to logit(image) - logit(baseline)):
    elementwise functions and softmax Δy / Δx, and the derivative where Δx is 0; max pooling as captum has it, the part
    of Δy that the image's own maximum explains to its place, the rest to the place of the baseline's maximum; a product
    of two activations the mean of image and baseline of the other factor (its Shapley value). Linear operations and
    batch normalisation need none. There is none for attention (``scaled_dot_product_attention``, matrix products of
    activations), layer and group normalisation, and functions that are not named here: networks that have them, ViT,
    Swin and ConvNeXt among them, are refused, unless ``without_rule`` is ``gradient``.

    Args:
        targets_B: int64; -1 means the predicted class.
        baseline: Its value in normalised space, the same everywhere.
        without_rule: ``refuse``, or ``gradient``: functions that have no rule pass the plain gradient, and completeness
            does not hold (the sum was off by 0.8 to 1.9 times the difference of the logits in ViT, Swin and ConvNeXt).

    Returns:
        [B, C, H, W].

    Raises:
        MethodError: The network calls a function without a rule, is compiled or scripted, or calls other functions for
            the baseline than for the images; or there is no such ``without_rule``.

    Source: Shrikumar et al. 2017, arXiv 1704.02685, section 3.5.1; max pooling as in captum's DeepLift.
    Differs: captum loses contributions where pooling windows overlap or a pool stands right behind an activation.
    """
    if without_rule not in ("refuse", "gradient"):
        raise MethodError(f"deeplift: without_rule {without_rule!r}, expected refuse or gradient")
    refuse_closed_networks(model, "deeplift")
    calls = _RescaledCalls(len(images_BCHW), refuses=without_rule == "refuse")
    with torch.enable_grad():
        leaf = images_BCHW.detach().requires_grad_()
        logits = calls.run(model, leaf)
        # Recorded too, so that the same calls depend on the input.
        calls.run_baseline(model, torch.full_like(leaf[:1], baseline).requires_grad_())
        chosen = choose_targets(logits, targets_B)
        with refusing_lost_values("deeplift"):
            (multipliers,) = torch.autograd.grad(logits.gather(1, chosen[:, None]).sum(), leaf)
    return multipliers * (images_BCHW - baseline)


@dataclass
class _Slot:
    """What the baseline gives at one call; filled after the images have passed."""

    name: str
    values: tuple[Tensor, ...] = ()


class _RescaledCalls(Interception):
    """First run: every nonlinearity carries its result, to be rescaled. Second run: the baseline's values are kept."""

    def __init__(self, images: int, *, refuses: bool) -> None:
        super().__init__()
        self._images, self._refuses = images, refuses
        self._slots: list[_Slot] = []
        self._left: list[_Slot] | None = None
        self._memory = torch.empty(0)
        self._kept = WeakTensorKeyDictionary()  # inputs that a nonlinearity needs in its backward pass

    def run_baseline(self, model: nn.Module, baseline_1CHW: Tensor) -> None:
        """Fill all slots."""
        self._left = self._slots[::-1]
        self.run(model, baseline_1CHW)
        if self._left:
            raise self._astray(self._left[-1].name, "nothing more")

    def handle(self, call: Call) -> Any:
        if call.name in QUERIES or not call.depends_on_image():
            return call()
        if call.name in _PRODUCTS:
            factors = [factor for factor in call.tensors() if factor.requires_grad]
            return self._product(call, factors[0], factors[1]) if len(factors) == 2 else call()
        if isinstance(call.input, Tensor) and call.input.requires_grad:
            if call.name in _ELEMENTWISE:
                return self._elementwise(call, call.input)
            if call.name in _POOLS and not call.named().get("return_indices"):
                return self._pool(call, call.input)
        if self._refuses and not _is_linear(call):
            return call.without_rule("deeplift", "that keeps the sum; without_rule: gradient goes on with its gradient")
        return call()

    def _elementwise(self, call: Call, x: Tensor) -> Tensor:
        y: Tensor = call()
        clip = _clip(call)
        if clip is not None:
            return self._clipped(call, x, y, clip)
        if self._left is not None:
            return self._keep(call, y, x, y)
        slot = self._slot(call)

        def back(signal: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            x0, y0 = self._of(slot)
            distance = x - x0
            same = distance.abs() < torch.finfo(x.dtype).eps ** 0.5  # of a quotient of rounded values nothing is left
            return torch.where(same, 0, signal * ((y - y0) / distance)), torch.where(same, signal, 0)

        return carry(y, [x, y], [x, y], back)

    def _clipped(self, call: Call, x: Tensor, y: Tensor, bounds: tuple[float, float]) -> Tensor:
        """Most of the time goes into this quotient: few operations, and none of them on truth values.

        The baseline is moved down by its rounding error, so that it differs from the image also where both are the
        same, and the quotient is the derivative there.
        """
        if self._left is not None:
            kind = torch.finfo(x.dtype)
            x0 = x.detach() - (x.detach().abs() * kind.eps).add_(kind.tiny)
            return self._keep(call, y, x0, x0.clamp(*bounds))
        disposable = self._is_disposable(call, x)
        slot = self._slot(call)

        def back(signal: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor]:
            x0, y0 = self._of(slot)
            distance = torch.sub(x, x0, out=x if disposable else self._scratch(x))
            distance.add_(torch.finfo(x.dtype).tiny)  # 0 / tiny where they meet by chance
            if not disposable:
                return ((y - y0).div_(distance).mul_(signal),)
            return (torch.div(torch.sub(y, y0, out=self._scratch(y)), distance, out=x).mul_(signal),)

        return carry(y, [x], [x, y], back)

    def _is_disposable(self, call: Call, x: Tensor) -> bool:
        """The network overwrites x itself, and nobody else reads its memory in the backward pass."""
        return call.in_place and x not in self._kept and type(x.grad_fn).__name__ in _FORGETFUL

    def _scratch(self, like: Tensor) -> Tensor:
        """Memory of a tensor's shape and layout, the same for all calls: fresh memory costs as much as arithmetic."""
        if like.numel() > self._memory.numel() or like.dtype != self._memory.dtype:
            self._memory = torch.empty(like.numel(), dtype=like.dtype, device=like.device)
        if not (like.is_contiguous() or like.is_contiguous(memory_format=torch.channels_last)):
            return torch.empty_like(like)
        return self._memory.as_strided(like.shape, like.stride())

    def _pool(self, call: Call, x: Tensor) -> Tensor:
        function = functional.max_pool2d if call.name == "max_pool2d" else functional.adaptive_max_pool2d
        with torch.no_grad():
            y, places = function(**call.named() | {"return_indices": True})
        if self._left is not None:
            return self._keep(call, call(), x, y, places)
        slot = self._slot(call)

        def back(signal: Tensor, x: Tensor, y: Tensor, places: Tensor) -> tuple[Tensor]:
            x0, y0, places0 = self._of(slot)
            larger, places0 = torch.maximum(y, y0), places0.expand_as(places)
            distance, distance0 = y - _at(x0.expand_as(x), places), _at(x, places0) - y0
            found = torch.zeros_like(x, memory_format=torch.contiguous_format)
            _add_at(found, places, signal * torch.where(distance == 0, 1, (larger - y0) / distance))
            _add_at(found, places0, signal * torch.where(distance0 == 0, 0, (y - larger) / distance0))
            return (found,)

        return carry(y, [x], [x, y, places], back)

    def _product(self, call: Call, a: Tensor, b: Tensor) -> Tensor:
        value: Tensor = call()
        if self._left is not None:
            return self._keep(call, value, a, b)
        slot = self._slot(call)

        def back(signal: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
            a0, b0 = self._of(slot)
            half = signal / 2
            return (half * (b + b0)).sum_to_size(a.shape), (half * (a + a0)).sum_to_size(b.shape)

        return carry(value, [a, b], [a, b], back)

    def _slot(self, call: Call) -> _Slot:
        self._kept.update({tensor: True for tensor in call.tensors() if tensor.requires_grad})
        self._slots.append(_Slot(call.name))
        return self._slots[-1]

    def _keep(self, call: Call, result: Tensor, *values: Tensor) -> Tensor:
        """Second run: the call's values go into its slot."""
        slot = self._left.pop() if self._left else _Slot("nothing more")
        if slot.name != call.name:
            raise self._astray(slot.name, call.name)
        slot.values = tuple(value.detach() for value in values)
        return result

    def _of(self, slot: _Slot) -> list[Tensor]:
        """The baseline's values beside those of B images; where n of each image are in the batch, n repeat B times."""
        return [
            value if len(value) == 1 else value.repeat(self._images, *[1] * (value.ndim - 1)) for value in slot.values
        ]

    @staticmethod
    def _astray(expected: str, came: str) -> MethodError:
        return MethodError(
            f"deeplift: the network calls {came} for the baseline where it calls {expected} for the images; it must "
            "call the same functions in the same order for all inputs"
        )


def _clip(call: Call) -> tuple[float, float] | None:
    """Bounds between which a function is the identity, outside of which it is constant; None for another function."""
    if call.name not in _CLIPS:
        return None
    if call.name == "hardtanh":
        named = call.named()
        return float(named.get("min_val", -1.0)), float(named.get("max_val", 1.0))
    return 0.0, 6.0 if call.name == "relu6" else math.inf


def _is_linear(call: Call) -> bool:
    """Linear in what depends on the image; where parameters are not frozen, they don't count as such."""
    inputs = [tensor for tensor in call.tensors() if tensor.requires_grad and not isinstance(tensor, nn.Parameter)]
    if call.name in _QUOTIENTS:
        return len(inputs) == 1 and inputs[0] is call.input
    if call.name == "batch_norm":
        return not call.named().get("training")
    return call.name in _LINEAR or (call.name in _LINEAR_IN_ONE and len(inputs) == 1)


def _at(values_BCHW: Tensor, places_BChw: Tensor) -> Tensor:
    """The values at places of each channel's map, [B, C, h, w]."""
    return values_BCHW.flatten(2).gather(2, places_BChw.flatten(2)).view_as(places_BChw)


def _add_at(into_BCHW: Tensor, places_BChw: Tensor, values_BChw: Tensor) -> None:
    """Add values up at places of each channel's map, in place; it must be contiguous."""
    into_BCHW.view(*into_BCHW.shape[:2], -1).scatter_add_(2, places_BChw.flatten(2), values_BChw.flatten(2))
