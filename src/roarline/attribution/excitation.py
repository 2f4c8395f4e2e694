"""Excitation backprop and its contrastive form: a probabilistic winner-take-all, passed back to a layer.

TorchRay rewrites each ResNet block to expose its sum; here the calls themselves are seen, and torchvision's networks
are taken as they are. What passes back is the probability p of a unit to be chosen.

Shapes: B images, C channels, h × w cells of a layer, H × W px of the image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from roarline.attribution.intercept import (
    RESHAPES,
    Call,
    Interception,
    carry,
    refuse_closed_networks,
    refusing_lost_values,
)
from roarline.attribution.passes import choose_targets
from roarline.errors import MethodError, ModelError
from roarline.imaging.cam import resize_map
from roarline.models.recording import Recording, recording

_WEIGHTED = frozenset({"conv2d", "linear"})
_MEANS = frozenset({"avg_pool2d", "adaptive_avg_pool2d", "mean"})
_PLAIN = RESHAPES | frozenset({"max_pool2d", "adaptive_max_pool2d"})
_SCALES = frozenset({"batch_norm", "mul", "div", "true_divide", "sub"})
_TINY = 1e-20


def excitation_backprop(
    model: nn.Module, images_BCHW: Tensor, targets_B: Tensor, *, layer: str = "auto", compat: str = "corrected"
) -> Tensor:
    """Probability of each cell of a layer to be chosen by winner-take-all from the target's logit downwards.

    A unit of a convolution, linear layer or average pooling hands its probability on to its inputs in proportion to
    their excitatory contributions a w⁺; a sum in proportion to its terms; ReLUs and max pooling as in backpropagation;
    batch normalisation unchanged. The network must be one of ReLUs: others, layer normalisation, gates and attention
    are refused.

    Args:
        targets_B: int64; -1 means the predicted class.
        layer: Dotted module name, or ``auto``, the last spatial layer; published with one in the middle (``layer3`` of
            a ResNet-50, ``features.23`` of a VGG-16). A module that is called twice is read at its last call.
        compat: ``corrected``: an activation below 0 (of a batch normalisation before a sum, of a linear bottleneck)
            excites nothing and counts as 0, and a sum of such passes nothing on; a ReLU6 at its upper end is active.
            ``original``: they count as they are, as in TorchRay, so that probabilities may become negative or exceed 1,
            and a sum of 0 gives NaN.

    Returns:
        [B, H, W]: summed over channels, resized, bilinear. Of the layer's own cells the sum is 1 where the path from
        the logit loses nothing.

    Raises:
        ModelError: There is no such layer, or its output is no map, or the logits do not depend on it.
        MethodError: The network calls a function without a rule, or is compiled or scripted.

    Source: Zhang et al. 2016, arXiv 1608.00507, equations 4 and 5; batch normalisation and sums as in TorchRay.
    """
    calls = _Excitation("excitation_backprop", compat)
    refuse_closed_networks(model, calls.method)
    with torch.enable_grad(), recording(model, layer, images_BCHW, spatial=False) as recorded:
        score = _score(calls, model, images_BCHW, targets_B)
        (signal,) = _gradients(score, recorded.outputs, recorded.names)
    return _map(recorded, signal, images_BCHW)


def contrastive_excitation_backprop(
    model: nn.Module,
    images_BCHW: Tensor,
    targets_B: Tensor,
    *,
    layer: str = "auto",
    contrast_layer: str = "classifier_input",
    compat: str = "corrected",
) -> Tensor:
    """Excitation backprop less that of the classifier with negated weights, the two subtracted at a contrast layer.

    The classifier is the last convolution or linear layer that is called.

    Args:
        targets_B: int64; -1 means the predicted class.
        layer: As ``excitation_backprop`` takes it; must come before the contrast layer.
        contrast_layer: Dotted module name, or ``classifier_input``: what the classifier reads, which is the layer that
            was published with (``avgpool`` of a ResNet-50, ``classifier.4`` of a VGG-16).
        compat: As ``excitation_backprop`` takes it.

    Returns:
        [B, H, W], 0 or more: summed over channels, clamped at 0, then resized, bilinear.

    Raises:
        ModelError: There is no such layer, its output is no map, or the layers are in the wrong order.
        MethodError: The network calls a function without a rule, or is compiled or scripted.

    Source: Zhang et al. 2016, arXiv 1608.00507, section 3.3.
    """
    calls = _Excitation("contrastive_excitation_backprop", compat)
    refuse_closed_networks(model, calls.method)
    named = contrast_layer != "classifier_input"
    layers = [layer, contrast_layer] if named else [layer]
    with torch.enable_grad(), recording(model, layers, images_BCHW, spatial=False) as recorded:
        score = _score(calls, model, images_BCHW, targets_B)
        if calls.last is None:
            raise MethodError(
                f"{calls.method}: {type(model).__name__} calls no classifier, a convolution or linear layer"
            )
        classifier = calls.last
        (chosen,) = _gradients(score, [classifier.result], ["the classifier"])
        contrast, against = classifier.input, calls.negated(classifier, chosen)
        if named:
            contrast = recorded.outputs[1]
            against = _gradients(classifier.input, [contrast], [contrast_layer], against)[0]
        reached = []

        def subtract(signal: Tensor) -> Tensor:
            reached.append(True)
            return signal - against

        handle = contrast.register_hook(subtract)  # type: ignore[no-untyped-call]
        try:
            (signal,) = _gradients(score, recorded.outputs[:1], recorded.names[:1])
        finally:
            handle.remove()
        if not reached:
            raise ModelError(f"layer {layer!r} comes after the contrast layer {contrast_layer!r}, expected before it")
    return _map(recorded, signal, images_BCHW, clamp=True)


def _score(calls: _Excitation, model: nn.Module, images_BCHW: Tensor, targets_B: Tensor) -> Tensor:
    logits = calls.run(model, images_BCHW.detach())
    return logits.gather(1, choose_targets(logits, targets_B)[:, None]).sum()


def _gradients(
    score: Tensor, tensors: list[Tensor], names: list[str], signal: Tensor | None = None
) -> tuple[Tensor, ...]:
    """Signals at some tensors of the graph, which is kept.

    Raises:
        ModelError: They do not lie before the score.
        MethodError: The network overwrote what they need.
    """
    with refusing_lost_values("excitation backprop"):
        found = torch.autograd.grad(score, tensors, signal, retain_graph=True, allow_unused=True)
    for name, gradient in zip(names, found, strict=True):
        if gradient is None:
            raise ModelError(
                f"layer {name!r}: no signal reaches it; choose one on which the logits depend, before the classifier"
            )
    return found


def _map(recorded: Recording, signal: Tensor, images_BCHW: Tensor, *, clamp: bool = False) -> Tensor:
    maps = recorded.grid(recorded.names[0], signal).sum(dim=1)
    return resize_map(maps.clamp(min=0) if clamp else maps, (images_BCHW.shape[2], images_BCHW.shape[3]))


@dataclass(frozen=True)
class _Classifier:
    """The last layer with weights: what it read and gave, in the graph, and W a for other weights."""

    input: Tensor
    result: Tensor
    weight: Tensor
    linear_part: Callable[[Tensor, Tensor], Tensor]


class _Excitation(Interception):
    """Winner-take-all rules for each call; refuses those for which there is none."""

    def __init__(self, method: str, compat: str) -> None:
        super().__init__()
        if compat not in ("corrected", "original"):
            raise MethodError(f"{method}: compat {compat!r}, expected corrected or original")
        self.method, self._corrected = method, compat == "corrected"
        self.last: _Classifier | None = None

    def handle(self, call: Call) -> Any:
        if not call.depends_on_image():
            return call()
        if call.name in _WEIGHTED:
            return self._weighted(call)
        if call.name in _MEANS:
            total = call.function(self._excite(call.input), *call.args[1:], **call.kwargs)
            return carry(_value(call), [total], [total], _share)
        if call.is_relu() and self._corrected:
            y = _value(call)
            return carry(y, [call.input], [y], lambda signal, y: (torch.where(y > 0, signal, 0),))
        if call.name in ("add", *_SCALES):
            return self._arithmetic(call)
        return call() if call.name in _PLAIN or call.is_relu() else call.without_rule(self.method)

    def negated(self, classifier: _Classifier, signal: Tensor) -> Tensor:
        """What the classifier's inputs get where its weights have the other sign."""
        leaf = classifier.input.detach().requires_grad_()
        weight = (-classifier.weight).clamp(min=0).to(leaf.dtype)  # in mixed precision the input is of fewer bits
        total = classifier.linear_part(self._excite(leaf), weight)
        (found,) = torch.autograd.grad(total, leaf, *_share(signal, total.detach()))
        return found

    def _excite(self, activation: Tensor) -> Tensor:
        """The activation as it excites; signals that pass back are multiplied by it."""
        with torch.no_grad():
            value = activation.clamp(min=0) if self._corrected else activation
        return carry(value, [activation], [value], lambda signal, value: (signal * value,))

    def _weighted(self, call: Call) -> Tensor:
        named = call.named()
        activation, weight, others = named.pop("input"), named.pop("weight"), named | {"bias": None}

        def linear_part(inputs: Tensor, weights: Tensor) -> Tensor:
            result: Tensor = call.function(inputs, weights, **others)
            return result

        total = linear_part(self._excite(activation), weight.clamp(min=0))
        result = carry(_value(call), [total], [total], _share)
        self.last = _Classifier(activation, result, weight, linear_part)
        return result

    def _arithmetic(self, call: Call) -> Any:
        """A sum of activations is shared out; scaling and shifting by constants leaves p as it is."""
        terms = [tensor for tensor in call.tensors() if tensor.requires_grad]
        if len(terms) == 1:
            value = _value(call)
            return carry(value, terms, [], lambda signal: (signal.sum_to_size(terms[0].shape),))
        if call.name != "add" or len(terms) != 2 or "alpha" in call.kwargs:
            return call.without_rule(self.method, "where both operands depend on the image")
        value, corrected = _value(call), self._corrected

        def back(signal: Tensor, a: Tensor, b: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
            if not corrected:
                return signal * (a / value), signal * (b / value)
            a, b = a.clamp(min=0), b.clamp(min=0)
            share = signal / (a + b + _TINY)
            return share * a, share * b

        return carry(value, terms, [*terms, value], back)


def _value(call: Call) -> Tensor:
    """The result of a call outside of the graph."""
    with torch.no_grad():
        value: Tensor = call()
    return value


def _share(signal: Tensor, total: Tensor) -> tuple[Tensor]:
    return (signal / (total + _TINY),)
