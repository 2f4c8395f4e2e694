"""Meaningful perturbation: the seed's masks, both presets, jitter, discs, classes, a known answer."""

import itertools
import json
from dataclasses import asdict, fields, replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from roarline.attribution import meaningful as module
from roarline.attribution.meaningful import PRESETS, Settings, meaningful_perturbation, optimise, smallest_sufficient
from roarline.config.mask_params import MeaningfulPerturbationParams
from tests.attribution.optimised import Spotlight, golden, inside_and_outside, tiny_net

CASES = {"default": [1, 5, 30], "alt": [1, 5, 30], "noise": [1, 5]}
ROWS, COLUMNS = slice(4, 12), slice(10, 20)


def settings_of(case, iterations):
    params = json.loads(str(case["params"]))
    return replace(
        PRESETS["seed"], iterations=iterations, learning_rate=params["lr"], l1=params["l1_coeff"],
        tv=params["tv_coeff"], tv_exponent=params["tv_beta"], mask_size=params["mask_size"],
        noise=0.2 if "in_noise" in case else 0.0,
    )  # fmt: skip


@pytest.mark.parametrize(("name", "iterations"), [(name, count) for name, counts in CASES.items() for count in counts])
def test_equals_the_seeds_masks(name, iterations):
    """1e-5: float32; up to 30 steps of Adam, of which the suggestion allows 1e-2."""
    case = golden(f"s1_mp_{name}")
    steps = itertools.count()
    found = optimise(
        tiny_net(case), torch.from_numpy(case["out_x"]), torch.from_numpy(case["out_x_blur"]),
        torch.from_numpy(case["out_category"]).reshape(1, 1), torch.ones(1, 6, 6), settings_of(case, iterations),
        lambda row, count: torch.from_numpy(case["in_noise"][next(steps)].transpose(2, 0, 1))[None], [0],
    )  # fmt: skip
    np.testing.assert_allclose(found.numpy(), case[f"out_mask_it{iterations}"][:, 0], atol=1e-5)


def explain(model, images, targets=(0, 0), image_index=(0, 1), **params):
    return meaningful_perturbation(
        model, images, torch.tensor(targets), seeds=[1, 2], logits_BK=model(images), image_index=image_index,
        std=[0.25] * 3, **params,
    )  # fmt: skip


def test_whole_method_equals_the_seeds_map_before_it_is_stretched_for_display():
    """The seed's display divides by the maximum in place of the range; the raw map is 1 - mask."""
    case = golden("s1_mp_default")
    model, image = tiny_net(case), torch.from_numpy(case["out_x"])
    settings = asdict(settings_of(case, 30))
    (found,) = meaningful_perturbation(
        model, image, torch.from_numpy(case["out_category"]).reshape(1), seeds=[0], logits_BK=model(image),
        image_index=[0], std=[0.25], **settings,
    ).numpy()  # fmt: skip
    np.testing.assert_allclose(found, 1 - case["out_up_final"][0, 0], atol=1e-4)
    mask = 1 - found
    displayed = 1 - (mask - mask.min()) / mask.max()
    np.testing.assert_allclose(displayed, case["out_heatmap_raw"][..., 0], atol=1e-4)


def spotlight_images():
    images = 0.1 * torch.rand(2, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    images[:, :, ROWS, COLUMNS] += torch.rand(8, 10, generator=torch.Generator().manual_seed(1)) + 1
    return images


@pytest.mark.parametrize("perturbation", ["median", "gaussian", "average", "mean_colour", "noise"])
@pytest.mark.parametrize("preset", PRESETS)
def test_map_is_high_where_the_network_looks(preset, perturbation):
    """The rectangle is bright, so that anything else in its place lowers the logit."""
    model = Spotlight(ROWS, COLUMNS, gain=2.0)
    cells = 1 if preset == "seed" else 64  # the paper's preset sums over cells; without variation, what is level stays
    kept = {"blur_sigma_px": 5.0, "median_px": 31, "mask_sigma_px": 0.5, "start": "ones", "l1": 0.5 / cells, "tv": 0.0}
    maps = explain(
        model, spotlight_images(), preset=preset, perturbation=perturbation, iterations=25, mask_size=8, **kept
    )
    for found in maps:
        inside, outside = inside_and_outside(found, model)
        assert inside > 0.2 + outside
    assert maps.min() >= 0
    assert maps.max() <= 1


def test_presets_are_the_published_constants_and_every_one_is_a_parameter(monkeypatch):
    seed, paper = PRESETS["seed"], PRESETS["paper"]
    assert (seed.iterations, seed.learning_rate, seed.l1, seed.tv, seed.noise) == (500, 0.1, 0.01, 0.2, 0.2)
    assert (seed.perturbation, seed.start, seed.upsampling, seed.jitter_px) == ("median", "ones", "bilinear", 0)
    assert (paper.iterations, paper.learning_rate, paper.l1, paper.tv, paper.noise) == (300, 0.1, 1e-4, 1e-2, 0)
    assert (paper.perturbation, paper.blur_sigma_px, paper.regularisers) == ("gaussian", 10, "sum")
    assert (paper.start, paper.upsampling, paper.mask_sigma_px, paper.jitter_px) == ("disc", "nearest", 5, 4)
    names = {field.name for field in fields(Settings)}
    assert names == set(MeaningfulPerturbationParams.model_fields) - {"preset"}
    seen = []

    def look(model, images, perturbed, classes, masks, settings, draw, seeds):
        seen.append(settings)
        return masks

    monkeypatch.setattr(module, "optimise", look)
    changed = asdict(seed) | {"start": "ones", "perturbation": "mean_colour", "iterations": 3, "mask_size": 4}
    for preset in PRESETS:
        explain(Spotlight(ROWS, COLUMNS), spotlight_images(), preset=preset, **changed)
    assert seen[0] == seen[1] == Settings(**changed)


@pytest.mark.parametrize("preset", PRESETS)
def test_small_images_have_fewer_cells_unless_told(preset, monkeypatch):
    """28 cells of 224 px have 8 px; of 8 px they would be finer than pixels."""
    seen = []

    def look(model, images, perturbed, classes, masks, settings, draw, seeds):
        seen.append(masks)
        return masks

    monkeypatch.setattr(module, "optimise", look)
    for height, params in ((8, {}), (40, {}), (224, {}), (8, {"mask_size": 28})):
        images = torch.zeros(2, 3, height, 224)
        explain(Spotlight(ROWS, COLUMNS), images, preset=preset, start="ones", perturbation="mean_colour", **params)
    assert [masks.shape[1:] for masks in seen] == [(4, 4), (20, 20), (28, 28), (28, 28)]


@pytest.mark.parametrize("median_px", [2, 10])
def test_an_even_median_is_refused_where_parameters_are_read(median_px):
    """And not in the worker, where the blur would raise."""
    with pytest.raises(ValidationError, match=f"median_px is {median_px}, expected an odd number"):
        MeaningfulPerturbationParams(median_px=median_px)
    assert MeaningfulPerturbationParams(median_px=median_px + 1).median_px == median_px + 1


def test_jitter_shows_the_network_shifted_images_under_a_mask_that_stays():
    """A mask of ones shows the image itself, shifted by the row's own draw of 0 to 3 px, its border continued."""
    shown = []

    class Watching(Spotlight):
        def forward(self, images):
            shown.append(images.detach())
            return super().forward(images)

    images = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    settings = replace(PRESETS["paper"], iterations=20, learning_rate=1e-9)
    optimise(
        Watching(ROWS, COLUMNS), images, torch.zeros_like(images), torch.zeros(2, 1, dtype=torch.long),
        torch.ones(2, 4, 4), settings, None, [1, 2],
    )  # fmt: skip
    padded = torch.nn.functional.pad(images, (2, 1, 2, 1), mode="replicate")
    found = [set(), set()]
    for inputs in shown:
        for row in range(2):
            matching = [
                (y, x)
                for y, x in itertools.product(range(4), repeat=2)
                if torch.allclose(inputs[row], padded[row, :, y : y + 12, x : x + 12], atol=1e-4)
            ]
            assert len(matching) == 1
            found[row].add(matching[0])
    assert all(len({offset[axis] for offset in offsets}) == 4 for offsets in found for axis in (0, 1))


def test_disc_is_the_smallest_that_leaves_less_than_1_percent_of_the_drop():
    """Row 0 falls from 0.9 to 0.1: 0.108 is 1 % of that drop above the end; row 1 never falls before the last one."""
    scores = torch.tensor([[0.9, 0.5, 0.109, 0.107, 0.2, 0.1], [0.3, 0.3, 0.3, 0.3, 0.3, 0.1]])
    assert smallest_sufficient(scores, torch.tensor([0.9, 0.3])).tolist() == [3, 5]
    assert smallest_sufficient(scores[:1], torch.tensor([0.05])).tolist() == [5]  # nothing dropped: all of it


def test_paper_starts_from_the_complement_of_a_disc_that_covers_what_the_network_sees():
    images = torch.zeros(2, 3, 32, 32)
    images[:, :, 12:20, 12:20] = 2
    model = Spotlight(slice(12, 20), slice(12, 20), gain=5.0)
    settings = replace(PRESETS["paper"], mask_size=16)
    logits, classes = model(images), torch.zeros(2, 1, dtype=torch.long)
    starts = module._starts(model, images, torch.zeros_like(images), classes, logits, settings)
    assert starts[:, 6:10, 6:10].max() < 0.05
    assert starts[:, [0, 0, -1, -1], [0, -1, 0, -1]].min() > 0.95


def test_more_than_one_class_is_the_summed_probability_of_the_likeliest():
    logits = torch.tensor([[0.0, 3.0, 1.0, 2.0]])
    assert module._explained(logits, torch.tensor([0]), 1).tolist() == [[0]]
    assert sorted(module._explained(logits, torch.tensor([0]), 3)[0].tolist()) == [1, 2, 3]
    found = module._probability(logits, torch.tensor([[1, 3]]))
    torch.testing.assert_close(found, logits.softmax(dim=1)[:, [1, 3]].sum(dim=1))


def test_rows_of_one_image_are_blurred_once(monkeypatch):
    counted = []
    monkeypatch.setattr(module, "median_blur", lambda images, side: counted.append(len(images)) or images)
    images = spotlight_images()[[0, 0]]
    explain(Spotlight(ROWS, COLUMNS), images, (0, 1), (7, 7), iterations=1, mask_size=4)
    assert counted == [1]
