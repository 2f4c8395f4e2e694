"""Occlusion: analytic on a linear network, parity with captum, full passes, the forms of its parameters."""

import math

import captum.attr
import pytest
import torch

from roarline.attribution.occlusion import occlusion
from roarline.models.passes import pass_size


def logits_of(model, images):
    with torch.no_grad():
        return model(images)


def attribute(model, images, targets, **params):
    return occlusion(model, images, targets, logits_BK=logits_of(model, images), **params)


def test_without_overlap_a_linear_networks_windows_sum_to_the_difference_to_the_baseline(linear, images, targets):
    """A window's drop is Σ w · (x - baseline) over its pixels, whatever the others show."""
    maps = attribute(linear, images, targets, window_px=4, stride_px=4, baseline=0.5)
    weights = linear.layer.weight.detach().reshape(5, 3, 8, 8)[targets]
    drops = (weights * (images - 0.5)).sum(dim=1)
    expected = drops.reshape(4, 2, 4, 2, 4).sum(dim=(2, 4)).repeat_interleave(4, dim=1).repeat_interleave(4, dim=2)
    torch.testing.assert_close(maps, expected)


@pytest.mark.parametrize(("window", "stride"), [(3, 2), (5, 1), (2, 2)])
def test_a_pixel_gets_the_mean_drop_of_the_windows_that_cover_it(linear, images, targets, window, stride):
    maps = attribute(linear, images, targets, window_px=window, stride_px=stride)
    weights = linear.layer.weight.detach().reshape(5, 3, 8, 8)[targets]
    drops = (weights * images).sum(dim=1)
    sums, counts = torch.zeros(4, 8, 8, dtype=torch.float64), torch.zeros(8, 8, dtype=torch.float64)
    starts = range(0, 8 - window + stride, stride)
    for top in starts:
        for left in starts:
            here = (slice(None), slice(top, top + window), slice(left, left + window))
            sums[here] += drops[here].sum(dim=(1, 2))[:, None, None]
            counts[here[1:]] += 1
    torch.testing.assert_close(maps, sums / counts)


@pytest.mark.parametrize(
    ("window", "stride", "size"), [(3, 2, (8, 8)), (4, 3, (8, 14)), (5, 5, (12, 8)), (9, 2, (8, 8))]
)
def test_equals_captum(convnet, targets, window, stride, size):
    convnet.eval()
    images = torch.randn(4, 3, *size, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    peer = captum.attr.Occlusion(lambda inputs: logits_of(convnet, inputs))
    window_shape = (3, *(min(window, side) for side in size))  # captum refuses a window larger than the image
    expected = peer.attribute(
        images, sliding_window_shapes=window_shape, strides=(3, stride, stride), baselines=0.3, target=targets
    )
    maps = attribute(convnet, images, targets, window_px=window, stride_px=stride, baseline=0.3)
    assert expected.dtype == torch.float32  # captum adds up in float32, whatever the images are
    torch.testing.assert_close(maps.float()[:, None].expand(-1, 3, -1, -1), expected)


def test_captum_evaluates_one_window_a_pass_unless_told_otherwise_and_roarline_fills_every_pass(
    convnet, images, targets
):
    """captum's perturbations_per_eval is 1: 49 windows of one image are 50 passes of one image each."""
    passes = []
    convnet.eval().register_forward_pre_hook(lambda module, args: passes.append(len(args[0])))
    one, target = images[:1], targets[:1]
    captum.attr.Occlusion(convnet).attribute(one, sliding_window_shapes=(3, 2, 2), strides=(3, 1, 1), target=target)
    assert passes == [1] * 50
    logits = logits_of(convnet, one)
    passes.clear()
    occlusion(convnet, one, target, window_px=2, stride_px=1, logits_BK=logits)
    assert len(passes) == math.ceil(49 / pass_size(8, 8, torch.device("cpu")))
    assert sum(passes) == 49


def test_the_default_window_is_a_seventh_of_the_image_and_moves_by_half_of_it(convnet, targets):
    convnet.eval()
    images = torch.randn(4, 3, 28, 42, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    explicit = attribute(convnet, images, targets, window_px=4, stride_px=2)
    assert torch.equal(attribute(convnet, images, targets), explicit)


def test_pixels_that_no_window_covers_are_0(linear, images, targets):
    maps = attribute(linear, images, targets, window_px=2, stride_px=3)
    assert torch.equal(maps[:, 2], torch.zeros(4, 8, dtype=torch.float64))
    assert torch.equal(maps[:, :, 5], torch.zeros(4, 8, dtype=torch.float64))
    assert (maps[:, :2, :2] != 0).all()


@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
def test_one_window_over_all_gives_the_drop_of_the_probability_to_the_baselines(convnet, images, targets, score):
    convnet.eval()
    maps = attribute(convnet, images, targets, window_px=8, baseline="image_mean", score=score)
    gray = images.mean(dim=(2, 3), keepdim=True).expand_as(images)
    squash = {"softmax": lambda x: x.softmax(dim=1), "sigmoid": torch.sigmoid}[score]
    drops = (squash(logits_of(convnet, images)) - squash(logits_of(convnet, gray))).gather(1, targets[:, None])
    torch.testing.assert_close(maps, drops[:, :, None].expand(-1, 8, 8))


def test_labels_of_one_image_share_their_passes(convnet, images):
    convnet.eval()
    same, targets = images[[0, 0, 0, 1]], torch.tensor([0, 2, 4, 1])
    expected = attribute(convnet, same, targets, window_px=3)
    logits, passes = logits_of(convnet, same), []
    convnet.register_forward_pre_hook(lambda module, args: passes.append(len(args[0])))
    found = occlusion(convnet, same, targets, window_px=3, logits_BK=logits, image_index=[0, 0, 0, 1])
    torch.testing.assert_close(found, expected)
    assert sum(passes) == 2 * 16
