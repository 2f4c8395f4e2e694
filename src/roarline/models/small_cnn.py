"""A small network for images of 8×8 to 32×32 px, fast on a CPU."""

from __future__ import annotations

from torch import Tensor, nn

from roarline.models.heads import pooled


class SmallCnn(nn.Module):
    """Three 3×3 convolutions, each with batch norm and a ReLU of its own, then the global mean or maximum, and a linear
    layer.

    Only the second convolution halves the sides, so that the maps a CAM method reads keep their place: 8×8 px images
    give 4×4 maps at ``conv2`` and ``conv3``.

    Args:
        num_classes: K.
        width: Channels of ``conv1``; ``conv2`` and ``conv3`` have twice as many.
        pooling: ``mean`` or ``max``, over all places.
    """

    def __init__(self, num_classes: int, width: int, pooling: str = "mean") -> None:
        super().__init__()
        self.pooling = pooling
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(2 * width)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(2 * width, 2 * width, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(2 * width)
        self.relu3 = nn.ReLU()
        self.linear = nn.Linear(2 * width, num_classes)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Logits [B, K] of normalised images [B, 3, H, W]."""
        x = self.relu1(self.bn1(self.conv1(images_BCHW)))
        x = self.relu2(self.bn2(self.conv2(x)))
        x = self.relu3(self.bn3(self.conv3(x)))
        logits: Tensor = self.linear(pooled(x, self.pooling))
        return logits


def small_cnn(num_classes: int, width: int = 32, pooling: str = "mean") -> SmallCnn:
    """The network; see ``SmallCnn``."""
    return SmallCnn(num_classes, width, pooling)
