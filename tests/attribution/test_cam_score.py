"""Score-CAM: one channel at a time by hand, parity with pytorch-grad-cam, and what a pass is spent on."""

import pytest
import pytorch_grad_cam
import torch
from torch import nn
from torch.nn import functional

from roarline.attribution.cam_score import score_cam
from roarline.models.passes import at_most
from tests.attribution.test_cam_family import reference, stretched


@pytest.fixture(autouse=True)
def evaluating(convnet):
    convnet.eval().requires_grad_(False)


def by_hand(model, activations, image, target, weights):
    """The algorithm of the paper for one image [3, H, W] and its activations [C, h, w], channel after channel."""
    scores, used = [], []
    for channel in activations:
        mask = functional.interpolate(channel[None, None], size=image.shape[1:], mode="bilinear")[0, 0]
        if mask.max() == mask.min():
            continue
        logits = model((image * (mask - mask.min()) / (mask.max() - mask.min()))[None])[0]
        scores.append(logits[target] if weights == "channel_softmax" else logits.softmax(dim=0)[target])
        used.append(channel)
    factors = torch.stack(scores)
    factors = factors.softmax(dim=0) if weights == "channel_softmax" else factors
    small = (factors[:, None, None] * torch.stack(used)).sum(dim=0).clamp(min=0)
    return functional.interpolate(small[None, None], size=image.shape[1:], mode="bilinear")[0, 0]


@pytest.mark.parametrize("weights", ["channel_softmax", "probability"])
def test_equals_the_published_algorithm_and_the_authors_code(convnet, images, targets, weights):
    activations = convnet.pool(convnet.relu(convnet.norm(convnet.conv1(images))))
    maps = score_cam(convnet, images, targets, layer="pool", weights=weights, image_index=range(4))
    for row in range(4):
        expected = by_hand(convnet, activations[row], images[row], targets[row], weights)
        torch.testing.assert_close(maps[row], expected)


def test_equals_pytorch_grad_cams(convnet, images, targets):
    """At a layer of the image's size: theirs resizes masks with corners aligned. Up to 1e-5: theirs is float32."""
    ours = stretched(score_cam(convnet.float(), images.float(), targets, layer="norm", image_index=range(4)))
    expected = reference(pytorch_grad_cam.ScoreCAM, convnet, ["norm"], images.float(), targets)
    torch.testing.assert_close(ours.double(), expected, rtol=0, atol=1e-5)


def counted(model, run):
    seen = []
    handle = model.register_forward_hook(lambda module, args, output: seen.append(len(output)))
    result = run()
    handle.remove()
    return result, seen


def test_all_targets_of_an_image_share_its_passes(convnet, images):
    rows, targets = [0, 1, 0, 0], torch.tensor([2, 1, 4, 0])
    together, seen = counted(
        convnet, lambda: score_cam(convnet, images[rows], targets, layer="conv2", image_index=rows)
    )
    assert seen[0] == 4
    assert sum(seen[1:]) == 2 * 16  # two images, sixteen channels
    alone = [score_cam(convnet, images[[r]], targets[[i]], layer="conv2", image_index=[0]) for i, r in enumerate(rows)]
    torch.testing.assert_close(together, torch.cat(alone))


def test_many_small_passes_give_the_same(convnet, images, targets):
    expected = score_cam(convnet, images, targets, layer="pool", image_index=range(4))
    with at_most(3):
        maps, seen = counted(convnet, lambda: score_cam(convnet, images, targets, layer="pool", image_index=range(4)))
    torch.testing.assert_close(maps, expected)
    assert max(seen[1:]) == 3


def test_dead_channels_take_no_pass_and_do_not_weigh(convnet, images, targets):
    """A channel that is the same everywhere, be it 0 or 3, masks nothing."""
    convnet.conv2.weight[:3] = 0
    convnet.conv2.bias[:3] = 3
    _, seen = counted(convnet, lambda: score_cam(convnet, images, targets, layer="conv2", image_index=range(4)))
    assert sum(seen[1:]) == 4 * 13


def test_where_no_channel_varies_the_map_is_zero_and_not_nan(convnet, images, targets):
    convnet.conv2.weight.zero_()
    maps = score_cam(convnet, images, targets, layer="conv2", image_index=range(4))
    assert torch.equal(maps, torch.zeros(4, 8, 8, dtype=torch.float64))


def test_of_at_most_so_many_channels_those_that_vary_most_are_used(convnet, images, targets):
    convnet.conv2.weight[[2, 5]] *= 100
    few, seen = counted(
        convnet, lambda: score_cam(convnet, images, targets, layer="conv2", max_channels=2, image_index=range(4))
    )
    assert sum(seen[1:]) == 4 * 2
    others = [channel for channel in range(16) if channel not in (2, 5)]
    convnet.register_buffer("kept", torch.ones(16, 1, 1, dtype=torch.float64))
    convnet.kept[others] = 0
    only_two = nn.Sequential(convnet.conv1, convnet.norm, convnet.relu, convnet.pool, convnet.conv2)(images)
    scores = [by_hand(convnet, only_two[row][[2, 5]], images[row], targets[row], "channel_softmax") for row in range(4)]
    torch.testing.assert_close(few, torch.stack(scores))


def test_predicted_class_where_the_target_is_minus_one(convnet, images):
    predicted = convnet(images).argmax(dim=1)
    maps = score_cam(convnet, images, torch.full((4,), -1), layer="conv2", image_index=range(4))
    torch.testing.assert_close(maps, score_cam(convnet, images, predicted, layer="conv2", image_index=range(4)))
