"""A linear classifier, whose gradient is its weight: what sanity checks must find is known."""

from __future__ import annotations

from torch import Tensor, nn


class Linear(nn.Module):
    """One linear layer on all pixels."""

    def __init__(self, num_classes: int, side: int) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * side * side, num_classes)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Logits [B, K]."""
        logits: Tensor = self.linear(images_BCHW.flatten(1))
        return logits


def build(num_classes: int, side: int) -> Linear:
    """For ``model.arch``."""
    return Linear(num_classes, side)


def not_a_number(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """A method that breaks where the network is not the learned one (whose bias the tests set to 0)."""
    bias = next(parameter for name, parameter in model.named_parameters() if name.endswith("bias"))
    maps = images.mean(dim=1)
    return maps if bool((bias == 0).all()) else maps * float("nan")
