"""LIME and KernelSHAP: exact where mathematics says so, parity with captum and scikit-learn, draws of a row's own."""

import itertools
import math

import captum.attr
import numpy as np
import pytest
import torch
from captum._utils.models.linear_model import SkLearnRidge
from sklearn.linear_model import Ridge

from roarline.attribution import superpixel_surrogates
from roarline.attribution.superpixel_surrogates import (
    coalitions,
    constrained_regression,
    kernel_shap,
    lime,
    ridge_regression,
)
from roarline.imaging.superpixels import find_superpixels, grid_cells, region_means

SEEDS = [11, 12, 13, 14]
PIXELS = {"mean": [0.0], "std": [1.0], "superpixels": "grid"}


def logits_of(model, images):
    with torch.no_grad():
        return model(images)


def contributions(linear, images, targets, labels, baseline):
    """What each region adds to a linear network's logit, painted on its pixels."""
    weights = linear.layer.weight.detach().reshape(5, 3, 8, 8)[targets]
    products = (weights * (images - baseline)).sum(dim=1)
    painted = torch.zeros_like(products)
    for image, region in itertools.product(range(len(images)), range(int(labels.max()) + 1)):
        inside = (labels if len(labels) == 1 else labels[image : image + 1])[0] == region
        painted[image, inside] = products[image, inside].sum()
    return painted


def explain(method, model, images, targets, **params):
    if method is kernel_shap:
        params["logits_BK"] = logits_of(model, images)
    return method(model, images, targets, **{"seeds": SEEDS[: len(images)], **PIXELS, **params})


# KernelSHAP


def test_kernel_shap_of_an_additive_network_is_each_regions_contribution(linear, images, targets):
    """Sampled: 9 regions have 510 proper sets, 40 are drawn."""
    maps = explain(kernel_shap, linear, images, targets, samples=40, segments=9, baseline=0.5)
    expected = contributions(linear, images, targets, grid_cells(8, 8, 3), 0.5)
    torch.testing.assert_close(maps, expected)


@pytest.mark.parametrize("score", ["logit", "softmax"])
def test_kernel_shap_equals_captums_exact_shapley_values_where_all_sets_fit(convnet, images, targets, score):
    """4 regions have 14 proper sets; captum takes all 24 orders. 1e-6: it adds up in float32."""
    convnet.eval()
    scored = convnet if score == "logit" else lambda inputs: convnet(inputs).softmax(dim=1)
    labels = grid_cells(8, 8, 2)[:, None].repeat(1, 3, 1, 1)
    peer = captum.attr.ShapleyValues(scored)
    with torch.no_grad():
        expected = peer.attribute(images, 0.2, target=targets, feature_mask=labels)
    maps = explain(kernel_shap, convnet, images, targets, samples=14, segments=4, baseline=0.2, score=score)
    torch.testing.assert_close(maps.float(), expected[:, 0].float(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("samples", [2, 7, 60])
def test_kernel_shaps_values_sum_to_the_difference_to_the_baseline(convnet, images, targets, samples):
    """However few sets were drawn."""
    convnet.eval()
    maps = explain(kernel_shap, convnet, images, targets, samples=samples, segments=16, baseline="blur")
    values = maps[:, ::2, ::2].sum(dim=(1, 2))  # one pixel of each of 16 cells of 2 × 2 px
    from_baseline = explain(kernel_shap, convnet, images, targets, segments=1, baseline="blur")[:, 0, 0]
    torch.testing.assert_close(values, from_baseline)


def test_a_single_region_takes_the_whole_difference(convnet, images, targets):
    convnet.eval()
    maps = explain(kernel_shap, convnet, images, targets, segments=1)
    change = (logits_of(convnet, images) - logits_of(convnet, images * 0)).gather(1, targets[:, None])
    torch.testing.assert_close(maps, change[:, :, None].expand(-1, 8, 8))


def test_kernel_shap_comes_near_captums_given_many_samples(convnet, images, targets):
    """captum draws its own sets from the global generator, without pairs: 3000 leave it within 5 % of the largest."""
    convnet.eval()
    labels = grid_cells(8, 8, 3)[:, None].expand(1, 3, -1, -1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        expected = captum.attr.KernelShap(convnet).attribute(
            images[:1], 0.0, target=targets[:1], feature_mask=labels, n_samples=3000, perturbations_per_eval=500
        )[:, 0]
    maps = explain(kernel_shap, convnet, images[:1], targets[:1], samples=2000, segments=9)
    assert (maps - expected).abs().max() < 0.05 * maps.abs().max()


def test_all_proper_sets_are_taken_where_they_fit_with_the_shapley_kernels_weights():
    sets, weights = coalitions(4, 14, seed=0)
    assert {tuple(row) for row in sets.astype(int).tolist()} == {
        row for row in itertools.product([0, 1], repeat=4) if 0 < sum(row) < 4
    }
    for row, weight in zip(sets, weights, strict=True):
        size = int(row.sum())
        assert weight == pytest.approx(3 / (math.comb(4, size) * size * (4 - size)))


def test_otherwise_sets_are_drawn_in_pairs_of_sizes_in_proportion_to_the_kernel():
    sets, weights = coalitions(14, 6000, seed=3)
    assert len(sets) == 6000
    assert np.array_equal(sets[::2] + sets[1::2], np.ones((3000, 14)))
    assert set(weights) == {1.0}
    sizes = np.arange(1, 14)
    chances = 1 / (sizes * (14 - sizes))
    expected = chances / chances.sum() * 6000
    found = np.bincount(sets.sum(axis=1).astype(int), minlength=14)[1:]
    assert (np.abs(found - expected) < 5 * np.sqrt(2 * expected)).all()  # pairs: twice a lone draw's variance
    shares = sets.mean(axis=0)
    assert (np.abs(shares - 0.5) < 1e-12).all()  # each region is in one of each pair


def test_the_regression_with_a_constraint_is_solved_on_the_constraint():
    """Against the Lagrange conditions: the gradient is the same for all values, and they sum to the total."""
    generator = torch.Generator().manual_seed(0)
    shown = (torch.rand(2, 30, 5, generator=generator) < 0.5).double()
    gains, weights = (torch.rand(2, 30, generator=generator, dtype=torch.float64) for _ in range(2))
    totals = torch.tensor([1.5, -2.0], dtype=torch.float64)
    values = constrained_regression(shown, gains, weights, totals, torch.ones(2, 5, dtype=torch.bool))
    torch.testing.assert_close(values.sum(dim=1), totals)
    residual = gains - (shown @ values[:, :, None])[:, :, 0]
    gradient = (shown.transpose(1, 2) @ (weights * residual)[:, :, None])[:, :, 0]
    torch.testing.assert_close(gradient, gradient[:, :1].expand(-1, 5))


# LIME


def test_lime_of_an_additive_network_without_penalty_is_each_regions_contribution(linear, images, targets):
    maps = explain(lime, linear, images, targets, samples=60, segments=9, baseline=0.5, ridge=1e-12)
    torch.testing.assert_close(maps, contributions(linear, images, targets, grid_cells(8, 8, 3), 0.5))


def test_lime_equals_captums_given_the_same_samples(convnet, images, targets):
    convnet.eval()
    samples, width, ridge = 50, 0.4, 0.7
    one, target, labels = images[:1], targets[:1], grid_cells(8, 8, 3)
    draws = np.random.default_rng(5).integers(0, 2, (samples, 9))
    draws[0] = 1
    pending = iter(torch.from_numpy(draws).float())

    def similarity(original, perturbed, shown, **_):
        # The cosine of a set with the set of all is √(share of regions in it).
        distance = 1 - shown.mean().sqrt()
        return torch.exp(-distance.square() / (2 * width**2))

    expected = captum.attr.Lime(
        convnet,
        interpretable_model=SkLearnRidge(alpha=ridge),
        similarity_func=similarity,
        perturb_func=lambda original, **_: next(pending)[None],
    ).attribute(one, 0.3, target=target, feature_mask=labels[:, None].expand(1, 3, -1, -1), n_samples=samples)
    maps = explain(
        lime,
        convnet,
        one,
        target,
        samples=samples,
        segments=9,
        baseline=0.3,
        kernel_width=width,
        ridge=ridge,
        seeds=[5],
    )
    # 1e-5: captum hands float32 scores and weights to scikit-learn.
    torch.testing.assert_close(maps.float(), expected[:, 0].float(), rtol=1e-5, atol=1e-5 * float(maps.abs().max()))


def test_ridge_regression_equals_scikit_learns():
    generator = torch.Generator().manual_seed(0)
    shown = (torch.rand(3, 20, 6, generator=generator) < 0.5).double()
    scores, weights = (torch.rand(3, 20, generator=generator, dtype=torch.float64) for _ in range(2))
    found = ridge_regression(shown, scores, weights, 0.3)
    for row in range(3):
        peer = Ridge(alpha=0.3).fit(shown[row].numpy(), scores[row].numpy(), sample_weight=weights[row].numpy())
        np.testing.assert_allclose(found[row].numpy(), peer.coef_, rtol=1e-9)


def test_lime_hides_a_region_behind_its_own_mean_colour(linear, images, targets):
    maps = explain(lime, linear, images, targets, samples=60, segments=9, ridge=1e-12)
    labels = grid_cells(8, 8, 3)
    expected = contributions(linear, images, targets, labels, region_means(images, labels))
    torch.testing.assert_close(maps, expected)


# Both


@pytest.mark.parametrize("method", [lime, kernel_shap])
def test_images_of_different_numbers_of_regions_share_a_batch(linear, targets, method, monkeypatch):
    """The second image has 9 regions, the others 4: its values are its own, the others' are not disturbed."""
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    labels = grid_cells(8, 8, 2).repeat(4, 1, 1)
    labels[1] = grid_cells(8, 8, 3)[0]
    monkeypatch.setattr(superpixel_surrogates, "find_superpixels", lambda inputs, *_, **__: labels[: len(inputs)])
    params = {"ridge": 1e-12} if method is lime else {}
    together = explain(method, linear, images, targets, samples=60, baseline=0.0, **params)
    torch.testing.assert_close(together, contributions(linear, images, targets, labels, 0.0))


@pytest.mark.parametrize("method", [lime, kernel_shap])
def test_a_row_draws_from_its_own_seed_alone(convnet, images, targets, method):
    convnet.eval()
    params = {"samples": 30, "segments": 16}
    together = explain(method, convnet, images, targets, **params)
    alone = explain(method, convnet, images[2:3], targets[2:3], seeds=[13], **params)
    torch.testing.assert_close(alone[0], together[2])
    other = explain(method, convnet, images[2:3], targets[2:3], seeds=[99], **params)
    assert not torch.allclose(other, alone)


@pytest.mark.parametrize("method", [lime, kernel_shap])
def test_maps_are_equal_within_slics_superpixels(convnet, targets, method):
    convnet.eval()
    coarse = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pixels = torch.nn.functional.interpolate(coarse, size=(32, 32), mode="bilinear")
    images = (pixels - 0.5) / 0.25
    look = {"mean": [0.5] * 3, "std": [0.25] * 3, "superpixels": "slic"}
    maps = explain(method, convnet, images, targets[:2], samples=20, segments=12, **look)
    labels = find_superpixels(images, "slic", 12, mean=look["mean"], std=look["std"])
    for map_, regions in zip(maps, labels, strict=True):
        assert len(map_.unique()) == int(regions.max()) + 1 > 4
        for region in regions.unique():
            assert len(map_[regions == region].unique()) == 1
