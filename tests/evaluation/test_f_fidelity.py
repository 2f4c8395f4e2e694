"""F-Fidelity: counts, draws, and networks for which mathematics says what must come out."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from roarline.evaluation.f_fidelity import Gap, f_fidelity, gaps, random_part, target_scores
from roarline.imaging.ranking import rank_pixels

SIDE = 8
PIXELS = SIDE**2


def ranks_of(maps: torch.Tensor) -> torch.Tensor:
    return rank_pixels(maps, list(range(len(maps))))


def seeds_for(rows: int, samples: int) -> list[list[int]]:
    return [[1000 * row + sample for row in range(rows)] for sample in range(samples)]


def test_a_share_of_each_part_goes_and_never_more_than_beta():
    """The paper's min(α · s, β · d): 0.5 · 16 = 8 and 0.5 · 48 = 24 of 64 pixels, cut at 0.1 · 64 = 6."""
    settings = {"alpha_plus": 0.5, "alpha_minus": 0.5}
    assert gaps([0.25], PIXELS, **settings, beta=1.0) == [Gap(16, 8, 24)]
    assert gaps([0.25], PIXELS, **settings, beta=0.1) == [Gap(16, 6, 6)]
    assert gaps([0.05, 0.95], PIXELS, **settings, beta=0.1) == [Gap(3, 1, 6), Gap(60, 6, 2)]
    with pytest.raises(ValueError, match="less than one pixel"):
        gaps([0.25], PIXELS, **settings, beta=0.01)
    with pytest.raises(ValueError, match=r"size 0\.02"):
        gaps([0.02], PIXELS, **settings, beta=0.5)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 999), size=st.integers(1, 19), data=st.data())
def test_a_random_part_has_exactly_the_count_and_lies_inside(seed, size, data):
    count = data.draw(st.integers(0, size))
    order = rank_pixels(torch.zeros(3, 4, 5), [seed, seed + 1, seed + 2]).flatten(1).long()
    inside = (
        rank_pixels(torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(seed)), [0, 1, 2]).flatten(1) < size
    )
    part = random_part(order, inside, count)
    assert part.sum(1).tolist() == [count] * 3
    assert not bool((part & ~inside).any())


def test_every_pixel_of_a_part_is_as_likely_as_any_other():
    rows = 4000
    order = rank_pixels(torch.zeros(rows, 4, 5), list(range(rows))).flatten(1).long()
    inside = (torch.arange(20) < 10).expand(rows, -1)
    share = random_part(order, inside, 3).float().mean(0)
    # a binomial share of 0.3 has a standard deviation of sqrt(0.21 / 4000) = 0.0072
    assert (share[:10] - 0.3).abs().max() < 5 * 0.0072
    assert not share[10:].any()


def linear(weights_HW: torch.Tensor):
    """A score that is a sum over pixels."""
    return lambda images: (images * weights_HW).sum((1, 2, 3))


def test_of_a_linear_network_gaps_cost_what_the_missing_pixels_gave():
    """Every pixel of the true explanation gives 1, others nothing: FFid+ is the count itself, FFid− is 0."""
    images = torch.ones(2, 1, SIDE, SIDE)
    weights = torch.zeros(SIDE, SIDE)
    weights[:2] = 1.0  # 16 of 64 pixels
    parts = [Gap(16, 6, 9)]
    found = f_fidelity(
        linear(weights), images, ranks_of(weights.expand(2, -1, -1)), torch.zeros(()), parts, seeds_for(2, 4)
    )
    assert found[0].tolist() == [[6.0], [6.0]]
    assert found[1].tolist() == [[0.0], [0.0]]
    backwards = f_fidelity(
        linear(weights), images, ranks_of(-weights.expand(2, -1, -1)), torch.zeros(()), [Gap(48, 6, 9)], seeds_for(2, 4)
    )
    assert backwards[0].tolist() == [[0.0], [0.0]]
    assert backwards[1].tolist() == [[9.0], [9.0]]


def test_a_map_that_knows_nothing_loses_the_same_share_on_both_sides():
    """The expectation of a gap of k random pixels is k/d of the sum; 300 samples of 200 rows come close."""
    images = torch.ones(200, 1, SIDE, SIDE)
    weights = torch.zeros(SIDE, SIDE)
    weights[:2] = 1.0
    maps = torch.rand(200, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    found = f_fidelity(linear(weights), images, ranks_of(maps), torch.zeros(()), [Gap(32, 8, 8)], seeds_for(200, 20))
    # 8 of 64 pixels: 8 · 16 / 64 = 2; per row a hypergeometric sum of variance below 2, its mean over rows below 0.1
    assert found.mean(1).flatten().tolist() == pytest.approx([2.0, 2.0], abs=0.5)


def test_the_right_map_beats_random_and_random_its_opposite():
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(30, 1, SIDE, SIDE, generator=generator)
    weights = torch.randn(SIDE, SIDE, generator=generator)
    maps = {"right": images[:, 0] * weights, "random": torch.rand(30, SIDE, SIDE, generator=generator)}
    maps["wrong"] = -maps["right"]
    plus, minus = {}, {}
    for name, values in maps.items():
        parts = gaps([0.2, 0.5], PIXELS, alpha_plus=0.5, alpha_minus=0.5, beta=0.1)
        found = f_fidelity(linear(weights), images, ranks_of(values), torch.zeros(()), parts, seeds_for(30, 5))
        plus[name], minus[name] = found.mean((1, 2)).tolist()
    assert plus["right"] > plus["random"] > plus["wrong"]
    assert minus["right"] < minus["random"] < minus["wrong"]


def test_a_row_depends_neither_on_the_others_nor_on_its_place():
    generator = torch.Generator().manual_seed(2)
    images, maps = torch.rand(5, 3, SIDE, SIDE, generator=generator), torch.rand(5, SIDE, SIDE, generator=generator)
    weights = torch.randn(SIDE, SIDE, generator=generator)
    ranks, seeds = ranks_of(maps), seeds_for(5, 3)
    parts = gaps([0.3, 0.6], PIXELS, alpha_plus=0.4, alpha_minus=0.3, beta=0.2)

    def of(rows: list[int]) -> torch.Tensor:
        own = [[sample[row] for row in rows] for sample in seeds]
        return f_fidelity(linear(weights), images[rows], ranks[rows], torch.zeros(()), parts, own)

    together = of([0, 1, 2, 3, 4])
    # sums over fewer rows may be blocked otherwise: float32 rounding of a sum of 192 numbers
    torch.testing.assert_close(of([3, 1]), together[:, [3, 1]], rtol=0, atol=1e-4)


def test_gaps_are_filled_with_the_fill_and_images_stay_as_they_were():
    seen = []

    def outputs(images: torch.Tensor) -> torch.Tensor:
        seen.append(images)
        return images.sum((1, 2, 3))

    images = torch.ones(1, 3, SIDE, SIDE)
    f_fidelity(
        outputs, images, ranks_of(torch.rand(1, SIDE, SIDE)), torch.full((1, 3, 1, 1), 7.0), [Gap(16, 4, 5)], [[0]]
    )
    assert bool((images == 1).all())
    whole, plus, minus = seen
    assert torch.equal(whole, images)
    for altered, count in ((plus, 4), (minus, 5)):
        assert (altered == 7).all(1).sum() == count
        assert (altered == 1).all(1).sum() == PIXELS - count


def test_scores_of_targets():
    logits = torch.tensor([[2.0, 0.0, -1.0], [-1.0, -2.0, -3.0]])
    targets = torch.tensor([0, 1])
    assert target_scores(logits, targets, "decision", multi_label=False).tolist() == [1.0, 0.0]
    assert target_scores(logits, targets, "decision", multi_label=True).tolist() == [1.0, 0.0]
    assert target_scores(logits, torch.tensor([1, 0]), "decision", multi_label=True).tolist() == [0.0, 0.0]
    softmax = logits.softmax(1)[[0, 1], targets]
    torch.testing.assert_close(target_scores(logits, targets, "probability", multi_label=False), softmax)
    sigmoid = logits.sigmoid()[[0, 1], targets]
    torch.testing.assert_close(target_scores(logits, targets, "probability", multi_label=True), sigmoid)
