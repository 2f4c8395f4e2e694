"""How much a forward pass of the project's own networks computes. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from roarline.config.models import MODELS

_CIFAR_WIDTHS = (64, 128, 256, 512)


def forward_flop(arch: str, params: Mapping[str, Any], side_px: int, num_classes: int = 10) -> int | None:
    """Floating point operations of one image's forward pass, in convolutions and linear layers.

    A multiplication and an addition are two. Batch norm, activations and pooling, some percent, are left out.

    Args:
        arch: Of ``MODELS``.
        params: Of the network, as the configuration has them.
        side_px: Of square images.
        num_classes: Of the linear layer, which hardly counts.

    Returns:
        None where the network is none of the project's own.
    """
    if arch not in _OF:
        return None
    settings = MODELS[arch].params.model_validate(dict(params))
    return _OF[arch](settings, side_px, num_classes)


def _conv(side_px: int, inputs: int, outputs: int, kernel: int = 3) -> int:
    """Of a convolution with that many pixels on each side of its output."""
    return 2 * side_px**2 * inputs * outputs * kernel**2


def _halved(side_px: int, stride: int = 2) -> int:
    return -(-side_px // stride)


def _small_cnn(settings: Any, side_px: int, num_classes: int) -> int:
    width, half = settings.width, _halved(side_px)
    layers = _conv(side_px, 3, width) + _conv(half, width, 2 * width) + _conv(half, 2 * width, 2 * width)
    return int(layers + 2 * 2 * width * num_classes)


def _resnet(blocks: tuple[int, ...]) -> Callable[[Any, int, int], int]:
    def count(settings: Any, side_px: int, num_classes: int) -> int:
        width = getattr(settings, "width", None)
        widths = _CIFAR_WIDTHS if width is None else (width, 2 * width, 4 * width)
        side = _halved(side_px, getattr(settings, "stem_stride", 1))
        total, channels = _conv(side, 3, widths[0]), widths[0]
        for own, number in zip(widths, blocks, strict=False):
            if own != widths[0]:
                side = _halved(side)
                total += _conv(side, channels, own, kernel=1)
            total += _conv(side, channels, own) + (2 * number - 1) * _conv(side, own, own)
            channels = own
        return total + 2 * channels * num_classes

    return count


_OF: dict[str, Callable[[Any, int, int], int]] = {
    "small_cnn": _small_cnn,
    "resnet8": _resnet((1, 1, 1)),
    "narrow_resnet8": _resnet((1, 1, 1)),
    "resnet14": _resnet((2, 2, 2)),
    "resnet20": _resnet((3, 3, 3)),
    "resnet18": _resnet((2, 2, 2, 2)),
}
