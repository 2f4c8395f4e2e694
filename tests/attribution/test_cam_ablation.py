"""Ablation-CAM: exact losses of a linear head, brute force at an earlier layer, parity, and the original's sign."""

import pytest
import pytorch_grad_cam
import torch
from torch.nn import functional

from roarline.attribution.cam import gradcam
from roarline.attribution.cam_ablation import ablation_cam
from roarline.models.layers import find_layer
from roarline.models.layouts import channel_dimensions
from roarline.models.passes import at_most
from tests.attribution.test_cam_family import reference, stretched
from tests.models.test_auto_layer import vit


@pytest.fixture(autouse=True)
def evaluating(convnet):
    convnet.eval().requires_grad_(False)


def small_maps(model, layer, images, targets):
    """The published weights by hand, without dividing: a pass of the whole network for each image and channel."""
    module, seen = find_layer(model, layer), []
    handle = module.register_forward_hook(lambda called, args, output: seen.append(output.clone()))
    logits = model(images)
    handle.remove()
    activations, losses = seen[-1], []
    for channel in range(activations.shape[1]):
        calls = []

        def ablate(called, args, output, calls=calls, channel=channel):
            calls.append(1)
            if len(calls) == len(seen):
                output = output.clone()
                output[:, channel] = 0
            return output

        handle = module.register_forward_hook(ablate)
        losses.append((logits - model(images)).gather(1, targets[:, None])[:, 0])
        handle.remove()
    return (activations * torch.stack(losses, dim=1)[:, :, None, None]).sum(dim=1)


@pytest.mark.parametrize("layer", ["conv1", "pool", "conv2", "relu"])
def test_equals_ablating_one_channel_after_another(convnet, images, targets, layer):
    expected = small_maps(convnet, layer, images, targets)
    expected = functional.interpolate(expected[:, None], size=(8, 8), mode="bilinear")[:, 0]
    torch.testing.assert_close(
        ablation_cam(convnet, images, targets, layer=layer, relu=False, image_index=range(4)), expected
    )


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("layer", ["norm", "conv2"])
def test_many_small_passes_give_the_same_also_where_what_follows_writes_in_place(
    convnet, images, targets, layer, in_place
):
    """A ReLU in place behind the layer spoils the copies from which the next channels are taken."""
    expected = ablation_cam(convnet, images, targets, layer=layer, relu=False, image_index=range(4))
    convnet.relu.inplace = in_place
    with at_most(3):
        maps = ablation_cam(convnet, images, targets, layer=layer, relu=False, max_channels=99, image_index=range(4))
    torch.testing.assert_close(maps, expected)


def test_before_a_global_mean_and_a_linear_layer_a_channels_loss_is_its_share_of_the_logit(convnet, images, targets):
    """w_c · mean(A_c): Grad-CAM's weight w_c / (h · w) times the channel's sum."""
    activations = convnet.relu(convnet.conv2(convnet.pool(convnet.relu(convnet.norm(convnet.conv1(images))))))
    shares = convnet.linear.weight[targets] * activations.mean((2, 3))
    expected = torch.einsum("bchw,bc->bhw", activations, shares)
    expected = functional.interpolate(expected[:, None], size=(8, 8), mode="bilinear")[:, 0]
    maps = ablation_cam(convnet, images, targets, layer="relu", relu=False, image_index=range(4))
    torch.testing.assert_close(maps, expected)


def test_equals_pytorch_grad_cams(convnet, images, targets):
    """Behind a ReLU, where theirs sets channels to 0 too; up to 1e-5 of the range: theirs is float32."""
    convnet.linear.bias += 100
    model, images = convnet.float(), images.float()
    ours = stretched(ablation_cam(model, images, targets, layer="pool", compat="original", image_index=range(4)))
    expected = reference(pytorch_grad_cam.AblationCAM, model, ["pool"], images, targets)
    torch.testing.assert_close(ours.double(), expected, rtol=0, atol=1e-4)  # and its losses are small beside 100


def test_original_divides_by_the_logit_so_that_below_zero_every_sign_turns(convnet, images, targets):
    """The same network with its logits moved to both sides of 0: the corrected map stays, the original's turns."""
    maps = {}
    for bias in (100.0, -100.0):
        convnet.linear.bias.fill_(bias)
        for compat in ("corrected", "original"):
            maps[compat, bias] = ablation_cam(
                convnet, images, targets, layer="pool", relu=False, compat=compat, image_index=range(4)
            )
    torch.testing.assert_close(maps["corrected", 100.0], maps["corrected", -100.0])
    logits = convnet(images).gather(1, targets[:, None])[:, :, None]  # the second bias
    torch.testing.assert_close(maps["original", -100.0], maps["corrected", 100.0] / logits)
    assert (logits < 0).all()


def test_only_the_layers_successors_run_again_and_all_targets_of_an_image_share_them(convnet, images):
    channel_dimensions(convnet, images.shape[1:])  # which looks once at an image of its own
    runs = {"conv1": 0, "linear": 0}
    for name in runs:
        getattr(convnet, name).register_forward_hook(
            lambda module, args, output, name=name: runs.update({name: runs[name] + len(output)})
        )
    alive = convnet.conv2.out_channels
    rows, targets = [0, 1, 0], torch.tensor([2, 1, 4])
    forward, calls = convnet.conv1.forward, []
    convnet.conv1.forward = lambda *args: calls.append(1) or forward(*args)
    together = ablation_cam(convnet, images[rows], targets, layer="conv2", relu=False, image_index=rows)
    del convnet.conv1.forward
    assert len(calls) == 1
    assert runs["linear"] == 3 + 2 * alive
    alone = [ablation_cam(convnet, images[[r]], targets[[i]], layer="conv2", relu=False, image_index=[0])
             for i, r in enumerate(rows)]  # fmt: skip
    torch.testing.assert_close(together, torch.cat(alone))


def test_dead_channels_take_no_pass(convnet, images, targets):
    convnet.conv2.weight[:5], convnet.conv2.bias[:5] = 0, -1
    channel_dimensions(convnet, images.shape[1:])
    seen = []
    convnet.linear.register_forward_hook(lambda module, args, output: seen.append(len(output)))
    ablation_cam(convnet, images, targets, layer="relu", image_index=range(4))
    alive = (convnet.conv2(convnet.pool(convnet.relu(convnet.norm(convnet.conv1(images))))) > 0).any(3).any(2).sum()
    assert sum(seen) == 4 + int(alive)
    assert int(alive) <= 4 * 11


def test_of_at_most_so_many_channels_those_that_vary_most_are_used(convnet, images, targets):
    convnet.conv2.weight[[2, 5]] *= 100
    maps = ablation_cam(convnet, images, targets, layer="conv2", relu=False, max_channels=2, image_index=range(4))
    seen = []
    handle = convnet.conv2.register_forward_hook(lambda module, args, output: seen.append(output))
    logits = convnet(images)
    handle.remove()
    expected = 0
    for channel in (2, 5):
        without = seen[0].clone()
        without[:, channel] = 0
        loss = (logits - convnet.linear(without.relu().mean((2, 3)))).gather(1, targets[:, None])
        expected = expected + loss[:, :, None] * seen[0][:, channel]
    expected = functional.interpolate(expected[:, None], size=(8, 8), mode="bilinear")[:, 0]
    torch.testing.assert_close(maps, expected)


def test_of_a_vit_the_channel_is_taken_from_every_token():
    model = vit().double().eval().requires_grad_(False)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    targets, norm = torch.tensor([3, 1]), model.encoder.layers[1].ln_1
    logits, seen, expected = model(images), [], 0
    norm.register_forward_hook(lambda module, args, output: seen.append(output.clone()))
    model(images)
    tokens = seen[0][:, 1:].transpose(1, 2).reshape(2, 16, 4, 4)
    for channel in range(16):

        def ablate(module, args, output, channel=channel):
            output = output.clone()
            output[:, :, channel] = 0
            return output

        handle = norm.register_forward_hook(ablate)
        loss = (logits - model(images)).gather(1, targets[:, None])
        handle.remove()
        expected = expected + loss[:, :, None] * tokens[:, channel]
    expected = functional.interpolate(expected[:, None], size=(32, 32), mode="bilinear")[:, 0]
    torch.testing.assert_close(ablation_cam(model, images, targets, relu=False, image_index=range(2)), expected)


def test_of_a_network_linear_from_the_layer_on_it_agrees_with_gradcam_where_channels_are_constant(convnet, targets):
    """Constant channels A_c: the loss is w_c · A_c, Grad-CAM's weight times A_c, up to the number of cells."""
    images = (
        torch.ones(4, 3, 8, 8, dtype=torch.float64) * torch.tensor([0.5, 1.0, 1.5, 2.0])[:, None, None, None].double()
    )
    convnet.conv1.weight[:, :, [0, 0, 0, 1, 1, 2, 2, 2], [0, 1, 2, 0, 2, 0, 1, 2]] = 0  # only the centre: no border
    convnet.conv2.weight[:, :, [0, 0, 0, 1, 1, 2, 2, 2], [0, 1, 2, 0, 2, 0, 1, 2]] = 0
    convnet.linear.weight.abs_()
    squares = ablation_cam(convnet, images, targets, layer="relu", image_index=range(4))
    activations = convnet.relu(convnet.conv2(convnet.pool(convnet.relu(convnet.norm(convnet.conv1(images))))))[
        :, :, 0, 0
    ]
    torch.testing.assert_close(squares[:, 0, 0], (convnet.linear.weight[targets] * activations.square()).sum(dim=1))
    linear = gradcam(convnet, images, targets, layer="relu")[:, 0, 0] * 16
    torch.testing.assert_close(linear, (convnet.linear.weight[targets] * activations).sum(dim=1))
