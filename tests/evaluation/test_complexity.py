"""Complexity of maps: Quantus' numbers, and the extremes that mathematics gives."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from roarline.evaluation.complexity import effective_complexity, entropy_complexity, gini_sparseness
from tests.golden_cases import case

METRICS = (entropy_complexity, gini_sparseness, effective_complexity)


@pytest.fixture
def maps() -> Tensor:
    return torch.from_numpy(case("q_localisation_complexity")[0]["in_a"])[:, 0]


def test_entropy_and_gini_as_quantus(maps: Tensor) -> None:
    arrays, _ = case("q_localisation_complexity")
    np.testing.assert_allclose(entropy_complexity(maps), arrays["out_complexity_normabs"], rtol=1e-6)
    # Quantus adds 1e-7 to magnitudes of up to 1, of which a map has 576 with a mean around 0.1.
    np.testing.assert_allclose(gini_sparseness(maps), arrays["out_sparseness_normabs"], rtol=1e-5)


def test_effective_complexity_as_quantus_at_its_scale(maps: Tensor) -> None:
    """Quantus scales by the largest magnitude of the whole batch, so that a map's number depends on its neighbours."""
    arrays, params = case("q_localisation_complexity")
    epsilon, largest = params["effectivecomplexity_normabs"]["eps"], maps.abs().amax(dim=(1, 2))
    shares = (epsilon * largest.max() / largest).tolist()
    found = [effective_complexity(map_[None], epsilon=share).item() for map_, share in zip(maps, shares, strict=True)]
    np.testing.assert_array_equal(found, arrays["out_effectivecomplexity_normabs"])


def test_quantus_defect_scale_of_the_batch(maps: Tensor) -> None:
    arrays, _ = case("q_localisation_complexity")
    found = effective_complexity(maps, epsilon=0.05)
    assert (found.numpy() != arrays["out_effectivecomplexity_normabs"]).any()
    for row in range(len(maps)):
        assert effective_complexity(maps[row : row + 1], epsilon=0.05)[0] == found[row]


def test_extremes() -> None:
    single, uniform = torch.zeros(1, 8, 8), torch.full((1, 8, 8), -0.1)
    single[0, 3, 4] = -2.0
    assert entropy_complexity(single).item() == 0
    assert entropy_complexity(uniform).item() == pytest.approx(math.log(64))
    assert gini_sparseness(single).item() == pytest.approx(1 - 1 / 64)
    assert gini_sparseness(uniform).item() == pytest.approx(0, abs=1e-12)
    assert effective_complexity(single).item() == 1
    assert effective_complexity(uniform).item() == 64


def test_a_map_of_zeros_is_read_as_uniform() -> None:
    zeros = torch.zeros(1, 8, 8)
    assert entropy_complexity(zeros).item() == pytest.approx(math.log(64))
    assert gini_sparseness(zeros).item() == pytest.approx(0, abs=1e-12)
    assert effective_complexity(zeros).item() == 0


@given(st.integers(0, 2**20), st.floats(0.01, 100))
def test_scale_sign_and_place_do_not_matter(seed: int, scale: float) -> None:
    maps = torch.randn(3, 7, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for metric in METRICS:
        found = metric(maps)
        torch.testing.assert_close(metric(-scale * maps), found)
        torch.testing.assert_close(metric(maps.flip(1).transpose(1, 2)), found)
        torch.testing.assert_close(metric(maps[1:2]), found[1:2])
