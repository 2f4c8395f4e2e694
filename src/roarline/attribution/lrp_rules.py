"""Rules of layer-wise relevance propagation for one layer with weights and the activation behind it: y = f(W x + b).

Signals are ρ = R / a, relevance divided by activation (see ``lrp``): a rule takes ρ at y and gives ρ at x. Those of
first layers give R itself. Activations pass on relevance unchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from roarline.attribution.intercept import carry

_TINY = 1e-30


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer in a forward pass.

    Attributes:
        x: Its input, in the graph.
        linear_part: From inputs and weights to W x, without bias.
        z: W x + b, in the graph.
        y: What comes behind the activation; z where there is none.
        positive: No value of x is below 0.
        relu: The activation is 0 below 0.
        disposable: z may be overwritten in the backward pass.
    """

    x: Tensor
    weight: Tensor
    linear_part: Callable[[Tensor, Tensor], Tensor]
    z: Tensor
    y: Tensor
    positive: bool
    relu: bool = False
    disposable: bool = False


def epsilon(z: Tensor, y: Tensor, stabiliser: float, *, relu: bool = False, disposable: bool = False) -> Tensor:
    """LRP-ε: R_i = Σ_j x_i w_ij / (z_j + ε sign z_j) R_j, hence ρ_i = Σ_j w_ij ρ_j y_j / (z_j + ε sign z_j).

    Args:
        z: The linear layer's result, whose own backward pass does the rest.
        y: What comes behind its activation, or z.
        relu: The activation is 0 below 0.
        disposable: z may be overwritten in the backward pass, which spares fresh memory.
    """

    def of_linear(signal: Tensor, z: Tensor) -> tuple[Tensor]:
        return (torch.addcdiv(signal, signal, z.abs().add_(stabiliser), value=-stabiliser),)

    def of_relu(signal: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor]:
        share = (z.clamp_(min=0) if disposable else z.clamp(min=0)).add_(stabiliser or _TINY)
        return (torch.div(y, share, out=share).mul_(signal),)

    def of_any(signal: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor]:
        share = z.abs().add_(stabiliser or _TINY).copysign_(z)
        return (torch.div(y, share, out=share).mul_(signal),)

    if y is not z:
        return carry(y, [z], [y, z], of_relu if relu else of_any)
    if stabiliser:
        return carry(y, [z], [z], of_linear)
    return carry(y, [z], [], lambda signal: (signal,))


def alpha_beta(layer: Layer, alpha: float, beta: float, stabiliser: float) -> Tensor:
    """LRP-αβ: R_i = Σ_j (α (x_i w_ij)⁺ / z⁺_j - β (x_i w_ij)⁻ / z⁻_j) R_j, z± the sums of those parts, without bias."""
    positive, negative = layer.weight.clamp(min=0), layer.weight.clamp(max=0)
    carriers = []
    for of_positive, of_negative in ((positive, negative), (negative, positive))[: 2 if beta else 1]:
        if layer.positive:
            carriers.append(layer.linear_part(layer.x, of_positive))
        else:
            above, below = layer.x.clamp(min=0), layer.x.clamp(max=0)
            carriers.append(layer.linear_part(above, of_positive) + layer.linear_part(below, of_negative))

    def back(signal: Tensor, y: Tensor, *parts: Tensor) -> tuple[Tensor, ...]:
        share = parts[0].add_(stabiliser or _TINY)  # the parts are this rule's own
        excited = torch.div(y, share, out=share).mul_(signal)
        if not beta:
            return (excited,)
        share = parts[1].sub_(stabiliser or _TINY)
        return excited.mul_(alpha), torch.div(y, share, out=share).mul_(signal).mul_(-beta)

    return carry(layer.y, carriers, [layer.y, *carriers], back)


def flat(layer: Layer) -> Tensor:
    """LRP-♭: R_i = Σ_j R_j / n_j over the n_j inputs that j sees."""
    return _by_weights(layer, torch.ones_like(layer.weight))


def squared_weights(layer: Layer) -> Tensor:
    """LRP-w²: R_i = Σ_j w_ij² / (Σ_i' w_i'j²) R_j."""
    return _by_weights(layer, layer.weight.square())


def box(layer: Layer, low_C: Tensor, high_C: Tensor, stabiliser: float) -> Tensor:
    """LRP-z^B: contributions x_i w_ij - l_i w_ij⁺ - h_i w_ij⁻, for inputs between l and h.

    Args:
        low_C: Lowest input of each channel, or one for all.
        high_C: Highest.
    """
    shape = (1, -1, 1, 1) if layer.x.ndim == 4 else (1, -1)
    low, high = (edge.reshape(shape).expand_as(layer.x) for edge in (low_C, high_C))
    carrier = (
        layer.linear_part(weighted(layer.x, layer.x), layer.weight)
        - layer.linear_part(weighted(layer.x, low), layer.weight.clamp(min=0))
        - layer.linear_part(weighted(layer.x, high), layer.weight.clamp(max=0))
    )

    def back(signal: Tensor, y: Tensor, total: Tensor) -> tuple[Tensor]:
        return (signal * y / (total + stabiliser),)

    return carry(layer.y, [carrier], [layer.y, carrier], back)


def weighted(carrier: Tensor, value: Tensor) -> Tensor:
    """A value that stands for another tensor; signals that pass back are multiplied by it."""
    return carry(value, [carrier], [value], lambda signal, value: (signal * value,))


def unchanged(y: Tensor, x: Tensor) -> Tensor:
    """An activation with f(0) = 0 that passes relevance on as it is: ρ_x = ρ_y y / x."""
    return epsilon(x, y, 0.0)


def _by_weights(layer: Layer, weight: Tensor) -> Tensor:
    """R_i = Σ_j v_ij / (Σ_i' v_i'j) R_j for weights v of 0 or more."""
    carrier = layer.linear_part(layer.x, weight)
    with torch.no_grad():
        total = layer.linear_part(torch.ones_like(layer.x[:1]), weight)

    def back(signal: Tensor, y: Tensor, total: Tensor) -> tuple[Tensor]:
        relevance = signal * y
        return (torch.where(total == 0, 0, relevance / total),)

    return carry(layer.y, [carrier], [layer.y, total], back)
