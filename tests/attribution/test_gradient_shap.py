"""gradient_shap: a linear network, parity with captum given the same draws, draws of each image's own."""

import captum.attr
import numpy as np
import pytest
import torch

from roarline.attribution.gradient_shap import gradient_shap
from roarline.errors import MethodError

SEEDS = [3, 1, 4, 5]


def references(count):
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


def no_references(count):
    raise AssertionError("not wanted")


def shap(model, images, targets, **params):
    given = {"seeds": SEEDS, "references": references} | params
    return gradient_shap(model, images, targets, **given)


def test_with_a_constant_a_linear_network_gives_weight_times_distance(linear, images, targets):
    weights = linear.layer.weight[targets].reshape(images.shape).detach()
    maps = shap(linear, images, targets, samples=3, baselines="constant", baseline=0.5, references=no_references)
    torch.testing.assert_close(maps, (images - 0.5) * weights)
    maps = shap(linear, images, targets, samples=3, baselines="constant", multiply_by_inputs=False)
    torch.testing.assert_close(maps, weights)


def test_of_one_reference_a_linear_network_gives_weight_times_distance(linear, images, targets):
    weights = linear.layer.weight[targets].reshape(images.shape).detach()
    maps = shap(linear, images, targets, samples=2, reference_images=1)
    torch.testing.assert_close(maps, (images - references(1)) * weights)


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_equals_captums_given_the_same_draws(convnet, images, targets, noise, monkeypatch):
    """captum's draws are forced: baselines from numpy's choice, points from its uniform, noise from torch.normal."""
    samples, model = 5, convnet.eval()
    indices, places, normals = [], [], []
    for seed in SEEDS:
        generator = torch.Generator().manual_seed(seed)
        for _ in range(samples):
            indices.append(torch.randint(6, (), generator=generator).item())
            places.append(torch.rand((), generator=generator, dtype=torch.float64).item())
            normals.append(torch.randn(images.shape[1:] if noise else (0,), generator=generator))
    deviations = noise * (images.amax((1, 2, 3)) - images.amin((1, 2, 3)))
    among = references(6)

    expected = torch.zeros_like(images)
    monkeypatch.setattr(np.random, "uniform", lambda low, high, count: np.array(places).reshape(4, 5)[:, copy])
    for copy in range(samples):
        rows = range(copy, 4 * samples, samples)
        inputs = images
        if noise:
            inputs = images + deviations[:, None, None, None] * torch.stack([normals[row] for row in rows]).double()
        chosen = among[[indices[row] for row in rows]]
        step = captum.attr._core.gradient_shap.InputBaselineXGradient(model)
        expected += step.attribute(inputs, chosen, target=targets).detach() / samples

    maps = shap(model, images, targets, samples=samples, noise=noise, reference_images=6)
    torch.testing.assert_close(maps, expected)


def test_sums_to_the_logit_less_its_mean_over_the_references(convnet, images, targets):
    """In expectation: over 400 draws within four standard errors, estimated from the maps of 8 groups of 50."""
    model = convnet.eval()
    groups = torch.stack(
        [
            shap(model, images, targets, samples=50, reference_images=4, seeds=range(start, start + 4)).sum((1, 2, 3))
            for start in range(0, 32, 4)
        ]
    )
    with torch.no_grad():
        expected = (model(images) - model(references(4)).mean(0)).gather(1, targets[:, None])[:, 0]
    errors = groups.std(0) / 8**0.5
    assert ((groups.mean(0) - expected).abs() < 4 * errors).all()


def test_a_row_draws_from_its_seed_alone(convnet, images, targets):
    model = convnet.eval()
    together = shap(model, images, targets, samples=3, noise=0.1)
    alone = shap(model, images[2:3], targets[2:3], samples=3, noise=0.1, seeds=SEEDS[2:3])
    torch.testing.assert_close(alone, together[2:3])
    other = shap(model, images[2:3], targets[2:3], samples=3, noise=0.1, seeds=[77])
    assert not torch.allclose(other, alone)


def test_other_baselines_are_refused(convnet, images, targets):
    with pytest.raises(MethodError, match="expected references or constant"):
        shap(convnet, images, targets, baselines="blur")
