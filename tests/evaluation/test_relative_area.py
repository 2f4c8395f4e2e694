"""Areas between curves of retrained networks: what arithmetic gives, and intervals."""

import numpy as np
import pytest
import torch

from roarline.evaluation.relative_area import NO_AREA, AreaTerms, area_terms, relative_area, summarise_areas

FRACTIONS = [0.0, 0.5, 1.0]


def curve(*accuracies: float, repeats: int = 1, images: int = 10) -> torch.Tensor:
    """[S, R, M] with these shares of right predictions."""
    right = [torch.arange(images) < round(accuracy * images) for accuracy in accuracies]
    return torch.stack(right)[:, None].expand(-1, repeats, -1).double()


def test_random_has_no_area_of_its_own():
    random = curve(1.0, 0.6, 0.2)
    assert relative_area(area_terms(FRACTIONS, random, random)) == 0.0


def test_the_area_is_that_of_the_papers_sums():
    random, method = curve(1.0, 0.6, 0.2), curve(1.0, 0.3, 0.2)
    # Σ ½ Δx (Δy_i + Δy_i+1) with Δy = 0, 0.3, 0; and with Δz = 0.8, 0.4, 0
    expected = (0.25 * 0.3 + 0.25 * 0.3) / (0.25 * (0.8 + 0.4) + 0.25 * 0.4)
    assert relative_area(area_terms(FRACTIONS, method, random)) == pytest.approx(expected, abs=1e-12)
    assert relative_area(area_terms(FRACTIONS, curve(1.0, 0.9, 0.2), random)) == pytest.approx(-expected, abs=1e-12)


def test_losing_everything_at_once_tends_to_one():
    fractions = [0.0, 1e-9, 0.5, 1.0]
    random, method = curve(1.0, 1.0, 0.6, 0.2), curve(1.0, 0.2, 0.2, 0.2)
    assert relative_area(area_terms(fractions, method, random)) == pytest.approx(1.0, abs=1e-8)


def test_uneven_fractions_weigh_by_their_distance():
    fractions = [0.0, 0.1, 1.0]
    random, method = curve(1.0, 1.0, 0.0), curve(1.0, 0.5, 0.0)
    assert relative_area(area_terms(fractions, method, random)) == pytest.approx(0.25 / 0.55, abs=1e-12)


def test_where_random_removal_costs_as_much_as_any_there_is_no_area():
    flat = curve(0.2, 0.2, 0.2)
    rows = summarise_areas(
        "m", {"random": area_terms(FRACTIONS, flat, flat)}, baseline="random", confidence=0.95, resamples=100, seed=0
    )
    assert (rows[0].value, rows[0].interval, rows[0].status) == (None, None, NO_AREA)


def summarised(terms: dict[str, AreaTerms], **changes: object):
    settings = {"baseline": "random", "confidence": 0.95, "resamples": 2000, "seed": 0, **changes}
    return {row.method: row for row in summarise_areas("roar_relative_area", terms, **settings)}


def noisy(accuracy: float, rng: np.random.Generator, repeats: int, images: int) -> torch.Tensor:
    """A method's curve at FRACTIONS; repeats differ by more than their images let them."""
    levels = np.clip(accuracy + rng.normal(0, 0.05, (repeats, 1)), 0, 1)
    middle = torch.from_numpy((rng.random((repeats, images)) < levels).astype(float))
    ends = torch.ones(repeats, images, dtype=torch.float64)
    return torch.stack([ends, middle, torch.from_numpy((rng.random((repeats, images)) < 0.1).astype(float))])


def test_a_method_is_ranked_and_random_takes_part_without_a_difference():
    random = curve(1.0, 0.6, 0.2)
    terms = {
        "good": area_terms(FRACTIONS, curve(1.0, 0.3, 0.2), random),
        "random": area_terms(FRACTIONS, random, random),
        "bad": area_terms(FRACTIONS, curve(1.0, 0.8, 0.2), random),
    }
    rows = summarised(terms)
    assert [rows[name].rank for name in ("good", "random", "bad")] == [1, 2, 3]
    assert rows["random"].interval == (0.0, 0.0)
    assert rows["random"].difference is None
    assert rows["good"].difference == rows["good"].value
    assert rows["good"].n == 10


def test_more_repeats_that_disagree_widen_the_interval_and_none_hides_them():
    """One repeat says nothing of others; two that agree on every image add nothing; two that differ do."""
    rng = np.random.default_rng(0)
    random = noisy(0.7, rng, 1, 400)
    one = noisy(0.4, rng, 1, 400)
    agreeing = area_terms(FRACTIONS, one.expand(-1, 2, -1), random.expand(-1, 2, -1))
    other = one.clone()
    other[1, 0] = (torch.rand(400, generator=torch.Generator().manual_seed(1)) < 0.2).double()
    differing = area_terms(FRACTIONS, torch.cat([one, other], dim=1), random.expand(-1, 2, -1))
    width = {
        name: float(np.diff(summarised({"random": terms, "m": terms})["m"].interval)[0])
        for name, terms in (
            ("one", area_terms(FRACTIONS, one, random)), ("agreeing", agreeing), ("differing", differing),
        )
    }  # fmt: skip
    assert width["agreeing"] == pytest.approx(width["one"], rel=1e-9)
    assert width["differing"] > 2 * width["one"]


def test_intervals_cover_the_true_ratio_as_often_as_they_say():
    """Truth: random 0.7, method 0.4, end 0.1: (0.5 · 0.3) / (¼ · 0.9 + ½ · 0.6) = 0.2857…"""
    rng = np.random.default_rng(5)
    truth, hits, tries = (0.5 * 0.3) / (0.25 * 0.9 + 0.5 * 0.6), 0, 100
    for seed in range(tries):
        random, method = noisy(0.7, rng, 4, 120), noisy(0.4, rng, 4, 120)
        method[2] = random[2]
        terms = area_terms(FRACTIONS, method, random)
        low, high = summarised({"random": terms, "m": terms}, resamples=200, seed=seed)["m"].interval
        hits += low <= truth <= high
    # 95 of 100, standard deviation 2.2; percentiles of resamples are a little narrow, seldom below 90 %
    assert hits >= 90 - 2 * 2.2
