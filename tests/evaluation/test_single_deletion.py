"""IDSDS: a linear network's input × gradient is perfect; rank correlations are scipy's."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from roarline.evaluation.single_deletion import (
    NOT_FINITE,
    OK,
    SAME_DROPS,
    SAME_SUMS,
    deletion_drops,
    single_deletion_score,
)
from roarline.imaging.patches import patch_sums

GRID = 4


def linear_case(fill: float = 0.0):
    """Images, and what each patch's deletion costs a linear score: exactly the sum of w · (x - fill) in it."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(6, 3, 12, 12, generator=generator, dtype=torch.float64)
    weights = torch.randn(3, 12, 12, generator=generator, dtype=torch.float64)
    drops = deletion_drops(lambda x: (x * weights).sum((1, 2, 3)), images, torch.tensor(fill), GRID)
    return images, weights, drops


@pytest.mark.parametrize("fill", [0.0, 0.7])
def test_input_times_gradient_of_a_linear_network_is_perfect_where_the_fill_matches(fill):
    images, weights, drops = linear_case(fill)
    maps = ((images - fill) * weights).sum(1)
    torch.testing.assert_close(drops, patch_sums(maps, GRID))
    scores, statuses = single_deletion_score(drops.numpy(), patch_sums(maps, GRID).numpy())
    assert scores == pytest.approx([1.0] * 6, abs=1e-12)
    assert statuses == [OK] * 6
    opposite, _ = single_deletion_score(drops.numpy(), patch_sums(-maps, GRID).numpy())
    assert opposite == pytest.approx([-1.0] * 6, abs=1e-12)


def test_a_fill_that_does_not_match_is_not_perfect():
    images, weights, drops = linear_case(0.7)
    scores, _ = single_deletion_score(drops.numpy(), patch_sums((images * weights).sum(1), GRID).numpy())
    assert (scores < 1).all()


def test_magnitudes_lose_what_the_sign_says():
    """The paper: raw attributions do better than absolute ones."""
    images, weights, drops = linear_case()
    maps = (images * weights).sum(1)
    raw, _ = single_deletion_score(drops.numpy(), patch_sums(maps, GRID).numpy())
    absolute, _ = single_deletion_score(drops.numpy(), patch_sums(maps.abs(), GRID).numpy())
    assert (raw > absolute).all()


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 999), levels=st.integers(2, 50))
def test_scipys_rank_correlation_with_ties(seed, levels):
    rng = np.random.default_rng(seed)
    drops, sums = (rng.integers(0, levels, (4, 16)).astype(float) for _ in range(2))
    scores, statuses = single_deletion_score(drops, sums)
    for row in range(4):
        if statuses[row] == OK:
            assert scores[row] == pytest.approx(stats.spearmanr(drops[row], sums[row]).statistic, abs=1e-12)
        else:
            assert len(set(drops[row])) == 1 or len(set(sums[row])) == 1


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 999))
def test_only_the_order_of_sums_counts(seed):
    rng = np.random.default_rng(seed)
    drops, sums = rng.normal(size=(3, 16)), rng.normal(size=(3, 16))
    plain, _ = single_deletion_score(drops, sums)
    bent, _ = single_deletion_score(2 * drops - 5, np.exp(sums))
    np.testing.assert_allclose(plain, bent, atol=1e-12)


def test_rows_without_an_order_say_why():
    varied = np.arange(4.0)
    same = np.full(4, 0.25)
    bad = np.array([1.0, np.nan, 2.0, 3.0])
    drops, sums = np.stack([varied, same, varied, bad]), np.stack([same, varied, varied, varied])
    scores, statuses = single_deletion_score(drops, sums)
    assert statuses == [SAME_SUMS, SAME_DROPS, OK, NOT_FINITE]
    assert np.isnan(scores).tolist() == [True, True, False, True]


def test_the_image_itself_stays_and_one_patch_at_a_time_goes():
    seen = []

    def outputs(images: torch.Tensor) -> torch.Tensor:
        seen.append(images)
        return images.sum((1, 2, 3))

    images = torch.ones(1, 1, 6, 6)
    drops = deletion_drops(outputs, images, torch.zeros(()), 3)
    assert torch.equal(seen[0], images)
    assert [int((altered == 0).sum()) for altered in seen[1:]] == [4] * 9
    assert drops.tolist() == [[4.0] * 9]
