"""The contract of every line of METHODS: shape, dtype, finite, repeatable, whatever the batch; model left as it was."""

import copy
import gc

import pytest
import torch

from roarline.attribution import cam_ablation
from roarline.attribution.call import attribute, find_method
from roarline.attribution.memory import MemoryWarning
from roarline.attribution.surroundings import Surroundings
from roarline.config.component import Smooth
from roarline.config.methods import METHODS
from roarline.models.cifar_resnet import resnet8
from roarline.seeds import derive_seed
from tests.method_params import cheap_params

IDS = ["first", "second", "third"]


@pytest.fixture(scope="module")
def model():
    """A ResNet-8 with random weights, in training mode with gradients wanted, as it comes."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return resnet8(4)


@pytest.fixture(scope="module")
def images():
    return torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def exact(model, images):
    """The same in float64, whose rounding hides nothing, on cuts of 8 px, which take a quarter of the time."""
    return copy.deepcopy(model).double(), images[:, :, 4:12, 4:12].double()


def run(model, images, name, rows=(0, 1, 2)):
    rows = list(rows)
    return run_rows(model, images[rows], [[-1, 2, 0][row] for row in rows], name, [IDS[row] for row in rows])


def run_rows(model, images, targets, name, ids, smooth=None):
    """Rows with the same id are rows of one image."""
    params = METHODS[name].params(**cheap_params(name, "layer3.0.relu")).model_dump(mode="json")
    size = images.shape[2:]

    def references(count):
        return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(2))

    def ground_truth(sample_ids, targets):
        masks = torch.zeros(len(sample_ids), *size)
        masks[:, 4:9, 3:7] = 1
        return masks

    return attribute(
        model,
        images,
        torch.tensor(targets),
        find_method(name, params, smooth=smooth),
        seed_of=lambda row, target: derive_seed(0, name, ids[row], target),
        sample_ids=ids,
        surroundings=Surroundings(
            shared_seed=3,
            mean=[0.5] * 3,
            std=[0.25] * 3,
            references=references,
            ground_truth=ground_truth,
            explainer=explainer,
        ),
    )


def explainer(model, images):
    """A mask a class that needs the classifier's pass, as a masker's does."""
    return (images.mean(1, keepdim=True) + model(images)[:, :, None, None]).sigmoid()


def fingerprint(model):
    return (
        [module.training for module in model.modules()],
        [(parameter.requires_grad, parameter.grad is None) for parameter in model.parameters()],
        [
            (len(module._forward_hooks), len(module._forward_pre_hooks), len(module._backward_hooks))
            for module in model.modules()
        ],
        [tensor.sum().item() for tensor in model.state_dict().values()],
    )  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_shape_dtype_finite_targets_and_logits(model, images, name):
    result = run(model, images, name)
    assert tuple(result.maps.shape) in {(3, 16, 16), (3, 3, 16, 16)}
    assert result.maps.dtype == torch.float32
    assert not result.maps.requires_grad
    assert result.maps.isfinite().all()
    with torch.no_grad():
        logits = model.eval()(images)
    model.train()
    torch.testing.assert_close(result.logits, logits)
    assert result.targets.tolist() == [int(logits[0].argmax()), 2, 0]


@pytest.mark.parametrize("name", METHODS)
def test_again_gives_the_same_bits(model, images, name):
    assert torch.equal(run(model, images, name).maps, run(model, images, name).maps)


@pytest.mark.parametrize("name", METHODS)
def test_does_not_depend_on_the_rest_of_the_batch(model, images, name):
    """Up to 1e-5 of the largest value: convolutions of another batch size may sum in another order in float32."""
    together = run(model, images, name).maps
    for rows in ([0], [2, 1]):
        part = run(model, images, name, rows).maps
        torch.testing.assert_close(part, together[rows], rtol=0, atol=1e-5 * float(together.abs().max()))


@pytest.mark.parametrize("name", METHODS)
def test_every_label_of_an_image_gets_the_map_that_it_would_get_alone(exact, name):
    """Rows of an image share passes, masks or blurs."""
    model, images = exact
    together = run_rows(model, images[[0, 1, 0]], [2, 1, 3], name, [IDS[0], IDS[1], IDS[0]]).maps
    for row, target in ((0, 2), (2, 3)):
        alone = run_rows(model, images[[0]], [target], name, [IDS[0]]).maps[0]
        assert_same(together[row], alone)


@pytest.mark.parametrize("name", METHODS)
def test_smoothed_by_composition_a_row_is_as_it_would_be_alone(exact, name):
    """The mean of squares over two noisy copies."""
    model, images = exact
    smooth = Smooth(samples=2, noise=0.1, kind="squared")
    together = run_rows(model, images[[0, 0]], [2, -1], name, [IDS[0]] * 2, smooth).maps
    assert (together >= 0).all()
    assert_same(together[:1], run_rows(model, images[[0]], [2], name, [IDS[0]], smooth).maps)


@pytest.mark.parametrize("name", METHODS)
def test_one_oblong_image_of_odd_sides(model, name):
    image = torch.randn(1, 3, 17, 23, generator=torch.Generator().manual_seed(4))
    maps = run_rows(model, image, [1], name, ["only"]).maps
    assert tuple(maps.shape) in {(1, 17, 23), (1, 3, 17, 23)}
    assert maps.isfinite().all()


@pytest.mark.parametrize("name", METHODS)
def test_out_of_memory_halves_the_passes_and_the_maps_stay_the_same(exact, name, monkeypatch):
    """A device that holds two images at once; every method asks the network at least for the logits."""
    model, images = exact
    expected = run(model, images, name).maps
    monkeypatch.setattr(cam_ablation, "_FIRST_LAYERS", 0)  # else passes from the layer on are of more rows than images

    def fits(module, inputs):
        if len(inputs[0]) > 2:
            raise torch.OutOfMemoryError("out of memory")

    handle = model.register_forward_pre_hook(fits)
    try:
        with pytest.warns(MemoryWarning, match="going on with") as caught:
            found = run(model, images, name).maps
    finally:
        handle.remove()
    assert len(caught) == 1
    assert_same(found, expected)


def assert_same(found, expected):
    """Up to the rounding of float64, and to 1e-8 where it decides between two steps of I-GOS's line search."""
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-8 + 1e-9 * float(expected.abs().max()))


@pytest.mark.parametrize("name", METHODS)
def test_leaves_model_and_images_as_they_were(model, images, name):
    before, pixels = fingerprint(model), images.clone()
    run(model, images, name)
    assert fingerprint(model) == before
    assert torch.equal(images, pixels)
    assert not images.requires_grad


@pytest.mark.parametrize("name", METHODS)
def test_leaves_the_model_as_it_was_when_the_network_fails_midway(model, images, name):
    before = fingerprint(model)

    def fail(module, args, output):
        raise RuntimeError("midway")

    handle = model.linear.register_forward_pre_hook(lambda module, args: fail(module, args, None))
    try:
        with pytest.raises(RuntimeError, match="midway"):
            run(model, images, name)
    finally:
        handle.remove()
    assert fingerprint(model) == before


@pytest.mark.parametrize("name", METHODS)
def test_captum_bug_hooks_and_memory_leak_over_long_loops(model, images, name):
    """peers.md; here neither hooks nor tensors pile up."""

    def living_tensors():
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    run(model, images, name, [0])
    before, state = living_tensors(), fingerprint(model)
    for _ in range(4):
        run(model, images, name, [0])
    assert living_tensors() == before
    assert fingerprint(model) == state


@pytest.mark.parametrize("name", METHODS)
def test_global_random_state_is_untouched(model, images, name):
    before = torch.get_rng_state()
    run(model, images, name)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", METHODS)
def test_runs_in_mixed_precision(model, images, name):
    """``attribution.precision: bfloat16``: finite float32 maps, logits as in float32 but for the network's rounding."""
    images = images[:, :, 4:12, 4:12]
    expected = run(model, images, name)
    with torch.autocast("cpu", torch.bfloat16):
        result = run(model, images, name)
    assert result.maps.dtype == result.logits.dtype == torch.float32
    assert result.maps.isfinite().all()
    assert not torch.is_autocast_enabled("cpu")
    torch.testing.assert_close(result.logits, expected.logits, rtol=0, atol=0.05)
