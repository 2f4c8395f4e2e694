"""Networks by name; weights that fit and weights that don't."""

import sys
import types
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from roarline.config.models import MODELS
from roarline.errors import ModelError, UserInputError
from roarline.models.build import build, read_state


def state(seed: int, classes: int = 10, arch: str = "small_cnn") -> dict[str, torch.Tensor]:
    return build(arch, {}, classes, input_size=None, seed=seed).state_dict()


@pytest.mark.parametrize("arch", sorted(MODELS))
def test_every_network_of_the_table_keeps_the_contract(arch):
    generator_before = torch.get_rng_state()
    first, again, other = (build(arch, {}, 7, input_size=(16, 16), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), generator_before)
    assert first.training
    same, differ = list(first.parameters()), list(other.parameters())
    assert all(torch.equal(a, b) for a, b in zip(same, again.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(same, differ, strict=True))
    logits = first(torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    assert logits.shape == (2, 7)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize(
    ("arch", "size"), [("torchvision:mobilenet_v3_small", (32, 32)), ("torchvision:googlenet", (64, 64))]
)
def test_torchvision_networks_give_one_row_of_logits_an_image(arch, size):
    model = build(arch, {}, 4, input_size=size, seed=0)
    assert model(torch.zeros(2, 3, *size)).shape == (2, 4)


@pytest.mark.parametrize(
    ("arch", "params", "size", "error", "said"),
    [
        ("torchvision:resnet8", {}, None, ModelError, "no classifier 'resnet8'; it has alexnet"),
        ("torchvision:resnet18", {"depth": 3}, None, ModelError, "can't be built with params {'depth': 3}"),
        ("torchvision:alexnet", {}, (8, 8), ModelError, "can't take images of 8×8 px"),
        ("small_cnn", {"wide": 3}, None, UserInputError, "wide: unknown key"),
        ("small_cnn", {"width": 2}, None, UserInputError, "width"),
        ("no_such.module.model", {}, None, UserInputError, "no_such"),
    ],
)
def test_what_can_not_be_built_says_why(arch, params, size, error, said):
    with pytest.raises(error) as caught:
        build(arch, params, 10, input_size=size, seed=0)
    assert said in str(caught.value)


def test_timm_is_asked_for_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModelError, match="pip install timm"):
        build("timm:resnet50", {}, 10, input_size=None, seed=0)


@pytest.fixture
def own_models(tmp_path, monkeypatch):
    """A module of the user's in the working directory."""
    (tmp_path / "own_networks.py").write_text(
        "from torch import nn\n"
        "def good(num_classes, hidden=4):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(12, hidden), nn.Linear(hidden, num_classes))\n"
        "def three(num_classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(12, 3))\n"
        "def pair(num_classes):\n"
        "    class Pair(nn.Module):\n"
        "        def forward(self, x):\n"
        "            return x, x\n"
        "    return Pair()\n"
        "def text(num_classes):\n"
        "    return 'network'\n"
        "def unread(num_classes):\n"
        "    return open('nowhere.pt')\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("own_networks", None)


def test_a_dotted_path_is_called_with_the_class_count_and_params(own_models):
    model = build("own_networks.good", {"hidden": 9}, 5, input_size=(2, 2), seed=0)
    assert model[1].out_features == 9
    assert model[2].out_features == 5


@pytest.mark.parametrize(
    ("name", "said"),
    [("three", r"gave \[1, 3\] for one image, expected \[1, 5\]"), ("pair", "gave a tuple"), ("text", "gave a str")],
)
def test_a_dotted_path_that_breaks_the_contract_is_refused(own_models, name, said):
    with pytest.raises(ModelError, match=said):
        build(f"own_networks.{name}", {}, 5, input_size=(2, 2), seed=0)


def test_what_a_dotted_path_raises_is_told_as_it_is(own_models):
    with pytest.raises(ModelError, match=r"'own_networks\.unread' can't be built: FileNotFoundError: .*nowhere\.pt"):
        build("own_networks.unread", {}, 5, input_size=(2, 2), seed=0)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", "nested.pt", "parallel.pt"])
def test_weights_come_from_every_usual_file(tmp_path: Path, suffix):
    wanted, path = state(3), tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(wanted, path)
    elif suffix == ".pth":
        torch.save(wanted, path)
    elif suffix == "nested.pt":
        torch.save({"state_dict": wanted, "epoch": 4}, path)
    else:
        torch.save({f"module.{key}": value for key, value in wanted.items()}, path)
    model = build("small_cnn", {}, 10, input_size=None, weights_file=path, seed=0)
    assert all(torch.equal(value, wanted[key]) for key, value in model.state_dict().items())


def test_weights_of_another_class_count_are_an_error_naming_both_numbers(tmp_path):
    torch.save(state(3, classes=10), tmp_path / "ten.pth")
    with pytest.raises(ModelError, match=r"weights are for 10 classes, the data set has 4; .*train-cls"):
        build("small_cnn", {}, 4, input_size=None, weights_file=tmp_path / "ten.pth", seed=0)


def test_where_it_will_be_trained_a_head_of_another_class_count_starts_anew(tmp_path):
    pretrained, fresh = state(3, classes=10), state(0, classes=4)
    torch.save(pretrained, tmp_path / "ten.pth")
    model = build("small_cnn", {}, 4, input_size=(8, 8), weights_file=tmp_path / "ten.pth", seed=0, replace_head=True)
    for key, value in model.state_dict().items():
        assert torch.equal(value, fresh[key] if key.startswith("linear.") else pretrained[key])


def test_weights_of_another_network_name_the_first_difference(tmp_path):
    torch.save(state(3, arch="resnet8"), tmp_path / "other.pth")
    with pytest.raises(ModelError, match=r"of another network: .* missing .*first: conv2.weight"):
        build("small_cnn", {}, 10, input_size=None, weights_file=tmp_path / "other.pth", seed=0)
    torch.save(state(3), tmp_path / "wide.pth")
    with pytest.raises(ModelError, match=r"conv1.weight is \[32, 3, 3, 3\], expected \[8, 3, 3, 3\]"):
        build(
            "small_cnn",
            {"width": 8},
            10,
            input_size=None,
            weights_file=tmp_path / "wide.pth",
            seed=0,
            replace_head=True,
        )


class Runs:
    """Unpickling this would run code."""

    def __reduce__(self):
        return (print, ("code ran",))


@pytest.mark.parametrize("content", ["nothing", "text", "pickled code", "no tensors", "missing"])
def test_a_file_that_holds_no_weights_is_refused_and_runs_nothing(tmp_path, capsys, content):
    path = tmp_path / ("weights.safetensors" if content == "text" else "weights.pth")
    if content == "nothing":
        path.write_bytes(b"")
    elif content == "text":
        path.write_text("these are no weights")
    elif content == "pickled code":
        torch.save({"w": Runs()}, path)
    elif content == "no tensors":
        torch.save({"epoch": 3}, path)
    with pytest.raises(ModelError, match="weights"):
        read_state(path)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arch", "weights", "said"),
    [
        ("small_cnn", "IMAGENET1K_V1", "has no published weights by name"),
        ("torchvision:resnet18", "IMAGENET1K_V9", "has no weights 'IMAGENET1K_V9'; it has IMAGENET1K_V1"),
    ],
)
def test_a_weight_name_that_does_not_exist_is_refused(arch, weights, said):
    with pytest.raises(ModelError, match=said):
        build(arch, {}, 1000, input_size=None, weights=weights, seed=0)


def test_published_weights_come_through_torchvisions_own_table(monkeypatch):
    import torchvision.models as zoo

    published = state(3, classes=1000, arch="torchvision:squeezenet1_1")
    monkeypatch.setattr(zoo.WeightsEnum, "get_state_dict", lambda self, **settings: published)
    model = build("torchvision:squeezenet1_1", {}, 1000, input_size=None, weights="IMAGENET1K_V1", seed=0)
    assert all(torch.equal(value, published[key]) for key, value in model.state_dict().items())


def test_without_a_network_published_weights_say_where_they_lie(monkeypatch):
    import torchvision.models as zoo

    def unreachable(self, **settings):
        raise OSError("no route to host")

    monkeypatch.setattr(zoo.WeightsEnum, "get_state_dict", unreachable)
    with pytest.raises(ModelError, match=r"can't be downloaded \(no route to host\); fetch https://.*\.pth elsewhere"):
        build("torchvision:squeezenet1_1", {}, 1000, input_size=None, weights="IMAGENET1K_V1", seed=0)


def test_timm_networks_and_their_weights(monkeypatch):
    """timm is optional, so a stand-in shows how it is called."""

    def create_model(name, pretrained=False, num_classes=6, **settings):
        model = nn.Sequential(nn.Flatten(), nn.Linear(12, num_classes))
        if pretrained:
            nn.init.constant_(model[1].weight, 2.0)
        return model

    fake = types.ModuleType("timm")
    fake.is_model = lambda name: name == "tiny"
    fake.create_model = create_model
    monkeypatch.setitem(sys.modules, "timm", fake)
    model = build("timm:tiny.a1", {}, 6, input_size=(2, 2), weights="pretrained", seed=0)
    assert float(model[1].weight.detach().mean()) == 2.0
    with pytest.raises(ModelError, match="timm has no model 'huge'"):
        build("timm:huge", {}, 6, input_size=None, seed=0)
    with pytest.raises(ModelError, match="timm's weights are part of the model's name"):
        build("timm:tiny", {}, 6, input_size=None, weights="IMAGENET1K_V1", seed=0)
