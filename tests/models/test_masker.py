"""The masker: the decoder of the original code, layers by name, areas and classes as further channels, drawn masks."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torchvision.models import VisionTransformer

from roarline.errors import ModelError
from roarline.models.build import build
from roarline.models.layers import find_layer
from roarline.models.masker import Masker, binary_concrete
from roarline.models.masker_layers import LayerShape, masker_layers
from tests.golden_cases import case

# float64, but for sums of up to 24 · 9 products in another order
EXACT = {"rtol": 1e-7, "atol": 1e-9}
CASES = {
    "s3_masker_all": {"layers": [0, 1, 2, 3, 4], "unchanged": ["0"]},
    "s3_masker_layer0": {"layers": [0]},
    "s3_masker_layers34": {"layers": [3, 4]},
    "s3_masker_layers12_bilinear": {"layers": [1, 2], "enlargement": "bilinear"},
    "s3_masker_prob34": {"layers": [3, 4], "area_channel": True},
    "s3_masker_classids4": {"layers": [4], "num_classes": 20},
    "s3_masker_gumbel_eval": {"layers": [3, 4], "output": "gumbel_hard"},
}


def golden(name, **changes):
    """The masker of a case with its weights, its activations and its arrays."""
    arrays, params = case(name)
    settings = {**CASES[name], **changes}
    numbers = settings.pop("layers")
    activations = [torch.from_numpy(arrays[f"in_act{number}"]) for number in numbers]
    shapes = [
        LayerShape(str(number), activation.shape[1], tuple(activation.shape[2:]))
        for number, activation in zip(numbers, activations, strict=True)
    ]
    masker = Masker(shapes, (64, 64), channels=params["out_channels"], cell_px=4, **settings).double()
    weights = {}
    for key in (key for key in arrays if key.startswith("w_")):
        head, *rest = key.removeprefix("w_").split("__")
        if head.startswith("conv1x1_"):
            head = f"blocks.{numbers.index(int(head.removeprefix('conv1x1_')))}"
        elif head == "final":
            rest = rest[1:]
        else:
            head, rest = "classes", rest[1:]
        weights[".".join([head, *rest])] = torch.from_numpy(arrays[key])
    lacking, unknown = masker.load_state_dict(weights, strict=False)
    assert not unknown
    assert all(key.endswith("num_batches_tracked") for key in lacking)
    asked = {}
    if masker.area_channel:
        asked["areas_B"] = torch.from_numpy(arrays["in_use_p"])
    if masker.classes is not None:
        asked["classes_B"] = torch.from_numpy(arrays["in_class_ids"])
    return masker, activations, asked, arrays


@pytest.mark.parametrize("name", CASES)
def test_equals_the_original_in_eval_mode(name):
    masker, activations, asked, arrays = golden(name)
    found = masker.eval()(activations, **asked)
    torch.testing.assert_close(found, torch.from_numpy(arrays["out_mask_eval"]).double(), **EXACT)


@pytest.mark.parametrize("name", [name for name in CASES if name != "s3_masker_gumbel_eval"])
def test_equals_the_original_in_training_mode(name):
    masker, activations, asked, arrays = golden(name)
    found = masker.train()(activations, **asked)
    torch.testing.assert_close(found, torch.from_numpy(arrays["out_mask_train"]), **EXACT)


@pytest.mark.parametrize("name", [name for name in CASES if name != "s3_masker_gumbel_eval"])
def test_logits_are_those_of_the_original(name):
    masker, activations, asked, arrays = golden(name, output="logits")
    found = masker.eval()(activations, **asked)
    torch.testing.assert_close(found, torch.from_numpy(arrays["out_logits_eval"]), **EXACT)


def test_the_mask_never_trains_the_classifier():
    masker, activations, _, _ = golden("s3_masker_layers34")
    activations = [activation.requires_grad_() for activation in activations]
    masker(activations).sum().backward()
    assert all(activation.grad is None for activation in activations)
    assert all(parameter.grad is not None for parameter in masker.parameters())


def test_b3_11_areas_and_classes_also_where_a_layer_is_unchanged():
    shapes = [LayerShape("stem", 4, (8, 8)), LayerShape("deep", 6, (4, 4))]
    masker = Masker(shapes, (32, 32), unchanged=["stem"], area_channel=True, num_classes=5, channels=3).eval()
    activations = [torch.rand(2, 4, 8, 8), torch.rand(2, 6, 4, 4)]

    def masks(area, label):
        return masker(activations, areas_B=torch.full((2,), area), classes_B=torch.full((2,), label))

    assert masks(0.5, 1).shape == (2, 1, 32, 32)
    assert not torch.equal(masks(0.5, 1), masks(0.25, 1))
    assert not torch.equal(masks(0.5, 1), masks(0.5, 2))


@pytest.mark.parametrize("enlargement", ["nearest", "bilinear"])
def test_b3_10_the_kind_of_enlargement_is_the_maskers_own(enlargement):
    cells = torch.tensor([[[[0.0, 1.0]]]])
    masker = Masker([LayerShape("a", 1, (1, 2))], (4, 8), enlargement=enlargement)
    rows = masker.enlarge(cells)[0, 0]
    expected = [0, 0, 0, 0, 1, 1, 1, 1] if enlargement == "nearest" else [0, 0, 1 / 8, 3 / 8, 5 / 8, 7 / 8, 1, 1]
    torch.testing.assert_close(rows, torch.tensor([expected] * 4, dtype=torch.float32))


def test_the_concrete_variable_is_one_as_often_as_the_logit_says():
    # P(u-noise > -logit) = sigmoid(logit), for whatever temperature; 40,000 draws have a standard error below 0.0025
    logits = torch.tensor([-2.0, 0.0, 1.0]).repeat(40_000, 1)
    drawn = binary_concrete(logits, 0.1, torch.Generator().manual_seed(0))
    torch.testing.assert_close((drawn > 0.5).float().mean(0), torch.sigmoid(logits[0]), atol=0.0125, rtol=0)


def test_a_hard_mask_has_the_gradient_of_the_soft_one():
    gradients, values = [], []
    for output in ("gumbel_soft", "gumbel_hard"):
        masker, activations, _, _ = golden("s3_masker_gumbel_eval", output=output)
        masks = masker.train()(activations, generator=torch.Generator().manual_seed(3))
        masks.square().sum().backward() if output == "gumbel_soft" else (2 * values[0] * masks).sum().backward()
        gradients.append(masker.final.weight.grad)
        values.append(masks.detach())
    torch.testing.assert_close(*gradients, **EXACT)
    torch.testing.assert_close(values[1], (values[0] > 0.5).double(), **EXACT)


def test_a_learned_temperature_is_learned():
    masker, activations, _, _ = golden("s3_masker_gumbel_eval")
    learning = Masker(masker.layers, (64, 64), output="gumbel_soft", temperature=None).double().train()
    assert learning.temperature.item() == pytest.approx(0.1)
    learning(activations, generator=torch.Generator().manual_seed(0)).sum().backward()
    assert learning.temperature.grad.abs() > 0


def test_drawn_masks_follow_their_generator():
    masker, activations, _, _ = golden("s3_masker_gumbel_eval")
    one, same, other = (masker.train()(activations, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    with pytest.raises(ModelError, match="give a generator"):
        masker(activations)


@given(batch=st.integers(1, 4), chosen=st.integers(0, 3))
def test_an_images_mask_does_not_depend_on_its_batch(batch, chosen):
    masker, activations, _, _ = golden("s3_masker_layers34")
    rows = [activation[: 1 + batch % 3] for activation in activations]
    row = chosen % len(rows[0])
    alone = masker.eval()([activation[row : row + 1] for activation in rows])
    assert alone.shape == (1, 1, 64, 64)  # B3.13: a batch of one keeps its axis
    torch.testing.assert_close(alone, masker(rows)[row : row + 1], **EXACT)


ARCHITECTURES = {
    "torchvision:resnet18": (["layer3", "layer4"], 64, [(4, 4), (2, 2)], 4),
    "torchvision:vgg11": (["features.19", "features"], 64, [(4, 4), (2, 2)], 4),
    "torchvision:squeezenet1_1": (["features.7", "features"], 96, [(11, 11), (5, 5)], 4),
    "torchvision:mobilenet_v2": (["features.13", "features"], 64, [(4, 4), (2, 2)], 4),
    "narrow_resnet8": (["layer2", "layer3"], 32, [(16, 16), (8, 8)], 2),
    "small_cnn": (["relu1", "relu3"], 20, [(20, 20), (10, 10)], 1),
}


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_auto_takes_the_last_layer_and_the_last_finer_one(arch):
    names, side, sizes, cell_px = ARCHITECTURES[arch]
    model = build(arch, {}, 4, input_size=None, seed=0).eval()
    found = masker_layers(model, "auto", (side, side))
    assert [layer.name for layer in found] == names
    assert [layer.size for layer in found] == sizes
    assert all(isinstance(find_layer(model, layer.name), nn.Module) for layer in found)
    assert Masker(found, (side, side)).grid == (-(-side // cell_px), -(-side // cell_px))


def test_the_five_stages_of_a_resnet():
    model = build("torchvision:resnet18", {}, 4, input_size=None, seed=0)
    found = masker_layers(model, ["maxpool", "layer1", "layer2", "layer3", "layer4"], (64, 96))
    assert [layer.channels for layer in found] == [64, 64, 128, 256, 512]
    assert [layer.stride_px((64, 96)) for layer in found] == [4, 4, 8, 16, 32]
    masker = Masker(found, (64, 96), unchanged=["maxpool"])
    assert masker.final.in_channels == 320  # 5 · 64, as published
    assert masker.grid == (16, 24)
    assert model.training


def test_a_transformer_has_one_layer():
    model = VisionTransformer(32, 8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=16, num_classes=4)
    nn.init.normal_(model.heads[0].weight)  # 0 at first, so that the logits would depend on nothing
    (layer,) = masker_layers(model, "auto", (32, 32))
    assert layer == LayerShape("encoder.layers.encoder_layer_1.ln_1", 16, (4, 4))


@pytest.mark.parametrize(
    ("layers", "settings", "message"),
    [
        ([], {}, "at least one"),
        ([LayerShape("fine", 3, (16, 16))], {"cell_px": 4}, "'fine' has 16 × 16 cells, more than the mask's 8 × 8"),
        ([LayerShape("a", 3, (8, 8))], {"unchanged": ["b"]}, "'b' is none of the layers a"),
    ],
)
def test_layers_that_do_not_fit_are_named(layers, settings, message):
    with pytest.raises(ModelError, match=message):
        Masker(layers, (32, 32), **settings)


@pytest.mark.parametrize("given_", [{"areas_B": torch.ones(3)}, {"classes_B": torch.zeros(3, dtype=torch.int64)}])
def test_what_is_not_asked_for_is_refused(given_):
    masker, activations, _, _ = golden("s3_masker_layers34")
    with pytest.raises(ModelError, match="expected None"):
        masker(activations, **given_)


def test_activations_of_another_network_are_refused():
    masker, activations, _, _ = golden("s3_masker_layers34")
    with pytest.raises(ModelError, match="another classifier or input size"):
        masker(activations[::-1])
