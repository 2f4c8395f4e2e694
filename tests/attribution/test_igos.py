"""I-GOS and iGOS++: the original's masks, step sizes and gradients; the line search; a known answer."""

import itertools

import numpy as np
import pytest
import torch

from roarline.attribution import igos as module
from roarline.attribution.igos import Objective, Term, igos, igos_plus_plus, optimise
from roarline.imaging.total_variation import bilateral_total_variation, total_variation
from tests.attribution.optimised import Spotlight, golden, inside_and_outside, tiny_net

DELETE, INSERT = Term((0,), 1, False), Term((1,), -1, True)
BOTH = (DELETE, INSERT, Term((0, 1), 1, False), Term((0, 1), -1, True))
TARGET = torch.tensor([1])


def bilateral(product, images):
    roughness = bilateral_total_variation(images, product, vertical="square_of_mean")
    return (1 - product).abs().mean(dim=(1, 2)) + 20 * roughness


def plain(product, images):
    return (1 - product).abs().mean(dim=(1, 2)) + 20 * total_variation(product, 2)


def silent(row, count):
    return torch.zeros(())


def fixed(case):
    """The same three images of noise at the three steps of every path."""
    noise = 0.2 * torch.from_numpy(case["in_noise_fixed"])[0]
    position = itertools.count()
    return lambda row, count: torch.stack([noise[next(position) % 3] for _ in range(count)])


@pytest.fixture
def case():
    return golden("s0_igos_pp")


@pytest.fixture
def lengths(monkeypatch):
    """Step sizes, as they are chosen."""
    chosen = []
    search = module._line_search

    def remember(*args):
        steps = search(*args)
        chosen.append(steps.tolist())
        return steps

    monkeypatch.setattr(module, "_line_search", remember)
    return chosen


def run(case, objective, iterations, step, draw=silent):
    image, baseline = (torch.from_numpy(case[f"in_{name}"]) for name in ("image", "baseline"))
    return optimise(tiny_net(case), image, baseline, TARGET, objective, iterations, 3, 6, step, draw).numpy()


@pytest.mark.parametrize("noise", ["zero", "fixed"])
@pytest.mark.parametrize("iterations", [1, 3, 6])
def test_plus_plus_equals_the_original(case, lengths, noise, iterations):
    """First the step sizes: where they agree, masks differ by rounding alone."""
    draw = silent if noise == "zero" else fixed(case)
    masks = run(case, Objective(BOTH, 0.5, bilateral), iterations, 1000.0, draw)
    np.testing.assert_allclose(np.ravel(lengths), case[f"out_{noise}_alphas"][:iterations], rtol=1e-6)
    np.testing.assert_allclose(masks, case[f"out_{noise}_mask_it{iterations}"][:, 0], atol=1e-5)


def test_map_is_the_originals_before_it_is_stretched_for_display(case, monkeypatch):
    baseline = torch.from_numpy(case["in_baseline"])
    monkeypatch.setattr(module, "gaussian_blur", lambda images, sigma, *, radius_px: baseline)
    (found,) = igos_plus_plus(
        tiny_net(case), torch.from_numpy(case["in_image"]), TARGET, iterations=6, integration_steps=3, mask_size=6,
        noise=0.0, compat="original", seeds=[0],
    ).numpy()  # fmt: skip
    stretched = (found - found.min()) / (found.max() - found.min())
    np.testing.assert_allclose(stretched, case["out_final_map"], atol=1e-4)  # divided by a range of 0.14
    assert found.max() < 0.2


@pytest.mark.parametrize(
    ("name", "terms", "regulariser"),
    [("igos", (DELETE,), plain), ("igos_p", (DELETE, Term((0,), -1, True)), bilateral)],
)
def test_single_masks_equal_the_originals(case, lengths, name, terms, regulariser):
    masks = run(case, Objective(terms, 1.0, regulariser), 2, 8.0)
    np.testing.assert_allclose(np.ravel(lengths), case[f"out_{name}_alphas"], rtol=1e-6)
    np.testing.assert_allclose(masks, case[f"out_{name}_mask_it2"][:, 0], atol=1e-5)


def test_igos_is_the_single_deleting_mask(case, monkeypatch):
    baseline = torch.from_numpy(case["in_baseline"])
    monkeypatch.setattr(module, "gaussian_blur", lambda images, sigma, *, radius_px: baseline)
    found = igos(
        tiny_net(case), torch.from_numpy(case["in_image"]), TARGET, iterations=2, integration_steps=3, mask_size=6,
        noise=0.0, seeds=[0],
    )  # fmt: skip
    expected = 1 - resized(torch.from_numpy(case["out_igos_mask_it2"])[:, 0], (24, 24))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def resized(masks, size):
    return torch.nn.functional.interpolate(masks[:, None], size=size, mode="bilinear", align_corners=True)[:, 0]


def test_plus_plus_equals_the_original_with_fresh_noise_at_every_call(lengths):
    """Its gradients draw for D · K before D and K, its losses after: the recorded noise is handed out accordingly."""
    case = golden("s0_igos_pp_noise_sequence")
    calls = list(0.2 * torch.from_numpy(case["in_noise_flat"]).reshape(-1, 3, 3, 12, 12))
    tries = (4, 6)  # of the line search: 1000 · 0.2³ = 8 and 1000 · 0.2⁵ = 0.32
    ordered, start = [], 0
    for count in tries:
        ordered += [calls[start + call] for call in (2, 3, 0, 1)]
        ordered += calls[start + 4 : start + 8 + 4 * count]
        start += 8 + 4 * count
    noise = torch.cat(ordered)
    position = itertools.count()
    masks = run(
        case, Objective(BOTH, 0.5, bilateral), 2, 1000.0,
        lambda row, count: torch.stack([noise[next(position)] for _ in range(count)]),
    )  # fmt: skip
    np.testing.assert_allclose(np.ravel(lengths), case["out_alphas"], rtol=1e-6)
    np.testing.assert_allclose(masks, case["out_mask_it2"][:, 0], atol=1e-5)
    assert next(position) == len(noise)


def test_each_row_finds_its_own_step_and_rows_that_have_theirs_are_not_run_again():
    """c / 2 · (m - 0.4)² from m = 0.5: a step t lowers it enough where t · c < 2; below 1e-5 nothing is tried."""
    curvature = torch.tensor([0.1, 5.0, 40.0, 1e7])
    asked = []

    def loss(masks, rows):
        asked.append(rows.tolist())
        return curvature[rows] / 2 * (masks[:, 0, 0, 0] - 0.4).square()

    masks = torch.full((4, 1, 1, 1), 0.5)
    gradient = (0.1 * curvature)[:, None, None, None]
    steps = module._line_search(loss, masks, gradient, 1.0, torch.arange(4))
    torch.testing.assert_close(steps, torch.tensor([1.0, 0.2, 0.2**2, 0.2**8]))
    assert asked == [[0, 1, 2, 3], [0, 1, 2, 3], [1, 2, 3], [2, 3], *[[3]] * 5]


def settings_used(monkeypatch, method, side=8, **params):
    """Iterations, integration steps, cells along a side, and the regulariser's value for one image and mask."""
    seen = []

    def look(model, images, baselines, targets, objective, iterations, integration_steps, size, step, draw):
        mask = torch.rand(1, 4, 4, generator=torch.Generator().manual_seed(1))
        seen.append((iterations, integration_steps, size, objective.regulariser(mask, images).item()))
        return images.new_ones(len(images), size, size)

    monkeypatch.setattr(module, "optimise", look)
    images = 0.1 * torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    method(None, images, TARGET, seeds=[0], **params)
    return seen[0]


@pytest.mark.parametrize("method", [igos, igos_plus_plus])
def test_iterations_and_integration_steps_are_swapped_in_the_original_alone(method, monkeypatch):
    """Spec B0.1: the program passes ``ig_iter`` (20) as the iterations and ``iterations`` (15) as the steps."""
    found = [
        settings_used(monkeypatch, method, **params)[:2]
        for params in ({}, {"compat": "original"}, {"integration_steps": 3}, {"compat": "original", "iterations": 2})
    ]
    assert found == [(15, 20), (20, 15), (15, 3), (2, 15)]


def test_vertical_edges_are_weighed_by_another_formula_in_the_original_alone(monkeypatch):
    images = 0.1 * torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    mask = torch.rand(1, 4, 4, generator=torch.Generator().manual_seed(1))
    found = [settings_used(monkeypatch, igos_plus_plus, **p)[3] for p in ({}, {"compat": "original"})]
    for value, vertical in zip(found, ("mean_of_exponentials", "square_of_mean"), strict=True):
        rough = bilateral_total_variation(images, mask, vertical=vertical)
        assert value == pytest.approx(((1 - mask).mean() + 20 * rough).item())
    assert found[0] != pytest.approx(found[1])


@pytest.mark.parametrize("method", [igos, igos_plus_plus])
def test_small_images_have_fewer_cells_unless_told(method, monkeypatch):
    """28 cells of 224 px have 8 px; of 8 px they would be finer than pixels."""
    assert [settings_used(monkeypatch, method, side)[2] for side in (3, 8, 32, 56, 224)] == [2, 4, 16, 28, 28]
    assert settings_used(monkeypatch, method, 8, mask_size=28)[2] == 28


@pytest.mark.parametrize("method", [igos, igos_plus_plus])
def test_map_is_high_where_the_network_looks(method):
    model = Spotlight(slice(4, 12), slice(16, 26), gain=2.0)
    images = 0.1 * torch.rand(2, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    images[:, :, 4:12, 16:26] += 2
    maps = method(
        model, images, torch.tensor([0, 0]), iterations=6, integration_steps=4, mask_size=8, l1=0.01, l2=0.01,
        noise=0.05, seeds=[1, 2],
    )  # fmt: skip
    for found in maps:
        inside, outside = inside_and_outside(found, model)
        assert inside > 0.2 + outside
    assert maps.min() >= 0
    assert maps.max() <= 1
