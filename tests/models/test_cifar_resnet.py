"""ResNet-8 against the original ROAR code's outputs, and the family's shape."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from roarline.models import cifar_resnet
from roarline.models.layers import spatial_layers
from tests.golden_recipes import recipe_tensor

GOLDEN = Path(__file__).parent.parent / "golden" / "s4_resnet8.npz"


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    return dict(np.load(GOLDEN, allow_pickle=False))


@pytest.fixture
def resnet8(golden: dict[str, np.ndarray]) -> cifar_resnet.CifarResNet:
    params = json.loads(str(golden["params"]))
    model = cifar_resnet.resnet8(10).double()
    state = model.state_dict()
    for position, name in enumerate(params["keys"]):
        state[name] = recipe_tensor(tuple(state[name].shape), name, position, params["seed"])
    model.load_state_dict(state)
    return model


def test_state_dict_has_the_originals_names_in_its_order(golden):
    names = [name for name in cifar_resnet.resnet8(10).state_dict() if not name.endswith("num_batches_tracked")]
    assert names == json.loads(str(golden["params"]))["keys"]


def test_recipe_weights_match_the_golden_sums(golden, resnet8):
    names = json.loads(str(golden["params"]))["keys"]
    state = resnet8.state_dict()
    sums = np.array([[float(state[name].sum()), float(state[name].abs().sum())] for name in names])
    np.testing.assert_allclose(sums, golden["out_weight_checks"], rtol=1e-9, atol=1e-9)


def test_logits_in_eval_mode_match_the_original(golden, resnet8):
    images = torch.from_numpy(golden["in_images"]).double()
    with torch.no_grad():
        logits = resnet8.eval()(images).numpy()
    np.testing.assert_allclose(logits, golden["out_logits"], rtol=1e-7, atol=1e-9)  # float64 sums in another order


def test_logits_in_train_mode_match_the_original(golden, resnet8):
    images = torch.from_numpy(golden["in_images"]).double()
    with torch.no_grad():
        logits = resnet8.train()(images).numpy()
    np.testing.assert_allclose(logits, golden["out_logits_train_mode"], rtol=1e-7, atol=1e-9)


def test_a_hook_on_the_shared_relu_sees_the_blocks_output_last(golden, resnet8):
    seen: list[torch.Tensor] = []
    resnet8.eval().layer3[0].relu.register_forward_hook(lambda module, args, output: seen.append(output))
    with torch.no_grad():
        resnet8(torch.from_numpy(golden["in_images"]).double())
    assert len(seen) == 2
    np.testing.assert_allclose(
        seen[-1][:, ::4].numpy(), golden["out_feature_layer3_0"], rtol=1e-5, atol=1e-5
    )  # float32


@pytest.mark.parametrize(
    ("name", "depth"), [("resnet8", 8), ("narrow_resnet8", 8), ("resnet14", 14), ("resnet20", 20), ("resnet18", 18)]
)
def test_family_has_as_many_weighted_layers_as_its_name_says(name, depth):
    model = getattr(cifar_resnet, name)(7)
    main_path = [key for key, value in model.state_dict().items() if value.ndim in (2, 4) and "shortcut" not in key]
    assert len(main_path) == depth
    assert model.eval()(torch.zeros(2, 3, 16, 16)).shape == (2, 7)


def test_only_the_first_stage_keeps_the_sides():
    model = cifar_resnet.resnet14(10)
    shapes = {}
    for name in ("layer1", "layer2", "layer3"):
        model.get_submodule(name).register_forward_hook(
            lambda module, args, output, name=name: shapes.update({name: tuple(output.shape[1:])})
        )
    model.eval()(torch.zeros(1, 3, 32, 32))
    assert shapes == {"layer1": (64, 32, 32), "layer2": (128, 16, 16), "layer3": (256, 8, 8)}
    assert "layer3.0.relu" in spatial_layers(model, (32, 32))


def test_a_narrow_network_has_a_share_of_the_channels_and_all_else_alike():
    narrow, usual = cifar_resnet.narrow_resnet8(10, width=16), cifar_resnet.resnet8(10)
    shapes = {name: value.shape for name, value in narrow.state_dict().items()}
    assert list(shapes) == list(usual.state_dict())
    for name, value in usual.state_dict().items():
        fixed = (3, 10, 1)  # colours, classes, and sides of kernels of one pixel
        expected = [side if side in fixed or (value.ndim == 4 and axis > 1) else side // 4
                    for axis, side in enumerate(value.shape)]  # fmt: skip
        assert list(shapes[name]) == expected, name
    same = cifar_resnet.narrow_resnet8(10, width=64).state_dict()
    assert [value.shape for value in same.values()] == [value.shape for value in usual.state_dict().values()]


def test_a_stem_with_a_stride_halves_all_sides_that_follow():
    shapes = []
    for stride in (1, 2):
        model = cifar_resnet.narrow_resnet8(10, width=4, stem_stride=stride).eval()
        model.layer1.register_forward_hook(lambda module, args, output: shapes.append(tuple(output.shape[2:])))
        assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    assert shapes == [(32, 32), (16, 16)]
