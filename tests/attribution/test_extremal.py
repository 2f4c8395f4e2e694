"""Extremal perturbations: the original's masks, area, selection of an area, a known answer, images together."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.one_image_at_a_time import extremal_masks
from roarline.attribution import extremal as module
from roarline.attribution.extremal import Ascent, PerturbedImages, extremal_perturbation, optimise_masks
from roarline.attribution.mask_scores import contrast, logit
from roarline.imaging.area_constraint import area_penalty
from roarline.imaging.mask_generator import MaskGenerator
from roarline.imaging.pyramid import Pyramid, perturbation_levels
from roarline.imaging.unfolded_masks import UnfoldedMasks
from tests.attribution.optimised import Spotlight, golden, inside_and_outside, tiny_net

ORIGINAL = {
    "reward": "simple", "jitter": False, "step_px": 4, "sigma_px": 8.0, "max_sigma_px": 20.0, "smooth": 0.0,
    "select": "sum", "compat": "original",
}  # fmt: skip
BUMP = {"step_px": 4, "sigma_px": 4.0, "smooth": 0.0, "select": "sum"}
REWARDS = {"simple": logit, "contrastive": contrast}


@pytest.fixture(scope="module")
def case():
    return golden("s6_extremal")


def ascent(iterations, compat="corrected"):
    return Ascent(iterations, 0.01, 0.9, 300.0, 1.0035, "preserve", logit, False, compat)


def run(case, iterations, **params):
    """Masks of both areas [2, H, W], through the method, one at a time as ``select: sum`` gives them."""
    image, target = torch.from_numpy(case["in_image"]), torch.from_numpy(case["in_target"])[None]
    masks = [
        extremal_perturbation(
            tiny_net(case), image, target, areas=[area], iterations=iterations, logits_BK=torch.zeros(1, 5),
            image_index=[0], **{**ORIGINAL, **params},
        )
        for area in (0.1, 0.3)
    ]  # fmt: skip
    return torch.cat(masks).numpy()


same_sort = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() != "AVX2",
    reason="the arrays hold what became of equal values ranked by torch's sort with AVX2; it is not stable, and with "
    "vectors of another width it leaves equal values in another order",
)


class TestParity:
    """The original's masks through the method, to 1e-5: rounding is the original's, so no more is needed.

    At the start all parameters are 1 and most of the mask's values are equal or differ by rounding, and their order
    decides what the area constraint takes for ones. So ``compat: original`` adds up in the original's order and sorts
    as it did. Where torch sorts with other vectors, what does not depend on the order of equal values is tested.
    """

    @pytest.mark.parametrize("reward", REWARDS)
    def test_equals_torchrays_first_masks(self, case, reward):
        np.testing.assert_allclose(run(case, 1, reward=reward), case[f"out_{reward}_mask_it1"][:, 0], atol=1e-5)

    @pytest.mark.parametrize("reward", REWARDS)
    def test_small_area_ends_at_torchrays_mask_however_equal_values_are_ranked(self, case, reward):
        """1e-2, as the arrays' README suggests beyond 10 iterations."""
        found, expected = run(case, 60, reward=reward)[0], case[f"out_{reward}_mask_it60"][0, 0]
        np.testing.assert_allclose(found, expected, atol=1e-2)

    @same_sort
    @pytest.mark.parametrize("reward", REWARDS)
    @pytest.mark.parametrize("iterations", [10, 60])
    def test_equals_torchrays_preserving_masks(self, case, reward, iterations):
        found = run(case, iterations, reward=reward)
        np.testing.assert_allclose(found, case[f"out_{reward}_mask_it{iterations}"][:, 0], atol=1e-5)

    @same_sort
    @pytest.mark.parametrize("variant", ["delete", "dual"])
    def test_equals_torchrays_other_variants(self, case, variant):
        found = run(case, 20, variant=variant)
        np.testing.assert_allclose(found, case[f"out_{variant}_mask_it20"][:, 0], atol=1e-5)

    @same_sort
    def test_equals_torchrays_fade_with_jitter_and_smoothing(self, case):
        found = run(case, 20, perturbation="fade", jitter=True, smooth=0.09)
        np.testing.assert_allclose(found, case["out_fade_jitter_smooth_mask_it20"][:, 0], atol=1e-5)


def test_first_penalties_equal_torchrays_with_the_fast_generator(case):
    """The padded mask's, before the first step."""
    generator = MaskGenerator(32, 32, step_px=4, sigma_px=8)
    padded = generator(torch.ones(2, *generator.grid), padded=True).flatten(1)
    np.testing.assert_allclose(
        -300 * area_penalty(padded, [0.1, 0.3]).numpy(), case["out_simple_hist"][:, 1, 0], rtol=1e-5
    )


def spotlight_images(side=24):
    images = 0.1 * torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    images[:, :, 4:12, 10:18] += 2
    return images


def shown(model, images, targets=(0, 0), image_index=(0, 1), **params):
    return extremal_perturbation(
        model, images, torch.tensor(targets), logits_BK=model(images), image_index=image_index, **params
    )


@pytest.mark.parametrize("variant", ["preserve", "delete", "dual"])
@pytest.mark.parametrize("reward", ["simple", "contrastive"])
def test_map_is_high_where_the_network_looks(variant, reward):
    model = Spotlight(slice(4, 12), slice(10, 18), gain=10.0)
    maps = shown(model, spotlight_images(), areas=[0.12], iterations=60, variant=variant, reward=reward, **BUMP)
    for found in maps:
        inside, outside = inside_and_outside(found, model)
        assert inside > 0.25 + outside


AREAS = [0.02, 0.05, 0.1, 0.2, 0.3, 0.4]


def small_network(seed, gain):
    """Random weights; the gain sets how strongly the reward pulls against the area's constraint."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(3, 8, 5, 2, 2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5),
        ).eval().requires_grad_(False)  # fmt: skip
    model[-1].weight.mul_(gain)
    return model


def smooth_image(side, seed):
    drawn = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(drawn, size=(side, side), mode="bicubic")


def masks_of_areas(model, image, areas, generator, **params):
    """[A, H, W]: all areas of one image in the same passes."""
    images = image.repeat(len(areas), 1, 1, 1)
    levels = perturbation_levels(image, 8, params.pop("perturbation", "blur"), max_sigma_px=20 * image.shape[3] / 224)
    perturbed = PerturbedImages(Pyramid.of(levels), torch.zeros(len(areas), dtype=torch.long), torch.contiguous_format)
    how = ascent(params.pop("iterations"), params.pop("compat", "corrected"))
    how = replace(how, **{"score": contrast, "jitter": True, **params})
    return optimise_masks(model, perturbed, model(images).argmax(dim=1), areas, generator, how)


@pytest.mark.parametrize("variant", ["preserve", "delete", "dual"])
@pytest.mark.parametrize(
    ("side", "sigma", "seed", "gain"), [(32, 3.0, 0, 10), (32, 3.0, 1, 300), (24, 2.0, 2, 30), (24, 3.0, 3, 0)]
)
def test_masks_have_the_area_asked_for_within_1_percent_of_the_image(side, sigma, seed, gain, variant):
    """Both as the mean and as the share of pixels above 1/2; with a gain of 0 the network has no say."""
    model, image = small_network(seed, gain), smooth_image(side, seed)
    generator = MaskGenerator(side, side, step_px=1, sigma_px=sigma)
    masks = masks_of_areas(model, image, AREAS, generator, iterations=30, variant=variant)
    for areas in (masks.mean(dim=(1, 2)), (masks > 0.5).float().mean(dim=(1, 2))):
        torch.testing.assert_close(areas, torch.tensor(AREAS), rtol=0, atol=0.01)


@pytest.mark.parametrize("area", AREAS)
def test_smoothing_keeps_the_mean(area):
    """Of the method with its defaults but for the number of steps; nothing of the mask is lost at the border."""
    model, image = small_network(0, 10), smooth_image(32, 0)
    logits = model(image)
    (found,) = extremal_perturbation(
        model, image, logits.argmax(dim=1), areas=[area], iterations=30, logits_BK=logits, image_index=[0]
    )
    assert found.mean().item() == pytest.approx(area, abs=0.01)


def test_torchrays_area_counts_the_invisible_margin_so_that_the_visible_mask_is_too_large():
    model = Spotlight(slice(3, 15), slice(3, 24))
    image = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0)) + 0.5
    generator = MaskGenerator(24, 24, step_px=4, sigma_px=4.0)
    original = masks_of_areas(
        model, image, [0.3], generator, compat="original", score=logit, jitter=False, iterations=100,
        perturbation="fade",
    )  # fmt: skip
    assert original.mean() > 0.36


def test_the_area_constraints_first_order_favours_no_place():
    """Else a network with small logits gets what the smooth maximum makes highest, the border, for every image."""
    generator = MaskGenerator(32, 32, step_px=1, sigma_px=3.0)
    ones = torch.ones(1, *generator.grid)
    evening, pace = module._evening_and_pace(generator, ones)
    first = generator(ones)
    assert (first * evening).std() < 0.05 * first.std()
    assert pace[0, 0, 0] > 2 * pace[0, 16, 16]  # a corner's bump lies outside by more than half
    assert pace.min() == 1


def test_selects_the_first_area_that_reaches_the_logit_else_the_largest():
    """Fading loses brightness: class 0 needs the whole rectangle; class 1's logit is 0 whatever is shown."""
    model, images = Spotlight(slice(4, 12), slice(10, 18)), spotlight_images()
    params = {**BUMP, "iterations": 15, "areas": [0.4, 0.1], "perturbation": "fade"}
    small, large = (shown(model, images, (1, 1), **{**params, "areas": [area], "select": "sum"}) for area in (0.1, 0.4))
    params["select"] = "first_area_reaching_logit"
    torch.testing.assert_close(shown(model, images, (1, 1), **params), small)
    large = shown(model, images, (0, 0), **{**params, "areas": [0.4], "select": "sum"})
    torch.testing.assert_close(shown(model, images, (0, 0), **params), large)


def test_sum_is_the_sum_of_the_masks_of_single_areas():
    model, images = Spotlight(slice(4, 12), slice(10, 18)), spotlight_images()
    single = [shown(model, images, areas=[area], iterations=5, **BUMP) for area in (0.1, 0.3)]
    torch.testing.assert_close(shown(model, images, areas=[0.3, 0.1], iterations=5, **BUMP), sum(single))


def test_equals_an_image_at_a_time_by_definition(monkeypatch):
    """``compat: original``: two images of three areas."""
    monkeypatch.setattr(module, "pass_size", lambda *args, **kwargs: 3)  # as many rows in a pass as there
    case = golden("s6_extremal")
    model, images = tiny_net(case), torch.from_numpy(case["in_image"]).repeat(2, 1, 1, 1)
    images[1] = images[1].flip(1)
    areas, definition = [0.1, 0.2, 0.3], UnfoldedMasks(32, 32, step_px=4, sigma_px=8.0)
    found = shown(
        model, images, (4, 2), areas=areas, iterations=8, jitter=True, max_sigma_px=20.0, smooth=0.0, select="sum",
        compat="original", step_px=4, sigma_px=8.0,
    )  # fmt: skip
    for row, target in enumerate((4, 2)):
        expected = extremal_masks(model, images[row : row + 1], target, areas, 8, definition).sum(dim=0)
        torch.testing.assert_close(found[row], expected, rtol=0, atol=1e-4)


def test_sizes_follow_the_image_from_the_published_ones_at_224_px(monkeypatch):
    seen = {}

    class EnoughError(Exception):
        pass

    def look(height, width, *, step_px, sigma_px, combine):
        seen[height] = (step_px, sigma_px)
        raise EnoughError

    monkeypatch.setattr(module, "MaskGenerator", look)
    for side in (224, 32, 448):
        with pytest.raises(EnoughError):
            shown(Spotlight(slice(1), slice(1)), torch.zeros(1, 3, side, side), [0], [0])
    assert seen == {224: (7, 21.0), 32: (1, 3.0), 448: (14, 42.0)}
