"""Noise by hashing: its distribution, and that a row's numbers are its seed's alone."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from roarline.imaging.hashed_noise import hashes, normal_noise, uniform_noise
from roarline.seeds import derive_seed

SEEDS = torch.tensor([derive_seed(0, "noise", index) for index in range(6)])
DISTRIBUTIONS = [(uniform_noise, "uniform"), (normal_noise, "norm")]


@pytest.mark.parametrize(("noise", "distribution"), DISTRIBUTIONS)
def test_numbers_have_the_stated_distribution(noise, distribution) -> None:
    """Kolmogorov-Smirnov on 6 × 40,000 numbers; fixed seeds, so that the test's outcome is too."""
    values = noise(SEEDS, (40_000,)).double()
    for row in values:
        assert stats.kstest(row.numpy(), distribution).pvalue > 1e-3
    assert stats.kstest(values.flatten().numpy(), distribution).pvalue > 1e-3


@pytest.mark.parametrize(("noise", "distribution"), DISTRIBUTIONS)
def test_neighbours_channels_and_rows_are_uncorrelated(noise, distribution) -> None:
    """Sample correlations of n independent pairs lie within ± 4 / √n all but once in 16,000 times."""
    values = noise(SEEDS, (3, 64, 64)).double()
    values = (values - values.mean()) / values.std()
    pairs = [
        (values[..., 1:], values[..., :-1]), (values[..., 1:, :], values[..., :-1, :]),
        (values[:, 1:], values[:, :-1]), (values[1:], values[:-1]),
    ]  # fmt: skip
    for one, other in pairs:
        assert abs((one * other).mean()) < 4 / one.numel() ** 0.5


@pytest.mark.parametrize(("noise", "distribution"), DISTRIBUTIONS)
def test_a_rows_numbers_depend_on_its_seed_only(noise, distribution) -> None:
    together = noise(SEEDS, (2, 5, 7))
    assert together.shape == (6, 2, 5, 7)
    for row in range(6):
        assert torch.equal(noise(SEEDS[row : row + 1], (2, 5, 7))[0], together[row])


def test_indices_go_on_where_they_are_told_to() -> None:
    assert torch.equal(hashes(SEEDS, 10)[:, 4:], hashes(SEEDS, 6, 4))


def test_the_ends_of_the_range_are_finite() -> None:
    values = uniform_noise(SEEDS, (50_000,))
    assert 0 <= values.min() < 1e-4
    assert 1 - 1e-4 < values.max() < 1
    assert torch.isfinite(normal_noise(SEEDS, (50_000,))).all()
