"""torchvision's architectures, narrow and for small images, with random weights, biases and statistics."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torchvision import models

_BUILD: dict[str, tuple[int, Callable[[], nn.Module]]] = {
    "resnet18": (32, lambda: models.ResNet(models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=5)),
    "vgg11_bn": (32, lambda: _vgg()),
    "mobilenet_v2": (32, lambda: models.mobilenet_v2(width_mult=0.25, num_classes=5)),
    "densenet121": (32, lambda: models.DenseNet(8, (2, 2, 2, 2), 16, num_classes=5)),
    "squeezenet1_1": (48, lambda: models.squeezenet1_1(num_classes=5)),
    "efficientnet_b0": (32, lambda: _efficientnet()),
    "convnext_tiny": (32, lambda: models.ConvNeXt([_convnext(8, 16, 1), _convnext(16, None, 1)], num_classes=5)),
    "vit_b_16": (32, lambda: models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=5)),
}
NAMES = list(_BUILD)
_BUILD |= {
    "swin_t": (32, lambda: models.SwinTransformer([4, 4], 8, [1, 1], [1, 2], [4, 4], num_classes=5)),
    "swin_v2_t": (32, lambda: _swin_v2()),
}
"""Those that most rules refuse; not among ``NAMES``."""


def network(name: str, *, biases: bool = True) -> tuple[nn.Module, torch.Tensor]:
    """An architecture in eval mode with frozen parameters, float64, and two images for it.

    Args:
        biases: False: no layer has a bias, batch normalisation neither, and its running mean is 0.
    """
    side, build = _BUILD[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build().double().eval().requires_grad_(False)
        for module in model.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.running_var, 0.5, 2)
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.running_mean, 0, 0.3 if biases else 0)
            if isinstance(getattr(module, "bias", None), torch.Tensor):
                nn.init.normal_(module.bias, 0, 0.3 if biases else 0)
        return model, torch.randn(2, 3, side, side, dtype=torch.float64)


def _vgg() -> nn.Module:
    layers = models.vgg.make_layers([8, "M", 16, "M", 16, 16, "M", 32, 32, "M", 32, 32, "M"], batch_norm=True)
    with torch.device("meta"):  # its own classifier has 120 million weights
        model = models.VGG(nn.Identity(), init_weights=False)
    model.features, model.avgpool = layers, nn.AdaptiveAvgPool2d(7)
    model.classifier = nn.Sequential(nn.Linear(32 * 49, 8), nn.ReLU(True), nn.Dropout(), nn.Linear(8, 5))
    return model


def _swin_v2() -> nn.Module:
    kinds = {
        "block": models.swin_transformer.SwinTransformerBlockV2,
        "downsample_layer": models.swin_transformer.PatchMergingV2,
    }
    return models.SwinTransformer([4, 4], 8, [1, 1], [1, 2], [4, 4], num_classes=5, **kinds)


def _efficientnet() -> nn.Module:
    setting, channels = models.efficientnet._efficientnet_conf("efficientnet_b0", width_mult=0.25, depth_mult=0.5)
    return models.EfficientNet(setting, dropout=0.2, last_channel=channels, num_classes=5)


_convnext = models.convnext.CNBlockConfig
