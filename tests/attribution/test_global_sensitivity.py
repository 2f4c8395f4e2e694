"""Sobol and HSIC: known indices, parity with scipy, definitions written out, designs shared by images and classes."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn

from roarline.attribution.global_sensitivity import (
    hsic,
    independence_criteria,
    sobol,
    sobol_design,
    total_order_indices,
)
from roarline.imaging.superpixels import grid_cells


class OfCells(nn.Module):
    """One class whose logit is a function of four cells of an 8 × 8 image of ones: of how far each is shown."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, images):
        shown = images[:, 0, ::4, ::4].flatten(1)
        return self.function(*shown.unbind(dim=1))[:, None]


def ishigami(a, b, c, unused):
    x, y, z = (math.pi * (2 * value - 1) for value in (a, b, c))
    return torch.sin(x) + 7 * torch.sin(y) ** 2 + 0.1 * z**4 * torch.sin(x)


ONES, FIRST = torch.ones(1, 3, 8, 8, dtype=torch.float64), torch.zeros(1, dtype=torch.int64)


def cells_of(maps):
    return maps[0, ::4, ::4].flatten()


def test_sobol_of_the_ishigami_function():
    """Known in closed form: V = 49/8 + 0.1 π⁴/5 + 0.01 π⁸/18 + 1/2, and so on (Ishigami and Homma 1990)."""
    v1 = 0.5 * (1 + 0.1 * math.pi**4 / 5) ** 2
    v13 = 0.01 * math.pi**8 * (1 / 18 - 1 / 50)
    v2 = 49 / 8
    expected = torch.tensor([v1 + v13, v2, v13, 0.0], dtype=torch.float64) / (v1 + v2 + v13)
    found = cells_of(sobol(OfCells(ishigami), ONES, FIRST, designs=4096, cells=2, shared_seed=0))
    torch.testing.assert_close(found, expected, rtol=0, atol=0.01)  # 4096 quasi-random points
    assert found[3] == 0


def test_sobol_of_an_additive_network_are_its_shares_of_the_variance(linear, images, targets):
    """f = Σ a_i m_i + b with m uniform: the index of i is a_i² / Σ a²."""
    weights = linear.layer.weight.detach().reshape(5, 3, 8, 8)[targets]
    squares = (weights * images).sum(dim=1).reshape(4, 2, 4, 2, 4).sum(dim=(2, 4)).square().flatten(1)
    expected = squares / squares.sum(dim=1, keepdim=True)
    maps = sobol(linear, images, targets, designs=1024, cells=2, shared_seed=1)
    torch.testing.assert_close(maps[:, ::4, ::4].flatten(1), expected, rtol=0, atol=0.01)  # 1024 quasi-random points


def test_total_order_indices_equal_scipys():
    """scipy takes the same estimator from the same points, and the variance over A and B."""
    design = torch.from_numpy(sobol_design(64, 3, seed=2))
    scores = (design[:, 0] * design[:, 1] + design[:, 2].exp())[None]
    first, second, mixed = scores[:, :64], scores[:, 64:128], scores[:, 128:].reshape(3, 1, 64)
    peer = scipy.stats.sobol_indices(func={"f_A": first.numpy(), "f_B": second.numpy(), "f_AB": mixed.numpy()}, n=64)
    np.testing.assert_allclose(total_order_indices(scores, 64)[0].numpy(), peer.total_order, rtol=1e-9)


def test_the_design_swaps_one_cell_at_a_time():
    design = sobol_design(8, 5, seed=0)
    first, second, mixed = design[:8], design[8:16], design[16:].reshape(5, 8, 5)
    for cell in range(5):
        assert np.array_equal(mixed[cell][:, cell], second[:, cell])
        others = [other for other in range(5) if other != cell]
        assert np.array_equal(mixed[cell][:, others], first[:, others])


def test_a_score_that_does_not_vary_gives_0_everywhere(linear, images, targets):
    with torch.no_grad():
        linear.layer.weight.zero_()
    assert torch.equal(sobol(linear, images, targets, designs=8, cells=2, shared_seed=0), images[:, 0] * 0)
    assert torch.equal(hsic(linear, images, targets, samples=30, cells=2, shared_seed=0), images[:, 0] * 0)


def written_out(shown, scores):
    """trace(K H L H) / (n - 1)² by its definition, with the paper's kernel for 0 and 1."""
    count, found = len(scores), []
    distances = [abs(a - b) for i, a in enumerate(scores) for b in scores[i + 1 :]]
    width = sorted(distances)[(len(distances) - 1) // 2]
    kernel = np.array([[math.exp(-((a - b) ** 2) / (2 * width**2)) for b in scores] for a in scores])
    centring = np.eye(count) - 1 / count
    for column in shown.T:
        cells = np.array([[0.5 - (a - b) ** 2 for b in column] for a in column])
        found.append(np.trace(cells @ centring @ kernel @ centring) / (count - 1) ** 2)
    return np.array(found)


def test_independence_criteria_equal_their_definition():
    generator = np.random.default_rng(0)
    shown = generator.integers(0, 2, (24, 5)).astype(float)
    scores = shown @ np.array([3.0, 1.0, 0.0, 0.0, -2.0]) + generator.random(24)
    found = independence_criteria(torch.from_numpy(shown), torch.from_numpy(scores)).numpy()
    np.testing.assert_allclose(found, written_out(shown, scores.tolist()), rtol=1e-9, atol=1e-15)


def test_hsic_tells_cells_that_matter_from_cells_that_do_not():
    """The first cell decides most, the second some, the others nothing: theirs is what chance leaves, about 1 / n."""
    model = OfCells(lambda a, b, c, d: 3 * a + b)
    found = cells_of(hsic(model, ONES, FIRST, samples=800, cells=2, shared_seed=0))
    assert found[0] > 5 * found[1] > 25 * found[2:].max()


def test_hsic_does_not_depend_on_the_scores_origin_and_unit():
    plain = OfCells(lambda a, b, c, d: 3 * a + b * c)
    moved = OfCells(lambda a, b, c, d: 100 + 7 * (3 * a + b * c))
    first, second = (hsic(model, ONES, FIRST, samples=200, cells=2, shared_seed=0) for model in (plain, moved))
    torch.testing.assert_close(first, second)


def test_scores_of_few_values_still_tell_cells_apart():
    """More than half of all pairs are equal: their median distance is 0 and can't be the kernel's width."""
    model = OfCells(lambda a, b, c, d: a * b * c)
    found = cells_of(hsic(model, ONES, FIRST, samples=400, cells=2, shared_seed=0))
    assert found[:3].min() > 10 * found[3]


@pytest.mark.parametrize(("method", "size"), [(sobol, {"designs": 8}), (hsic, {"samples": 40})])
def test_designs_are_shared_and_labels_of_one_image_share_their_passes(convnet, images, method, size):
    convnet.eval()
    same, targets = images[[0, 1, 0]], torch.tensor([0, 2, 4])
    apart = [
        method(convnet, same[row : row + 1], targets[row : row + 1], cells=2, shared_seed=3, **size) for row in range(3)
    ]
    passes = []
    convnet.register_forward_pre_hook(lambda module, args: passes.append(len(args[0])))
    together = method(convnet, same, targets, cells=2, shared_seed=3, image_index=[0, 1, 0], **size)
    assert sum(passes) == 2 * (8 * 6 if method is sobol else 40)
    torch.testing.assert_close(together, torch.cat(apart))
    other = method(convnet, same, targets, cells=2, shared_seed=4, **size)
    assert not torch.allclose(other, together)


def test_maps_are_equal_within_cells(convnet, images, targets):
    convnet.eval()
    maps = sobol(convnet, images, targets, designs=4, cells=3, shared_seed=0)
    labels = grid_cells(8, 8, 3)[0]
    for region in labels.unique():
        assert (maps[:, labels == region] == maps[:, labels == region][:, :1]).all()
