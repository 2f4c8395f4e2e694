"""`layer: auto` for every family of torchvision's classifiers, with random weights, and look-alikes of others."""

import warnings
from collections import OrderedDict

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.models.vision_transformer import VisionTransformer

from roarline.errors import ModelError
from roarline.models.cifar_resnet import resnet8
from roarline.models.layers import auto_layer, find_layer, layer_names
from roarline.models.recording import recording
from roarline.models.small_cnn import small_cnn

FAMILIES = {
    "alexnet": "features",
    "vgg11": "features",
    "resnet18": "layer4",
    "resnext50_32x4d": "layer4",
    "densenet121": "features",
    "mobilenet_v2": "features",
    "mobilenet_v3_small": "features",
    "efficientnet_b0": "features",
    "squeezenet1_0": "features",
    "squeezenet1_1": "features",
    "convnext_tiny": "features",
    "shufflenet_v2_x0_5": "conv5",
    "mnasnet0_5": "layers",
    "googlenet": "inception5b",
    "regnet_y_400mf": "trunk_output",
    "regnet_x_400mf": "trunk_output",
}
SIDE = 96


def output_of(model, name, images):
    with recording(model.eval(), name, images) as recorded, torch.enable_grad():
        logits = model(images)
        (gradients,) = recorded.gradients(logits[:, 0].sum())
    return recorded.activations[0], gradients


@pytest.mark.parametrize(("architecture", "expected"), FAMILIES.items())
def test_torchvisions_convolutional_families(architecture, expected):
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")  # GoogLeNet speaks of its own initialisation
        torch.manual_seed(0)
        model = torchvision.models.get_model(architecture, weights=None, num_classes=7)
    assert auto_layer(model, (3, SIDE, SIDE)) == expected
    activations, gradients = output_of(model, expected, torch.randn(2, 3, SIDE, SIDE))
    assert activations.shape == gradients.shape
    assert activations.shape[2] == activations.shape[3] in range(2, 7)


def vit(side=32, patch=8):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = VisionTransformer(side, patch, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=5)
        nn.init.normal_(model.heads.head.weight)  # torchvision begins with a head of zeros, which depends on nothing
    return model


def swin():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SwinTransformer([4, 4], 16, [1, 1], [2, 2], [2, 2], num_classes=5)


def test_vit_gives_the_last_layer_where_patches_count_and_its_grid_without_the_class_token():
    model, images = vit(), torch.randn(2, 3, 32, 32)
    name = auto_layer(model, (3, 32, 32))
    assert name == "encoder.layers.encoder_layer_1.ln_1"
    seen = []
    handle = find_layer(model, name).register_forward_hook(lambda module, args, output: seen.append(output.detach()))
    activations, _ = output_of(model, name, images)
    handle.remove()
    assert activations.shape == (2, 16, 4, 4)
    torch.testing.assert_close(activations[:, :, 1, 2], seen[-1][:, 1 + 4 + 2])


def test_behind_vits_last_attention_only_the_class_token_counts_and_that_is_said():
    model, images = vit(), torch.randn(2, 3, 32, 32)
    with pytest.raises(ModelError, match=r"'encoder.ln': the logits do not depend .* or on its class token alone"):
        output_of(model, "encoder.ln", images)


def test_swin_gives_its_last_norm_and_blocks_with_channels_last_are_turned():
    model, images = swin(), torch.randn(2, 3, 32, 64)
    assert auto_layer(model, (3, 32, 64)) == "permute"
    by_name, _ = output_of(model, "norm", images)
    assert by_name.shape == (2, 32, 4, 8)
    torch.testing.assert_close(by_name, output_of(model, "permute", images)[0])


class Attention(nn.Module):
    """With layers inside that give [B, heads, T, d] and [B, heads, T, T], as timm's have."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.q_norm, self.attn_drop = nn.LayerNorm(width // heads), nn.Dropout()

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        weights = self.attn_drop((self.q_norm(q) @ k.transpose(2, 3)).softmax(dim=-1))
        return self.proj((weights @ v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm1, self.attn, self.norm2 = nn.LayerNorm(width), Attention(width, 2), nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.GELU())

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class TimmLikeViT(nn.Module):
    """Patches, leading tokens, blocks, norm; classified from the first token, or from the mean of the patches."""

    def __init__(self, leading, pool):
        super().__init__()
        self.leading, self.pool = nn.Parameter(torch.randn(leading, 16)), pool
        self.patch_embed = nn.Conv2d(3, 16, 8, 8)
        self.blocks = nn.Sequential(Block(16), Block(16))
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 5)

    def forward(self, images):
        x = self.patch_embed(images).flatten(2).transpose(1, 2)
        x = self.norm(self.blocks(torch.cat([self.leading.expand(len(x), -1, -1), x], dim=1)))
        return self.head(x[:, 0] if self.pool == "token" else x[:, len(self.leading) :].mean(dim=1))


@pytest.mark.parametrize(
    ("leading", "pool", "expected"),
    [(1, "token", "blocks.1.norm1"), (5, "token", "blocks.1.norm1"), (0, "mean", "norm"), (1, "mean", "norm")],
)
def test_timm_like_transformers(leading, pool, expected):
    model = TimmLikeViT(leading, pool)
    assert auto_layer(model, (3, 32, 48)) == expected
    assert output_of(model, expected, torch.randn(2, 3, 32, 48))[0].shape == (2, 16, 4, 6)


def test_the_projects_own_networks():
    assert auto_layer(resnet8(10), (3, 32, 32)) == "layer3"
    assert auto_layer(small_cnn(10, 4), (3, 8, 8)) == "relu3"


def convnet(*last):
    """Three classes, three channels before the last layers."""
    return nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 3, 3), relu=nn.ReLU(), **dict(last), flat=nn.Flatten()))


def test_a_map_of_class_scores_is_passed_over_but_as_many_features_as_classes_are_not():
    pool = ("pool", nn.AdaptiveAvgPool2d(1))
    assert auto_layer(convnet(("scores", nn.Conv2d(3, 3, 1)), pool), (3, 8, 8)) == "relu"
    assert auto_layer(convnet(pool, ("mix", nn.Conv2d(3, 3, 1))), (3, 8, 8)) == "relu"


def test_where_the_last_map_is_a_single_cell_an_earlier_one_is_taken():
    model = torchvision.models.resnet18(num_classes=3)
    assert auto_layer(model, (3, 32, 32)) == "layer3"


def test_without_any_map_it_is_refused():
    with pytest.raises(ModelError, match=r"auto finds no layer of Sequential.*name one"):
        auto_layer(nn.Sequential(nn.Flatten(), nn.Linear(27, 4)), (3, 3, 3))


def test_leaves_the_model_and_the_random_state_as_they_were():
    model, state = resnet8(4), torch.get_rng_state()
    model.layer1.eval()
    modes = [module.training for module in model.modules()]
    flags = [parameter.requires_grad for parameter in model.parameters()]
    means = {name: buffer.clone() for name, buffer in model.named_buffers()}
    seen = []
    handle = model.register_forward_hook(lambda module, args, output: seen.append(output))
    auto_layer(model, (3, 16, 16))
    assert seen == []  # a hook on the model waits for the logits of real images
    handle.remove()
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(buffer, means[name]) for name, buffer in model.named_buffers())
    assert not any(module._forward_hooks for module in model.modules())
    assert torch.equal(torch.get_rng_state(), state)


def test_is_asked_of_the_network_once_for_each_image_size():
    model, calls = resnet8(4), []
    model.linear.register_forward_hook(lambda module, args, output: calls.append(1))
    assert [auto_layer(model, (3, side, side)) for side in (16, 16, 24)] == ["layer3"] * 3
    assert len(calls) == 2


def test_layer_names_resolve_lists_and_auto():
    assert layer_names(resnet8(4), ["layer2", "auto"], (3, 16, 16)) == ["layer2", "layer3"]


@pytest.mark.parametrize("layer", [[], ["layer3", "auto"], ["layer1", "layer1"]])
def test_no_layer_or_the_same_twice_is_refused(layer):
    with pytest.raises(ModelError, match="one name or a list of different names"):
        layer_names(resnet8(4), layer, (3, 16, 16))
