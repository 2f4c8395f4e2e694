"""Residual networks in the form for small images: a 3×3 stem without pooling, basic blocks, global mean, linear.

Legend: B batch, C channels, H and W px, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from roarline.models.heads import pooled

_WIDTHS = (64, 128, 256, 512)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut.

    ``relu`` is one module that is called twice: a hook on it sees the inside of the block first and the block's output
    last. CAM methods read the last call.
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to [B, channels, H / stride, W / stride]."""
        inside = self.relu(self.bn1(self.conv1(x)))
        out: Tensor = self.relu(self.bn2(self.conv2(inside)) + self.shortcut(x))
        return out


class CifarResNet(nn.Module):
    """Stem, stages of basic blocks (each but the first halves the sides), global mean, linear.

    Args:
        num_classes: K.
        blocks: Blocks of each stage.
        widths: Channels of each stage, at least as many numbers as stages.
        pooling: ``mean`` or ``max``, over all places.
        stem_stride: Of the first convolution; 2 makes all that follows four times faster, as in networks for large
            images.

    Source: He et al. 2016, arXiv 1512.03385; the widths of saurabheights/ROAR.
    """

    def __init__(
        self,
        num_classes: int,
        blocks: Sequence[int],
        widths: Sequence[int] = _WIDTHS,
        stem_stride: int = 1,
        pooling: str = "mean",
    ) -> None:
        super().__init__()
        self.pooling = pooling
        self.conv1 = nn.Conv2d(3, widths[0], 3, stride=stem_stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU()
        self._stages = [f"layer{index + 1}" for index in range(len(blocks))]
        channels = widths[0]
        for name, width, count in zip(self._stages, widths, blocks, strict=False):
            first = BasicBlock(channels, width, stride=1 if width == widths[0] else 2)
            self.add_module(name, nn.Sequential(first, *(BasicBlock(width, width, 1) for _ in range(count - 1))))
            channels = width
        self.linear = nn.Linear(channels, num_classes)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Logits [B, K] of normalised images [B, 3, H, W]."""
        x = self.relu(self.bn1(self.conv1(images_BCHW)))
        for name in self._stages:
            x = self.get_submodule(name)(x)
        logits: Tensor = self.linear(pooled(x, self.pooling))
        return logits


def resnet8(num_classes: int, pooling: str = "mean") -> CifarResNet:
    """One block in each of three stages: the network of the original ROAR code for CIFAR-10."""
    return CifarResNet(num_classes, (1, 1, 1), pooling=pooling)


def narrow_resnet8(num_classes: int, width: int = 16, stem_stride: int = 1, pooling: str = "mean") -> CifarResNet:
    """ResNet-8 with fewer channels, for CPUs: ``width`` in the first stage, 2 × and 4 × as many in the others.

    Source: He et al. 2016, arXiv 1512.03385, section 4.2, which has 16, 32 and 64.
    """
    return CifarResNet(num_classes, (1, 1, 1), (width, 2 * width, 4 * width), stem_stride, pooling)


def resnet14(num_classes: int, pooling: str = "mean") -> CifarResNet:
    """Two blocks in each of three stages."""
    return CifarResNet(num_classes, (2, 2, 2), pooling=pooling)


def resnet20(num_classes: int, pooling: str = "mean") -> CifarResNet:
    """Three blocks in each of three stages."""
    return CifarResNet(num_classes, (3, 3, 3), pooling=pooling)


def resnet18(num_classes: int, pooling: str = "mean") -> CifarResNet:
    """Two blocks in each of four stages, up to 512 channels."""
    return CifarResNet(num_classes, (2, 2, 2, 2), pooling=pooling)
