"""Layers by name, and which of them a CAM method may use."""

import re

import pytest
import torch
from torch import nn

from roarline.errors import ModelError
from roarline.models.cifar_resnet import resnet8
from roarline.models.layers import evaluating, find_layer, layer_names, spatial_layers
from roarline.models.small_cnn import small_cnn


def test_finds_a_nested_layer():
    model = resnet8(10)
    assert find_layer(model, "layer3.0.relu") is model.layer3[0].relu


def test_a_wrong_name_lists_near_names_and_spatial_layers():
    with pytest.raises(ModelError) as caught:
        find_layer(small_cnn(10, 4), "conv4", input_size=(8, 8))
    message = str(caught.value)
    assert re.search(r"no layer 'conv4'; did you mean conv3", message)
    listed = message.rpartition("spatial maps: ")[2].split(", ")
    assert listed == [f"{kind}{index}" for index in (1, 2, 3) for kind in ("conv", "bn", "relu")]


def test_a_wrong_name_lists_layers_whatever_the_number_of_input_channels():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    with pytest.raises(ModelError, match=r"no layer 'conv9'; layers that give spatial maps: 0, 1$"):
        layer_names(model, "conv9", (1, 12, 12))


@pytest.mark.parametrize("name", ["", "linear.weight", "layer9"])
def test_what_is_no_layer_is_refused_without_an_input_size_too(name):
    with pytest.raises(ModelError, match=r"its layers: conv1, bn1"):
        find_layer(small_cnn(10, 4), name)


def test_layers_without_a_map_are_not_listed_and_the_model_is_left_as_it_was():
    model = nn.Sequential(
        nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 4), nn.Dropout(0.5)
    )
    model[5].eval()
    mean = model[1].running_mean.clone()
    assert spatial_layers(model, (6, 6)) == ["0", "1"]
    assert [module.training for module in model] == [True] * 5 + [False]
    assert torch.equal(model[1].running_mean, mean)
    assert not any(module._forward_hooks for module in model.modules())


def test_modes_come_back_after_an_error():
    model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    model[1].eval()
    with pytest.raises(KeyError), evaluating(model):
        assert not model.training
        raise KeyError
    assert (model.training, model[0].training, model[1].training) == (True, True, False)
