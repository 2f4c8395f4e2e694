"""The CAM family against pytorch-grad-cam, and what the papers say about its maps; several layers; transformers."""

import cv2
import numpy as np
import pytest
import pytorch_grad_cam
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from roarline.attribution import cam
from roarline.attribution.cam_ablation import ablation_cam
from roarline.attribution.cam_score import score_cam
from roarline.errors import ModelError
from roarline.imaging.cam import resize_map
from roarline.models.layers import find_layer
from tests.models.test_auto_layer import swin, vit

GRADIENT_METHODS = [cam.gradcam, cam.gradcam_plus_plus, cam.hirescam, cam.layercam, cam.xgradcam]
REFERENCES = {
    cam.gradcam: pytorch_grad_cam.GradCAM,
    cam.gradcam_plus_plus: pytorch_grad_cam.GradCAMPlusPlus,
    cam.hirescam: pytorch_grad_cam.HiResCAM,
    cam.layercam: pytorch_grad_cam.LayerCAM,
    cam.xgradcam: pytorch_grad_cam.XGradCAM,
}


@pytest.fixture
def steep(convnet):
    """Gradients so large that the 1e-6 which pytorch-grad-cam adds to Grad-CAM++'s denominator does not count."""
    with torch.no_grad():
        convnet.linear.weight *= 10_000
    return convnet.eval()


def stretched(maps):
    """Each map from 0 to 1, as pytorch-grad-cam returns them; one that is the same everywhere is 0."""
    lowest, highest = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    return (maps - lowest) / torch.where(highest == lowest, 1, highest - lowest)


def reference(explainer, model, layers, images, targets, **settings):
    modules = [find_layer(model, layer) for layer in layers]
    with explainer(model=model, target_layers=modules, **settings) as explain:
        maps = explain(images, [ClassifierOutputTarget(target) for target in targets.tolist()])
    return torch.from_numpy(maps).double()


@pytest.mark.parametrize("layer", ["norm", "pool", "conv2"])
@pytest.mark.parametrize("method", GRADIENT_METHODS, ids=lambda method: method.__name__)
def test_equals_pytorch_grad_cams(steep, images, targets, method, layer):
    """Up to 1e-5 of a map's range: theirs is float32, and 1e-7 is added to what it is divided by."""
    ours = stretched(method(steep, images, targets, layer=layer, relu=True))
    expected = reference(REFERENCES[method], steep, [layer], images, targets)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", [cam.gradcam, cam.hirescam, cam.xgradcam], ids=lambda method: method.__name__)
def test_the_mean_of_several_layers_equals_pytorch_grad_cams(steep, images, targets, method):
    """Theirs also takes each map's smallest value away; here it is 0 in each of the layers."""
    layers = ["norm", "conv2"]
    singles = [method(steep, images, targets, layer=layer, relu=True) for layer in layers]
    assert all(bool((single.amin(dim=(1, 2)) == 0).all()) for single in singles)
    ours = stretched(method(steep, images, targets, layer=layers, relu=True))
    torch.testing.assert_close(ours, reference(REFERENCES[method], steep, layers, images, targets), rtol=0, atol=1e-5)


def test_eigen_cam_equals_pytorch_grad_cams_centred_one_up_to_its_free_sign(steep, images, targets):
    """At a layer of the image's size: theirs is clamped before it is resized."""
    ours = cam.eigen_cam(steep, images, targets, layer="norm", centre=True)
    expected = reference(pytorch_grad_cam.EigenCAM, steep, ["norm"], images, targets)
    for signed, theirs in zip(ours[:, None], expected[:, None], strict=True):
        either = [stretched((sign * signed).clamp(min=0)) for sign in (1, -1)]
        assert min(float((one - theirs).abs().max()) for one in either) < 1e-5


@pytest.mark.parametrize("size", [(224, 224), (31, 50), (5, 4)])
def test_bilinear_resizing_is_cv2s(size):
    """Both of them put pixel centres at halves, also where they shrink; cv2 rounds its weights to float32."""
    maps = torch.rand(2, 7, 9, generator=torch.Generator().manual_seed(0))
    expected = np.stack([cv2.resize(one, size[::-1], interpolation=cv2.INTER_LINEAR) for one in maps.numpy()])
    torch.testing.assert_close(resize_map(maps, size), torch.from_numpy(expected), rtol=0, atol=1e-5)


def test_before_a_global_mean_and_a_linear_layer_hirescams_cells_sum_to_the_logit(convnet, images, targets):
    logits = convnet.eval()(images).gather(1, targets[:, None])[:, 0] - convnet.linear.bias[targets]
    maps = cam.hirescam(convnet, images, targets, layer="relu")  # 4 × 4 cells, each resized to 2 × 2 px
    torch.testing.assert_close(maps.sum(dim=(1, 2)) / 4, logits.detach())


@pytest.mark.parametrize("method", [cam.xgradcam, cam.layercam, cam.hirescam], ids=lambda method: method.__name__)
def test_before_a_global_mean_and_a_linear_layer_all_are_the_class_activation_map(convnet, images, targets, method):
    """Weights of the class above 0: there every gradient is the same positive number, pooled or not."""
    with torch.no_grad():
        convnet.linear.weight.abs_()
    expected = cam.gradcam(convnet.eval(), images, targets, layer="relu")
    torch.testing.assert_close(method(convnet, images, targets, layer="relu"), expected)


@pytest.mark.parametrize("method", [*GRADIENT_METHODS, cam.eigen_cam], ids=lambda method: method.__name__)
@pytest.mark.parametrize("fuse", ["mean", "max"])
def test_several_layers_are_scaled_by_their_largest_value_and_fused(convnet, images, targets, method, fuse):
    """At the image's own size, where nothing is resized, the fused map can be had from the single ones."""
    layers = ["conv1", "norm"]
    convnet.eval()
    singles = [method(convnet, images, targets, layer=layer) for layer in layers]
    scaled = torch.stack([single / single.abs().amax(dim=(1, 2), keepdim=True) for single in singles])
    expected = scaled.mean(dim=0) if fuse == "mean" else scaled.amax(dim=0)
    torch.testing.assert_close(method(convnet, images, targets, layer=layers, fuse=fuse), expected)


@pytest.mark.parametrize("resize", ["bilinear", "align_corners", "bicubic"])
def test_maps_are_resized_as_asked(convnet, images, targets, resize):
    at_half_size = cam.hirescam(convnet.eval(), images, targets, layer="pool", resize=resize)
    assert at_half_size.shape == (4, 8, 8)
    others = [how for how in ("bilinear", "align_corners", "bicubic") if how != resize]
    for how in others:
        assert not torch.allclose(at_half_size, cam.hirescam(convnet, images, targets, layer="pool", resize=how))


ALL = [*GRADIENT_METHODS, cam.eigen_cam, score_cam, ablation_cam]


def shared(method, rows):
    return {"image_index": list(range(rows))} if method in (score_cam, ablation_cam) else {}


@pytest.mark.parametrize("method", ALL, ids=lambda method: method.__name__)
@pytest.mark.parametrize("build", [vit, swin])
def test_transformers_give_maps_of_their_patches(method, build):
    """Tokens of a ViT, channels-last blocks of a Swin."""
    model = build().eval().requires_grad_(False)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    maps = method(model, images, torch.tensor([1, 2]), relu=False, **shared(method, 2))
    assert maps.shape == (2, 32, 32)
    assert maps.isfinite().all()
    assert (maps.amax(dim=(1, 2)) > maps.amin(dim=(1, 2))).all()


@pytest.mark.parametrize("method", ALL, ids=lambda method: method.__name__)
def test_in_mixed_precision_maps_are_summed_in_float32(convnet, images, targets, method):
    """bfloat16 has 8 bits: maps summed and resized in it would have few different values, and pixels would tie."""
    model, images = convnet.float().eval().requires_grad_(False), images.float()
    with torch.autocast("cpu", torch.bfloat16):
        maps = method(model, images, targets, layer="norm", **shared(method, 4))
    assert maps.dtype == torch.float32
    assert not torch.equal(maps, maps.bfloat16().float())


@pytest.mark.parametrize("method", ALL, ids=lambda method: method.__name__)
def test_a_layer_without_places_is_refused(convnet, images, targets, method):
    with pytest.raises(ModelError, match=r"layer 'linear' gives shape \[4, 5\], expected spatial maps"):
        method(convnet.eval(), images, targets, layer="linear", **shared(method, 4))


@pytest.mark.parametrize("method", ALL, ids=lambda method: method.__name__)
def test_a_map_is_where_its_cause_is(method):
    """A bright spot in the upper right corner, seen by a convolution: nothing is transposed or upside down."""
    model = nn.Sequential(
        nn.Conv2d(3, 2, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.1)
        model[0].bias.zero_()
        model[0].weight[1] *= 2
    images = torch.zeros(1, 3, 12, 16)
    images[:, :, 1:4, 12:15] = 1
    maps = method(model.eval(), images, torch.tensor([0]), layer="1", **shared(method, 1))
    row, column = divmod(int(maps[0].argmax()), 16)
    assert (row, column) == (2, 13)
