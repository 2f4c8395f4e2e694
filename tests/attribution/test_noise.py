"""smoothgrad, smoothgrad_squared, vargrad: analytic on a linear network, parity with captum's NoiseTunnel."""

import captum.attr
import pytest
import torch

from roarline.attribution.gradient import gradient
from roarline.attribution.noise import smoothgrad, smoothgrad_squared, vargrad

SEEDS = [11, 12, 13, 14]
METHODS = [smoothgrad, smoothgrad_squared, vargrad]


def test_smoothgrad_of_a_linear_network_is_its_gradient(linear, images, targets):
    torch.testing.assert_close(
        smoothgrad(linear, images, targets, samples=6, seeds=SEEDS), gradient(linear, images, targets)
    )


def test_smoothgrad_squared_of_a_linear_network_is_its_squared_gradient(linear, images, targets):
    torch.testing.assert_close(
        smoothgrad_squared(linear, images, targets, samples=6, seeds=SEEDS), gradient(linear, images, targets).square()
    )


def test_vargrad_of_a_linear_network_is_zero(linear, images, targets):
    maps = vargrad(linear, images, targets, samples=6, seeds=SEEDS)
    torch.testing.assert_close(maps, torch.zeros_like(images), rtol=0, atol=1e-24)


@pytest.mark.parametrize("method", METHODS)
def test_without_noise_all_copies_are_the_image(convnet, images, targets, method):
    convnet.eval()
    plain = gradient(convnet, images, targets)
    expected = {smoothgrad: plain, smoothgrad_squared: plain.square(), vargrad: torch.zeros_like(plain)}[method]
    torch.testing.assert_close(method(convnet, images, targets, samples=3, noise=0.0, seeds=SEEDS), expected)


@pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients")  # captum's own
@pytest.mark.parametrize("method", METHODS)
def test_equals_captums_noise_tunnel_given_the_same_noise(convnet, images, targets, method, monkeypatch):
    convnet.eval()
    samples, noise, image, target = 7, 0.2, images[:1], targets[:1]
    generator = torch.Generator().manual_seed(5)
    draws = torch.stack(
        [torch.randn(image.shape[1:], generator=generator, dtype=torch.float64) for _ in range(samples)]
    )
    deviation = float(noise * (image.max() - image.min()))
    monkeypatch.setattr(torch, "normal", lambda mean, std: draws * std)
    expected = captum.attr.NoiseTunnel(captum.attr.Saliency(convnet)).attribute(
        image,
        nt_type=method.__name__.replace("_squared", "_sq"),
        nt_samples=samples,
        stdevs=deviation,
        target=target,
        abs=False,
    )
    torch.testing.assert_close(method(convnet, image, target, samples=samples, noise=noise, seeds=[5]), expected)


def test_noise_follows_each_images_own_range(linear, images, targets, monkeypatch):
    """An image of one value has no range: its copies are the image itself."""
    seen = []
    monkeypatch.setattr(
        "roarline.attribution.passes.target_logit_gradient",
        lambda model, inputs, classes: seen.append(inputs) or torch.zeros_like(inputs),
    )
    pair = torch.stack([torch.full((3, 8, 8), 2.0, dtype=torch.float64), images[0]])
    smoothgrad(linear, pair, targets[:2], samples=4000 // 64, noise=0.5, seeds=SEEDS[:2])
    copies = torch.cat(seen)
    flat, noisy = copies[: len(copies) // 2], copies[len(copies) // 2 :]
    assert torch.equal(flat, torch.full_like(flat, 2.0))
    deviation = (noisy - images[0]).std()
    expected = 0.5 * (images[0].max() - images[0].min())
    assert abs(deviation / expected - 1) < 0.05  # 62 × 192 draws: a standard error of 0.7 %


def test_a_map_depends_on_its_own_seed_alone(convnet, images, targets):
    convnet.eval()
    together = smoothgrad(convnet, images, targets, samples=5, seeds=SEEDS)
    for row in range(len(images)):
        alone = smoothgrad(
            convnet, images[row : row + 1], targets[row : row + 1], samples=5, seeds=SEEDS[row : row + 1]
        )
        torch.testing.assert_close(alone[0], together[row])
    other = smoothgrad(convnet, images, targets, samples=5, seeds=[seed + 1 for seed in SEEDS])
    assert not torch.allclose(other, together)


def test_vargrad_is_never_negative_where_gradients_hardly_vary(linear, images, targets):
    maps = vargrad(linear.float(), images.float(), targets, samples=25, noise=1e-6, seeds=SEEDS)
    assert maps.min() >= 0
