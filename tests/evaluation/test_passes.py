"""Batch size and memory layout follow from fixed rules."""

from __future__ import annotations

import pytest
import torch

from roarline.config.models import MODELS
from roarline.evaluation.passes import memory_format, pass_size

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("side", [1, 8, 32, 64, 224, 299, 512, 4000])
def test_a_pass_is_a_power_of_two_that_falls_with_the_images_size(side: int) -> None:
    size = pass_size(side, side, CPU)
    assert size & (size - 1) == 0
    assert 1 <= size <= 1024
    assert pass_size(side, 2 * side, CPU) <= size <= pass_size(side, side, GPU)


def test_a_pass_holds_what_its_budget_says() -> None:
    assert pass_size(224, 224, CPU) == 4
    assert pass_size(225, 225, CPU) == 2
    assert pass_size(224, 224, GPU) == 256


def test_only_known_networks_get_channels_last() -> None:
    for arch in (*MODELS, "torchvision:resnet50", "timm:vit_tiny"):
        assert memory_format(arch) == torch.channels_last
    assert memory_format("my_package.my_module.build") == torch.contiguous_format
