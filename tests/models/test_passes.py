"""Batch size and memory layout follow from fixed rules."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from roarline.config.models import MODELS
from roarline.models.passes import MAX_PASS, memory_format, pass_size

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@given(height=st.integers(1, 4000), width=st.integers(1, 4000), device=st.sampled_from(["cpu", "cuda"]))
def test_pass_size_is_a_power_of_two_within_bounds(height, width, device):
    size = pass_size(height, width, torch.device(device))
    assert 1 <= size <= MAX_PASS
    assert size & (size - 1) == 0


@given(height=st.integers(1, 2000), width=st.integers(1, 2000), device=st.sampled_from(["cpu", "cuda"]))
def test_larger_images_never_go_in_larger_passes(height, width, device):
    sizes = [pass_size(height * k, width * k, torch.device(device)) for k in (1, 2)]
    assert sizes[1] <= sizes[0]


@given(side=st.integers(1, 4000))
def test_a_gpu_takes_at_least_as_many_and_fewer_where_activations_are_kept(side):
    assert pass_size(side, side, CPU) <= pass_size(side, side, GPU) or side > 512
    assert pass_size(side, side, GPU, keeps_activations=True) <= pass_size(side, side, GPU)


def test_a_pass_holds_what_its_budget_says() -> None:
    assert pass_size(224, 224, CPU) == 16
    assert pass_size(257, 257, CPU) == 8
    assert pass_size(8, 8, CPU) == 512
    assert pass_size(224, 224, GPU) == 256
    assert pass_size(224, 224, GPU, keeps_activations=True) == 64


def test_only_known_networks_get_channels_last() -> None:
    for arch in (*MODELS, "torchvision:resnet50", "timm:vit_tiny"):
        assert memory_format(arch) == torch.channels_last
    assert memory_format("my_package.my_module.build") == torch.contiguous_format
