"""integrated_gradients: analytic on a linear network, completeness, parity with captum."""

import captum.attr
import numpy as np
import pytest
import torch

from roarline.attribution.integrated import integrated_gradients, path_rule

RULES = ["gausslegendre", "riemann_middle", "riemann_trapezoid"]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("steps", [1, 7])
@pytest.mark.parametrize("baseline", [0.0, -1.5])
def test_of_a_linear_network_is_weight_times_distance_from_the_baseline(linear, images, targets, rule, steps, baseline):
    weights = linear.layer.weight[targets].reshape(images.shape).detach()
    maps = integrated_gradients(linear, images, targets, steps=steps, rule=rule, baseline=baseline)
    torch.testing.assert_close(maps, (images - baseline) * weights)


def test_without_multiplication_a_linear_network_gives_its_weight(linear, images, targets):
    weights = linear.layer.weight[targets].reshape(images.shape).detach()
    torch.testing.assert_close(
        integrated_gradients(linear, images, targets, steps=3, multiply_by_inputs=False), weights
    )


def test_attributions_sum_to_the_difference_of_the_logits(convnet, images, targets):
    """Completeness: exact in the limit; 300 points leave a part in a thousand on a network with kinks."""
    convnet.eval()
    maps = integrated_gradients(convnet, images, targets, steps=300, baseline=0.25)
    at_image, at_baseline = (
        convnet(inputs).gather(1, targets[:, None])[:, 0].detach() for inputs in (images, torch.full_like(images, 0.25))
    )
    torch.testing.assert_close(maps.sum(dim=(1, 2, 3)), at_image - at_baseline, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("rule", ["gausslegendre", "riemann_middle"])
def test_equals_captums(convnet, images, targets, rule):
    convnet.eval()
    expected = captum.attr.IntegratedGradients(convnet).attribute(
        images, baselines=torch.full_like(images, 0.25), target=targets, n_steps=20, method=rule
    )
    torch.testing.assert_close(
        integrated_gradients(convnet, images, targets, steps=20, baseline=0.25, rule=rule), expected
    )


def test_trapezoid_equals_captums_but_for_its_weights_that_fall_short_of_one(convnet, images, targets):
    convnet.eval()
    expected = captum.attr.IntegratedGradients(convnet).attribute(
        images, target=targets, n_steps=20, method="riemann_trapezoid"
    )
    maps = integrated_gradients(convnet, images, targets, steps=20, rule="riemann_trapezoid")
    torch.testing.assert_close(maps, expected * 20 / 19)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("steps", [1, 2, 5, 50])
def test_weights_of_every_rule_sum_to_one_and_integrate_a_line(rule, steps):
    places, weights = path_rule(rule, steps)
    assert len(places) == len(weights) == steps
    assert places.min() >= 0
    assert places.max() <= 1
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-12)
    np.testing.assert_allclose(weights @ places, 0.5, rtol=1e-12)


def test_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="expected gausslegendre"):
        path_rule("simpson", 4)
