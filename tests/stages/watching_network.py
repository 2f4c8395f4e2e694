"""A network that keeps what it is shown, to be named by dotted path in tests."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from roarline.models.small_cnn import SmallCnn


@dataclass
class Seen:
    """What the networks of this process were shown since ``clear``.

    Attributes:
        trained_on: A tensor [B, 3, H, W] a training step.
        evaluated_on: A tensor an evaluation batch.
        first_weights: Of the first layer, before the first step, one a network.
    """

    trained_on: list[Tensor] = field(default_factory=list)
    evaluated_on: list[Tensor] = field(default_factory=list)
    first_weights: list[Tensor] = field(default_factory=list)

    def clear(self) -> None:
        """Forget."""
        self.trained_on.clear()
        self.evaluated_on.clear()
        self.first_weights.clear()


SEEN = Seen()
MODEL = {"arch": "tests.stages.watching_network.build", "params": {}}


class Watching(SmallCnn):
    """A small CNN that notes its inputs."""

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Note and compute."""
        (SEEN.trained_on if self.training else SEEN.evaluated_on).append(images_BCHW.detach().clone())
        return super().forward(images_BCHW)


def build(num_classes: int) -> Watching:
    """A new network."""
    model = Watching(num_classes, width=4)
    SEEN.first_weights.append(model.conv1.weight.detach().clone())
    return model
