"""guided_backprop, deconvnet, guided_gradcam: by hand, parity with captum and TorchRay, every call of a ReLU."""

import captum.attr
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from roarline.attribution.gradient import gradient
from roarline.attribution.guided import deconvnet, guided_backprop, guided_gradcam
from roarline.errors import MethodError
from tests.attribution.networks import NAMES, network


class OneHidden(nn.Module):
    """logit 0 = Σ v · relu(w · x) for one pixel x; the ReLU is called as ``call`` says."""

    def __init__(self, call):
        super().__init__()
        self.call, self.module, self.module6 = call, nn.ReLU(), nn.ReLU6(inplace=True)
        self.inplace = nn.ReLU(inplace=True)
        self.w = nn.Parameter(torch.tensor([1.0, -2.0, 3.0, 0.5]))
        self.v = nn.Parameter(torch.tensor([2.0, 5.0, -1.0, 4.0]))

    def forward(self, images):
        hidden = images.flatten(1) * self.w  # [B, 4] from one value
        return (self.call(self, hidden) * self.v).sum(dim=1, keepdim=True)


def _relu_underscore(model, hidden):
    hidden = hidden * 1
    hidden.relu_()
    return hidden


CALLS = {
    "module": lambda model, hidden: model.module(hidden),
    "module in place": lambda model, hidden: model.inplace(hidden * 1),
    "functional": lambda model, hidden: functional.relu(hidden),
    "functional in place": lambda model, hidden: functional.relu(hidden * 1, inplace=True),
    "torch.relu": lambda model, hidden: torch.relu(hidden),
    "method": lambda model, hidden: hidden.relu(),
    "method in place, result unused": _relu_underscore,
    "relu6 module": lambda model, hidden: model.module6(hidden * 1),
    "functional relu6": lambda model, hidden: functional.relu6(hidden),
    "clamp": lambda model, hidden: hidden.clamp(min=0),
    "clamp in place": lambda model, hidden: (hidden * 1).clamp_(0),
    "torch.clamp": lambda model, hidden: torch.clamp(hidden, 0.0, None),
    "clip": lambda model, hidden: torch.clip(hidden, min=0),
    "clamp_min": lambda model, hidden: torch.clamp_min(hidden, 0),
    "threshold": lambda model, hidden: functional.threshold(hidden, 0.0, 0.0, inplace=False),
    "threshold module": lambda model, hidden: nn.Threshold(0, 0, inplace=True)(hidden * 1),
}


@pytest.mark.parametrize("call", CALLS)
def test_by_hand_however_the_relu_is_called(call):
    """x = 1: units 0, 2 and 3 are active; v passes back 2, -1 and 4, of which -1 is stopped: 2 · 1 + 4 · 0.5 = 4."""
    model = OneHidden(CALLS[call])
    images = torch.ones(1, 1, 1, 1)
    assert guided_backprop(model, images, torch.tensor([0])).item() == 4.0
    assert gradient(model, images, torch.tensor([0])).item() == 2.0 - 3.0 + 2.0


@pytest.mark.parametrize("call", CALLS)
def test_deconvnet_by_hand_however_the_relu_is_called(call):
    """v passes back 2, 5, -1 and 4, of which -1 is stopped, active or not: 2 · 1 + 5 · (-2) + 4 · 0.5 = -6."""
    assert deconvnet(OneHidden(CALLS[call]), torch.ones(1, 1, 1, 1), torch.tensor([0])).item() == -6.0


@pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU")  # captum's own
def test_equals_captums_where_all_relus_are_modules(convnet, images, targets):
    """One of them is called twice."""
    expected = captum.attr.GuidedBackprop(convnet.eval()).attribute(images.clone().requires_grad_(), target=targets)
    torch.testing.assert_close(guided_backprop(convnet, images, targets), expected.detach())


@pytest.mark.parametrize("row", [0, 1])
def test_equals_torchrays(backprop_case, row):
    maps = guided_backprop(backprop_case.model, backprop_case.images, backprop_case.targets[row])
    np.testing.assert_allclose(
        maps.abs().amax(dim=1, keepdim=True).numpy(),
        backprop_case.arrays["out_guided_backprop"][row],
        rtol=1e-7,
        atol=1e-12,
    )


@pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU")  # captum's own
def test_deconvnet_equals_captums_where_all_relus_are_modules(convnet, images, targets):
    expected = captum.attr.Deconvolution(convnet.eval()).attribute(images.clone().requires_grad_(), target=targets)
    torch.testing.assert_close(deconvnet(convnet, images, targets), expected.detach())


@pytest.mark.parametrize("row", [0, 1])
def test_deconvnet_equals_torchrays(backprop_case, row):
    maps = deconvnet(backprop_case.model, backprop_case.images, backprop_case.targets[row])
    np.testing.assert_allclose(
        maps.abs().amax(dim=1, keepdim=True).numpy(), backprop_case.arrays["out_deconvnet"][row], rtol=1e-7, atol=1e-12
    )


@pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU")  # captum's own
@pytest.mark.parametrize("layer", ["conv2", "pool"])
def test_guided_gradcam_equals_captums(convnet, images, targets, layer):
    explainer = captum.attr.GuidedGradCam(convnet.eval(), getattr(convnet, layer))
    expected = explainer.attribute(images.clone().requires_grad_(), target=targets, interpolate_mode="bilinear")
    assert expected.abs().sum() > 0
    torch.testing.assert_close(guided_gradcam(convnet, images, targets, layer=layer), expected.detach())


@pytest.mark.parametrize("name", NAMES)
def test_on_architectures_in_place_or_not_or_refused(name):
    """Deconvnet of a network whose ReLUs write in place is that of the network whose ReLUs don't."""
    model, images = network(name)
    targets = torch.tensor([1, 3])
    if name in ("efficientnet_b0", "convnext_tiny", "vit_b_16"):
        for method in (deconvnet, guided_backprop, guided_gradcam):
            with pytest.raises(MethodError, match="called no ReLU"):
                method(model, images, targets)
        return
    maps = [method(model, images, targets) for method in (deconvnet, guided_backprop, guided_gradcam)]
    for module in model.modules():
        if isinstance(module, nn.ReLU | nn.ReLU6):
            module.inplace = False
    for before, method in zip(maps, (deconvnet, guided_backprop, guided_gradcam), strict=True):
        torch.testing.assert_close(before, method(model, images, targets), rtol=0, atol=0)
        assert before.abs().sum() > 0


def test_gradients_that_reach_a_shared_tensor_by_two_ways_are_not_clamped_for_the_other():
    class Skip(nn.Module):
        def forward(self, images):
            x = images.flatten(1)
            return (functional.relu(x) - 3 * x).sum(dim=1, keepdim=True)

    maps = guided_backprop(Skip(), torch.ones(1, 1, 1, 2), torch.tensor([0]))
    torch.testing.assert_close(maps, torch.full((1, 1, 1, 2), -2.0))


def test_a_network_without_relu_is_refused(linear, images, targets):
    with pytest.raises(MethodError, match="called no ReLU"):
        guided_backprop(linear, images, targets)


@pytest.mark.parametrize("method", [guided_backprop, deconvnet, guided_gradcam])
def test_a_relu_that_does_not_see_the_image_does_not_count(method):
    """Swin v2 has ReLUs in the network that gives its position bias, and nowhere else."""
    model, images = network("swin_v2_t")
    assert any(isinstance(module, nn.ReLU) for module in model.modules())
    with pytest.raises(MethodError, match="called no ReLU between image and logits"):
        method(model, images, torch.tensor([1, 3]))


def test_relus_are_plain_again_afterwards(convnet, images, targets):
    convnet.eval()
    before = gradient(convnet, images, targets)
    guided_backprop(convnet, images, targets)
    torch.testing.assert_close(gradient(convnet, images, targets), before, rtol=0, atol=0)
