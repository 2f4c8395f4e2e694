"""Excitation backprop: TorchRay's arrays, probabilities that sum to 1, rules by hand, what is corrected, refusals."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from roarline.attribution.excitation import contrastive_excitation_backprop, excitation_backprop
from roarline.errors import MethodError, ModelError
from roarline.imaging.cam import resize_map
from tests.attribution.networks import NAMES, network

TARGETS = torch.tensor([1, 3])
LAYERS = {
    "resnet18": ("layer2", "avgpool"), "vgg11_bn": ("features.7", "classifier.1"),
    "mobilenet_v2": ("features.2", "features.17"),
    "densenet121": ("features.denseblock1", "features.denseblock3"), "squeezenet1_1": ("features.2", "features.12"),
}  # fmt: skip


@pytest.mark.parametrize("compat", ["corrected", "original"])
@pytest.mark.parametrize("row", [0, 1])
@pytest.mark.parametrize("layer", ["relu2", "pool1"])
def test_equals_torchrays(backprop_case, layer, row, compat):
    """Theirs is the map of the layer's size, here resized; there are no activations below 0."""
    model, images, targets = backprop_case.model, backprop_case.images, backprop_case.targets[row]
    maps = excitation_backprop(model, images, targets, layer=layer, compat=compat)
    expected = torch.from_numpy(backprop_case.arrays[f"out_excitation_backprop_{layer}"][row])[:, 0]
    np.testing.assert_allclose(maps.numpy(), resize_map(expected, (32, 32)).numpy(), rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("compat", ["corrected", "original"])
@pytest.mark.parametrize("row", [0, 1])
@pytest.mark.parametrize(("layer", "contrast"), [("pool1", "relu2"), ("relu2", "gap")])
def test_contrastive_equals_torchrays(backprop_case, layer, contrast, row, compat):
    model, images, targets = backprop_case.model, backprop_case.images, backprop_case.targets[row]
    maps = contrastive_excitation_backprop(model, images, targets, layer=layer, contrast_layer=contrast, compat=compat)
    expected = torch.from_numpy(backprop_case.arrays[f"out_contrastive_ebp_{layer}_{contrast}"][row])[:, 0]
    np.testing.assert_allclose(maps.numpy(), resize_map(expected, (32, 32)).numpy(), rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("row", [0, 1])
def test_classifier_input_is_the_layer_before_the_classifier(backprop_case, row):
    model, images, targets = backprop_case.model, backprop_case.images, backprop_case.targets[row]
    torch.testing.assert_close(
        contrastive_excitation_backprop(model, images, targets, layer="relu2"),
        contrastive_excitation_backprop(model, images, targets, layer="relu2", contrast_layer="flat"),
        rtol=0,
        atol=0,
    )


@pytest.mark.parametrize("name", NAMES)
def test_on_architectures_probabilities_or_refused(name):
    """They are 0 or more and sum to 1 in a ResNet and a VGG, whose units all have inputs that excite them."""
    model, images = network(name)
    if name not in LAYERS:
        for method in (excitation_backprop, contrastive_excitation_backprop):
            with pytest.raises(
                MethodError,
                match=r"calls (silu|layer_norm|multi_head_attention_forward), for which the method has no rule",
            ):
                method(model, images, TARGETS)
        return
    layer, contrast = LAYERS[name]
    maps = excitation_backprop(model, images, TARGETS, layer=layer)
    side = cells(model, layer, images)
    assert maps.min() >= 0
    totals = maps.sum((1, 2)) / (images.shape[2] / side) ** 2
    assert (totals > 0.01).all()
    assert (totals < 1.001).all()  # SqueezeNet's 23 cells do not divide 48 px, and resizing counts some a little more
    if name in ("resnet18", "vgg11_bn"):
        torch.testing.assert_close(totals, torch.ones(2).double())
    for contrast_layer in ("classifier_input", contrast):
        against = contrastive_excitation_backprop(model, images, TARGETS, layer=layer, contrast_layer=contrast_layer)
        assert against.isfinite().all()
        assert against.min() >= 0
        assert against.max() > 0


def cells(model, layer, images):
    """Side of the layer's maps."""
    shapes = []
    handle = model.get_submodule(layer).register_forward_hook(lambda module, args, output: shapes.append(output.shape))
    try:
        model(images)
    finally:
        handle.remove()
    return shapes[0][-1]


class Small(nn.Module):
    """From a layer that hands images of 1 × 2 cells through to one logit, by way of ``tail``."""

    def __init__(self, tail):
        super().__init__()
        self.layer, self.tail = nn.Identity(), tail
        self.last = nn.Linear(1, 1)
        nn.init.ones_(self.last.weight)

    def forward(self, images):
        return self.last(self.tail(self.layer(images)).flatten(1).mean(1, keepdim=True))


def of_small(tail, values, compat="corrected"):
    images = torch.tensor(values).reshape(1, 1, 1, 2)
    return excitation_backprop(Small(tail), images, torch.tensor([0]), layer="layer", compat=compat).flatten().tolist()


def test_mean_and_sum_by_hand():
    """Cells 1 and 3, doubled by a sum with themselves: 1/4 and 3/4."""
    assert of_small(lambda x: x + x, [1.0, 3.0]) == pytest.approx([0.25, 0.75])


def test_sum_with_a_term_below_zero():
    """Terms x and 2 - 2x at x = (0.5, 3): (0.5, 1) and (3, -4), behind them a ReLU: all goes to cell 0, a third
    through its own term. Corrected, the term below 0 gets nothing; here it has nothing to get, the sum being below 0.
    """
    twice = nn.Conv2d(1, 1, 1)
    nn.init.constant_(twice.weight, -2.0)
    nn.init.constant_(twice.bias, 2.0)
    # The second term's convolution has no excitatory weight, and what it gets is lost.
    for compat in ("corrected", "original"):
        assert of_small(lambda x: torch.relu(x + twice(x)), [0.5, 3.0], compat) == pytest.approx([1 / 3, 0.0])


def test_negative_term_corrected_and_original():
    """x = (1, 2), the sum x + (x - 1.5) is (0.5, 2.5), shared out as TorchRay does: 1/0.5 and -0.5/0.5 of the first."""
    tail = lambda x: torch.relu(x + (x * 1 - 1.5))  # noqa: E731
    corrected, original = of_small(tail, [1.0, 2.0]), of_small(tail, [1.0, 2.0], "original")
    assert corrected == pytest.approx([0.5 / 3, 2.5 / 3])
    assert original == pytest.approx([0.5 / 3, 2.5 / 3])  # what the parts get adds up again where both are of x

    class Parts(nn.Module):
        def forward(self, x):
            return torch.relu(x + (x[..., [1, 1]] * 0 - 0.5))

    # The other term reads cell 1 alone: originally 1/0.5 of cell 0's share goes to cell 0, and -1 times it to cell 1.
    shares = [0.5 / 2, 1.5 / 2]
    assert of_small(Parts(), [1.0, 2.0]) == pytest.approx(shares)
    assert of_small(Parts(), [1.0, 2.0], "original") == pytest.approx(
        [shares[0] * 2, -shares[0] + shares[1] * (2 / 1.5 - 0.5 / 1.5)]
    )


def test_a_sum_of_nothing_is_nan_in_the_original_alone():
    """0 / 0: cell 0 is 0 in both terms."""
    assert of_small(lambda x: x + x, [0.0, 2.0]) == [0.0, 1.0]
    assert np.isnan(of_small(lambda x: x + x, [0.0, 2.0], "original")[0])


def test_a_relu6_at_its_upper_end_is_active():
    assert of_small(nn.ReLU6(), [6.0, 12.0]) == pytest.approx([0.5, 0.5])
    assert of_small(nn.ReLU6(), [2.0, 12.0], "original") == pytest.approx([0.25, 0.0])


def test_predicted_class(backprop_case):
    model, images = backprop_case.model, backprop_case.images
    predicted = torch.full((2,), -1)
    torch.testing.assert_close(
        excitation_backprop(model, images, predicted),
        excitation_backprop(model, images, model(images).argmax(1)),
        rtol=0,
        atol=0,
    )


@pytest.mark.parametrize(("layer", "contrast"), [("relu2", "pool1"), ("conv2", "relu1")])
def test_layers_in_the_wrong_order_are_refused(backprop_case, layer, contrast):
    with pytest.raises(ModelError, match=rf"layer '{layer}' comes after the contrast layer '{contrast}'"):
        contrastive_excitation_backprop(
            backprop_case.model, backprop_case.images, TARGETS, layer=layer, contrast_layer=contrast
        )


def test_layer_without_places_is_refused(backprop_case):
    with pytest.raises(ModelError, match=r"layer 'gap' gives shape .* expected spatial maps"):
        excitation_backprop(backprop_case.model, backprop_case.images, TARGETS, layer="gap")


def test_a_gate_is_refused(images, targets):
    model = Small(lambda x: functional.relu(x) * torch.sigmoid(x))
    with pytest.raises(MethodError, match="calls sigmoid, for which the method has no rule"):
        excitation_backprop(model, torch.ones(1, 1, 1, 2), torch.tensor([0]), layer="layer")
    model = Small(lambda x: x * x)
    with pytest.raises(MethodError, match="calls mul, for which the method has no rule where both operands"):
        excitation_backprop(model, torch.ones(1, 1, 1, 2), torch.tensor([0]), layer="layer")


def test_unknown_compat_is_refused(backprop_case):
    with pytest.raises(MethodError, match="expected corrected or original"):
        excitation_backprop(backprop_case.model, backprop_case.images, TARGETS, compat="faithful")
