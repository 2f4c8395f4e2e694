"""Layer-wise relevance propagation: an epsilon rule throughout, or the composites of Kohlbrenner et al.

captum's LRP hooks modules, so that the sums of a ResNet, the concatenations of a DenseNet and functional activations
pass it by. Here the calls themselves are seen.

What passes back is relevance divided by activation, ρ = R / a: so linear operations without a rule of their own (sums,
concatenations, average pooling, reshapes) pass on the plain gradient, which is to share relevance in proportion to
contributions, and a ReLU and max pooling do as well. Only layers with weights need rules (``lrp_rules``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from roarline.attribution import lrp_rules
from roarline.attribution.intercept import (
    QUERIES,
    RESHAPES,
    Call,
    Interception,
    carry,
    refuse_closed_networks,
    refusing_lost_values,
)
from roarline.attribution.passes import choose_targets
from roarline.errors import MethodError

_WEIGHTED = frozenset({"conv2d", "linear"})
_PLAIN = frozenset({"relu", "max_pool2d", "adaptive_max_pool2d"})
_THROUGH = frozenset({
    "celu", "elu", "gelu", "hardswish", "hardtanh", "leaky_relu", "mish", "prelu", "relu6", "selu", "silu", "softsign",
    "tanh",
})  # fmt: skip
_GATES = frozenset({"sigmoid", "hardsigmoid"})
_ARITHMETIC = frozenset({"add", "sub", "mul", "div", "true_divide"})
_KEEPS_SIGN = RESHAPES - {"pad"} | frozenset({
    "adaptive_avg_pool2d", "adaptive_max_pool2d", "avg_pool2d", "max_pool2d", "mean", "sum",
})  # fmt: skip
_ALPHA_BETA = {"epsilon_plus": (1.0, 0.0), "epsilon_alpha2_beta1": (2.0, 1.0)}


def lrp(
    model: nn.Module,
    images_BCHW: Tensor,
    targets_B: Tensor,
    *,
    rule: str = "epsilon_plus",
    first_rule: str = "flat",
    epsilon: float = 1e-6,
    mean: Sequence[float],
    std: Sequence[float],
) -> Tensor:
    """Relevance of each input for the target's logit.

    - ``epsilon``: LRP-ε in every convolution, linear layer and batch normalisation. Without biases and with ε → 0 it is
      input × gradient in networks of ReLUs.
    - ``epsilon_plus``, ``epsilon_alpha2_beta1``: LRP-α1β0 or LRP-α2β1 in convolutions, LRP-ε in linear layers, and
      ``first_rule`` in the layers that read the image. With ``flat`` these are LRP-CMP:α1+♭ and LRP-CMP:α2+♭ of
      Kohlbrenner et al., in zennit EpsilonPlusFlat and EpsilonAlpha2Beta1Flat.

    Batch normalisation right behind a convolution or linear layer is folded into it; elsewhere (DenseNet) it is a
    linear layer of its own under LRP-ε. Biases take relevance in LRP-ε and none in the other rules, which lose some
    where a unit has no input of one sign (depthwise convolutions, above all with α2β1). Activations pass relevance on
    unchanged; sigmoid gates (squeeze-and-excitation) are constants; max pooling gives all to the largest.

    Args:
        targets_B: int64; -1 means the predicted class.
        rule: ``epsilon``, ``epsilon_plus`` or ``epsilon_alpha2_beta1``.
        first_rule: Of the composites: ``flat``, ``w2`` (LRP-w²) or ``box`` (z^B between the pixel values 0 and 1).
        epsilon: Added to denominators, with their sign.
        mean: Of the normalisation, 1 or C numbers.
        std: Of the normalisation, 1 or C numbers.

    Returns:
        [B, C, H, W], signed.

    Raises:
        MethodError: The network is compiled or scripted, calls a function for which there is no rule (layer
            normalisation, attention), or there is no such rule.

    Source: Bach et al. 2015, PLOS ONE 10(7), section 2.3; Kohlbrenner et al. 2020, arXiv 1910.09840, section 3;
    Montavon et al. 2017, arXiv 1512.02479 (w², z^B); gates: Arras et al. 2017, arXiv 1706.07206.
    """
    if rule not in ("epsilon", *_ALPHA_BETA) or first_rule not in ("flat", "w2", "box"):
        raise MethodError(
            f"lrp: rule {rule!r}, first_rule {first_rule!r}; expected epsilon, {', '.join(_ALPHA_BETA)}; flat, w2, box"
        )
    refuse_closed_networks(model, "lrp")

    def first(layer: lrp_rules.Layer) -> Tensor:
        if first_rule == "box":
            low, high = ((edge - images_BCHW.new_tensor(mean)) / images_BCHW.new_tensor(std) for edge in (0.0, 1.0))
            return lrp_rules.box(layer, low, high, epsilon)
        return lrp_rules.flat(layer) if first_rule == "flat" else lrp_rules.squared_weights(layer)

    calls = _Relevance(epsilon, None if rule == "epsilon" else _ALPHA_BETA[rule], first)
    with torch.enable_grad():
        leaf = images_BCHW.detach().requires_grad_()
        logits = calls.run(model, leaf)
        chosen = choose_targets(logits, targets_B)
        score = logits.gather(1, chosen[:, None]).sum()
        with refusing_lost_values("lrp"):
            (found,) = torch.autograd.grad(score, leaf, allow_unused=True)
    if found is None:
        raise MethodError(f"lrp: in {type(model).__name__} no relevance reaches the image: every way has a gate on it")
    return found if calls.composite else images_BCHW * found


@dataclass(frozen=True)
class _Pending:
    """A layer whose result nobody has used yet: batch normalisation may be folded into it, its activation follow."""

    layer: lrp_rules.Layer
    is_convolution: bool
    reads_image: bool


class _Relevance(Interception):
    """Rules for each call; refuses those for which there is none."""

    def __init__(
        self,
        epsilon: float,
        alpha_beta: tuple[float, float] | None,
        first: Callable[[lrp_rules.Layer], Tensor],
    ) -> None:
        super().__init__()
        self.composite = alpha_beta is not None
        self._epsilon, self._alpha_beta, self._first = epsilon, alpha_beta, first
        self._pending = WeakTensorKeyDictionary()
        self._positive = WeakTensorKeyDictionary()
        self._image = WeakTensorKeyDictionary()

    def run(self, model: nn.Module, inputs_BCHW: Tensor) -> Tensor:
        self._image[inputs_BCHW] = True
        try:
            logits = super().run(model, inputs_BCHW)
            return self._settled(logits)
        finally:
            self._pending.clear()

    def handle(self, call: Call) -> Any:
        if call.name in QUERIES:
            return call()
        pending: _Pending | None = None
        if isinstance(call.input, Tensor) and call.input in self._pending:
            pending = self._pending[call.input]
        if pending is not None and call.name == "batch_norm":
            return self._fold(call, pending)
        if pending is not None and (call.name == "relu" or call.name in _THROUGH):
            result = self._activate(call, pending)
            if call.is_relu():
                self._positive[result] = True
            return result
        waiting = [tensor for tensor in call.tensors() if tensor in self._pending]
        if waiting:
            for tensor in waiting:
                self._replace(tensor, self._settled(tensor))
            call = replace(
                call,
                args=[self._current(value) for value in call.args],
                kwargs={key: self._current(value) for key, value in call.kwargs.items()},
            )
        if not call.depends_on_image():
            return call()
        result = self._ruled(call)
        if isinstance(result, Tensor) and result not in self._pending and (call.is_relu() or self._keeps_sign(call)):
            self._positive[result] = True
        return result

    def _keeps_sign(self, call: Call) -> bool:
        """The result is 0 or more because all that it is made of is."""
        tensors = call.tensors()
        if call.name == "setitem":
            known = len(tensors) > 1 and tensors[-1] is call.args[-1]
        elif call.name == "add":
            known = len(tensors) == 2 and "alpha" not in call.kwargs
        elif call.name == "pad":
            known = len(call.args) <= 3 and not call.kwargs.get("value")
        else:
            known = call.name in _KEEPS_SIGN
        return known and all(tensor in self._positive for tensor in tensors)

    def _ruled(self, call: Call) -> Any:
        if call.name in _WEIGHTED:
            return self._wait(call)
        if self.composite and any(tensor in self._image for tensor in call.tensors()):
            return self._of_image(call)
        if call.name == "batch_norm":
            y: Tensor = call()
            return lrp_rules.epsilon(y, y, self._epsilon)
        if call.name in _GATES:
            return call().detach()
        if call.name in _PLAIN or call.is_linear():
            return call()
        if call.name in _THROUGH:
            return lrp_rules.unchanged(call(), call.input)
        return call.without_rule("lrp")

    def _of_image(self, call: Call) -> Any:
        """Relevance, not ρ, passes from the first layers to the image: what only shifts or scales it passes all on."""
        if call.name in RESHAPES:
            result = call()
        elif call.name in _ARITHMETIC and call.is_linear():
            with torch.no_grad():
                value = call()
            result = carry(value, [call.input], [], lambda signal: (signal.sum_to_size(call.input.shape),))
        else:
            return call.without_rule("lrp", "of the image itself; rule: epsilon has one")
        for part in result if isinstance(result, (list, tuple)) else [result]:
            if isinstance(part, Tensor) and part.requires_grad:
                self._image[part] = True
        return result

    def _wait(self, call: Call) -> Tensor:
        named = call.named()
        x, weight, others = named.pop("input"), named.pop("weight"), named | {"bias": None}

        def linear_part(inputs: Tensor, weights: Tensor) -> Tensor:
            result: Tensor = call.function(inputs, weights, **others)
            return result

        y: Tensor = call()
        layer = lrp_rules.Layer(x, weight, linear_part, y, y, x in self._positive)
        self._pending[y] = _Pending(layer, call.name == "conv2d", x in self._image)
        return y

    def _fold(self, call: Call, pending: _Pending) -> Tensor:
        named, y = call.named(), call()
        scale = (named["running_var"] + named.get("eps", 1e-5)).rsqrt()
        if named.get("weight") is not None:
            scale = scale * named["weight"]
        weight = pending.layer.weight * scale.reshape(-1, *[1] * (pending.layer.weight.ndim - 1))
        self._pending[y] = replace(pending, layer=replace(pending.layer, weight=weight, z=y, y=y))
        folded: Tensor = y
        return folded

    def _activate(self, call: Call, pending: _Pending) -> Tensor:
        with torch.no_grad():
            y: Tensor = call()
        return self._apply(
            replace(pending, layer=replace(pending.layer, y=y, relu=call.is_relu(), disposable=call.in_place))
        )

    def _settled(self, y: Tensor) -> Tensor:
        """The result of a layer that no batch normalisation follows."""
        if y not in self._pending:
            return y
        pending: _Pending = self._pending[y]
        del self._pending[y]
        return self._apply(pending)

    def _apply(self, pending: _Pending) -> Tensor:
        if self._alpha_beta is not None and pending.reads_image:
            return self._first(pending.layer)
        if self._alpha_beta is not None and pending.is_convolution:
            return lrp_rules.alpha_beta(pending.layer, *self._alpha_beta, self._epsilon)
        layer = pending.layer
        return lrp_rules.epsilon(layer.z, layer.y, self._epsilon, relu=layer.relu, disposable=layer.disposable)
