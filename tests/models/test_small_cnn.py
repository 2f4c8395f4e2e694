"""The small network keeps a map that CAM methods can read."""

import pytest
import torch

from roarline.models.layers import find_layer
from roarline.models.small_cnn import small_cnn


@pytest.mark.parametrize("size", [(8, 8), (28, 28), (32, 32), (9, 13)])
def test_gives_logits_and_half_sized_maps(size):
    model = small_cnn(5, width=4).eval()
    shapes = {}
    for name in ("conv1", "conv2", "conv3"):
        find_layer(model, name).register_forward_hook(
            lambda module, args, output, name=name: shapes.update({name: tuple(output.shape[1:])})
        )
    assert model(torch.zeros(2, 3, *size)).shape == (2, 5)
    half = ((size[0] + 1) // 2, (size[1] + 1) // 2)
    assert shapes == {"conv1": (4, *size), "conv2": (8, *half), "conv3": (8, *half)}


def test_every_relu_is_its_own_module_called_once():
    """Hook-based methods (DeepLIFT, guided backpropagation) go wrong on a module that is used twice."""
    model = small_cnn(5, width=4).eval()
    calls: list[str] = []
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.ReLU):
            module.register_forward_hook(lambda module, args, output, name=name: calls.append(name))
    model(torch.zeros(1, 3, 8, 8))
    assert calls == ["relu1", "relu2", "relu3"]
