"""Explainers' networks: a map a class at the image's size, from weights in a file, the same from the same seed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from roarline.config.explainer_params import NnExplainerLosses
from roarline.config.training import Training
from roarline.errors import ModelError
from roarline.models.build import build as build_classifier
from roarline.models.explainers import DrawsMasks, build_explainer, class_map_explainer
from roarline.training.batches import ResidentSplit
from roarline.training.explainer_objectives import nn_explainer
from roarline.training.explainer_task import ExplainerTask
from roarline.training.loop import fit

CLASSIFIER = nn.Identity()
LIGHT = {"backbone": "light", "width": 4}


def build(seed=0, size=(20, 20), **params):
    return build_explainer("nn_explainer", CLASSIFIER, params, num_classes=3, input_size=size, seed=seed)


@pytest.mark.parametrize("size", [(20, 20), (33, 27), (64, 64)])
def test_light_draws_a_mask_a_class_at_the_images_size(size):
    network = build(**LIGHT).eval()
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    masks = network.masks(CLASSIFIER, images)
    assert isinstance(network, DrawsMasks)
    assert tuple(masks.shape) == (2, 3, *size)
    assert masks.min() >= 0
    assert masks.max() <= 1
    torch.testing.assert_close(masks, network(images).sigmoid())


@pytest.mark.parametrize(("levels", "seen_px"), [(1, 13), (2, 33), (3, 70)])
def test_light_sees_as_far_as_its_levels_say(levels, seen_px):
    network = build(**LIGHT, levels=levels).eval()
    image = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0)).requires_grad_()
    network(image)[0, :, 64, 64].sum().backward()
    seen = image.grad[0].abs().sum(dim=0).nonzero()
    extent = seen.max(dim=0).values - seen.min(dim=0).values + 1
    assert (extent - seen_px).abs().max() <= 2  # where a place lies in its coarse cell matters


def test_the_same_seed_gives_the_same_weights_and_leaves_the_global_generator():
    before = torch.get_rng_state()
    first, again, other = build(**LIGHT), build(**LIGHT), build(seed=1, **LIGHT)
    assert torch.equal(torch.get_rng_state(), before)
    pairs = zip(first.state_dict().values(), again.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(first.network.maps.weight, other.network.maps.weight)


def test_deeplab_refuses_images_that_vanish_in_it():
    with pytest.raises(ModelError, match=r"needs images of 32 px or more, these have 20×20 px.*light"):
        build(backbone="deeplabv3_resnet50")


def test_deeplab_starts_from_a_file_of_a_resnet_50(tmp_path):
    from torchvision.models import resnet18, resnet50

    state = resnet50(num_classes=2).state_dict()
    torch.save(state, tmp_path / "resnet50.pth")
    network = class_map_explainer(
        CLASSIFIER, num_classes=3, input_size=(64, 64), weights_file=tmp_path / "resnet50.pth"
    ).eval()
    assert torch.equal(network.network.backbone.conv1.weight, state["conv1.weight"])
    with torch.no_grad():
        assert tuple(network(torch.zeros(1, 3, 64, 64)).shape) == (1, 3, 64, 64)
    torch.save(resnet18(num_classes=2).state_dict(), tmp_path / "resnet18.pth")
    with pytest.raises(ModelError, match=r"resnet18\.pth: not those of a ResNet-50"):
        class_map_explainer(CLASSIFIER, num_classes=3, input_size=(64, 64), weights_file=tmp_path / "resnet18.pth")


def test_deeplab_has_output_stride_8_and_no_auxiliary_head():
    network = build(size=(64, 64), backbone="deeplabv3_resnet50").network
    with torch.no_grad():
        features = network.backbone(torch.zeros(1, 3, 64, 64))
    assert list(features) == ["out"]
    assert tuple(features["out"].shape) == (1, 2048, 8, 8)
    assert network.aux_classifier is None


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["vgg16", "resnet50"])
def test_deeplab_trains_for_the_published_classifiers_at_224_px(arch):
    """Two steps of two images with VOC's 20 classes: finite, the classifier as it was, the explainer not."""
    classifier = build_classifier(f"torchvision:{arch}", {}, 20, input_size=None, seed=0).eval().requires_grad_(False)
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    network = class_map_explainer(classifier, num_classes=20, input_size=(224, 224))
    start = {name: value.clone() for name, value in network.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(4, 20, generator=generator) < 0.1).float()
    labels[:, 0] = 1
    split = ResidentSplit(torch.randn(4, 3, 224, 224, generator=generator), labels)
    settings = Training(epochs=1, batch_size=2, channels_last=True)
    task = ExplainerTask(20, True, int(labels.sum(dim=1).max()), (224, 224), settings, seed=0)
    objective = nn_explainer(network, classifier, task, **NnExplainerLosses().model_dump())
    trained = fit(objective, split, None, settings, seed=0)
    assert trained.curve[0]["train_loss"] > 0
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())
    assert any(not torch.equal(value, start[name]) for name, value in network.state_dict().items())
    assert all(value.isfinite().all() for value in network.state_dict().values())
