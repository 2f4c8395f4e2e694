"""``smooth`` in YAML: a moment of any method's maps over noisy copies of the image."""

import pytest
import torch

from roarline.attribution.call import MethodCall, attribute, find_method
from roarline.attribution.surroundings import Surroundings, image_numbers
from roarline.config.component import Smooth
from roarline.seeds import derive_seed

IDS = ["a", "b", "c", "d"]


def run(model, images, targets, method, rows=slice(None)):
    chosen = list(range(len(images)))[rows]
    return attribute(
        model, images[rows], targets[rows], method, sample_ids=IDS[rows], surroundings=Surroundings(shared_seed=1),
        seed_of=lambda row, target: derive_seed(0, IDS[chosen[row]], target),
    ).maps  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "named"), [("mean", "smoothgrad"), ("squared", "smoothgrad_squared"), ("variance", "vargrad")]
)
def test_smoothed_gradients_are_the_three_named_methods(convnet, images, targets, kind, named):
    """Two ways to one number: the named method draws the same noise from the same seeds."""
    composed = find_method("gradient", {}, smooth=Smooth(samples=7, noise=0.3, kind=kind))
    direct = find_method(named, {"samples": 7, "noise": 0.3})
    torch.testing.assert_close(run(convnet, images, targets, composed), run(convnet, images, targets, direct))


def test_smoothing_a_linear_models_gradient_changes_nothing(linear, images, targets):
    """Its gradient is the same everywhere, so the mean is the gradient and the variance is 0."""
    plain = run(linear, images, targets, find_method("gradient", {}))
    mean = run(linear, images, targets, find_method("gradient", {}, smooth=Smooth(samples=5)))
    variance = run(linear, images, targets, find_method("gradient", {}, smooth=Smooth(samples=5, kind="variance")))
    torch.testing.assert_close(mean, plain)
    assert variance.abs().max() < 1e-12


def test_input_x_gradient_of_a_linear_model_varies_as_its_noise(linear, images, targets):
    """Var(w · (x + e)) = w² σ², σ = noise × range; 400 draws give the variance within 5 standard errors (√(2/400))."""
    method = find_method("input_x_gradient", {}, smooth=Smooth(samples=400, noise=0.2, kind="variance"))
    found = run(linear, images, targets, method)
    weight = linear.layer.weight[targets].reshape(images.shape)
    sigma = 0.2 * (images.amax((1, 2, 3)) - images.amin((1, 2, 3)))
    expected = weight.square() * sigma.square()[:, None, None, None]
    assert ((found / expected - 1).abs() < 5 * (2 / 400) ** 0.5).all()


def test_a_smoothed_map_does_not_depend_on_the_rest_of_the_batch(convnet, images, targets):
    method = find_method("random", {}, smooth=Smooth(samples=4))
    together = run(convnet, images, targets, method)
    torch.testing.assert_close(run(convnet, images, targets, method, slice(2, 3))[0], together[2])
    assert not torch.allclose(together[0], together[1])


def test_every_copy_has_draws_of_its_own(convnet, images, targets):
    """The mean of four uniform maps has a quarter of the variance of one (64 values a map: within a factor of 2)."""
    one = run(convnet, images, targets, find_method("random", {}))
    four = run(convnet, images, targets, find_method("random", {}, smooth=Smooth(samples=4)))
    assert 0.5 < float(four.var() / one.var() * 4) < 2


def test_ones_own_method_is_smoothed_in_both_call_styles(linear, images, targets):
    def batched(model, inputs, classes):
        return inputs.square()

    def single(model, image, label):
        return image[0].square()

    smooth = Smooth(samples=6, noise=0.1)
    both = [
        run(linear, images, targets, MethodCall("mine", function, batched=style, smooth=smooth))
        for function, style in ((batched, True), (single, False))
    ]
    torch.testing.assert_close(both[0], both[1])
    assert not torch.allclose(both[0], images.square())


def test_the_target_is_that_of_the_clean_image(linear, images):
    method = find_method("gradient", {}, smooth=Smooth(samples=3, noise=5.0))
    result = attribute(
        linear, images, torch.full((4,), -1), method, seed_of=lambda row, target: row, sample_ids=IDS
    )  # fmt: skip
    assert torch.equal(result.targets, linear(images).argmax(dim=1))
    torch.testing.assert_close(result.maps, linear.layer.weight[result.targets].reshape(images.shape))


def test_rows_of_one_image_share_a_number():
    assert image_numbers(["x", "y", "x", "z", "y"]) == [0, 1, 0, 2, 1]
