"""SSIM, Spearman and HOG in batches, against scikit-image, scipy and the original code of saliency_investigation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata, spearmanr
from skimage.feature import hog
from skimage.metrics import structural_similarity

from roarline.evaluation.similarity import (
    average_ranks,
    correlation,
    hog_cell_px,
    hog_features,
    joint_range,
    normalised,
    spearman,
    ssim,
)
from tests.golden_cases import case

ROUNDING = 1e-9  # sums of float64 in another order
SINGLE = 1e-6  # scikit-image sums the pixels of a cell in single precision


def pair(rows: int, height: int, width: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Two batches of maps that are partly alike."""
    generator = np.random.default_rng(seed)
    first = generator.normal(size=(rows, height, width))
    return torch.from_numpy(first), torch.from_numpy(0.5 * first + generator.normal(size=first.shape))


@pytest.mark.parametrize("window", [3, 7, 11])
@pytest.mark.parametrize("size", [(16, 16), (11, 20)])
def test_ssim_is_that_of_scikit_image(window: int, size: tuple[int, int]) -> None:
    first, second = pair(3, *size)
    spans = torch.tensor([1.0, 2.5, 40.0])
    expected = [
        structural_similarity(a.numpy(), b.numpy(), win_size=window, data_range=float(span))
        for a, b, span in zip(first, second, spans, strict=True)
    ]
    assert ssim(first, second, spans, window_px=window).tolist() == pytest.approx(expected, abs=ROUNDING)


@pytest.mark.parametrize(("size", "cell"), [((48, 48), 16), ((30, 41), 5), ((12, 12), 4), ((9, 8), 2)])
def test_hog_is_that_of_scikit_image(size: tuple[int, int], cell: int) -> None:
    first, _ = pair(3, *size)
    expected = [hog(a.numpy(), pixels_per_cell=(cell, cell), cells_per_block=(3, 3)) for a in first]
    np.testing.assert_allclose(hog_features(first, cell).numpy(), np.stack(expected), atol=SINGLE)


def test_hog_of_flat_regions_and_straight_edges_is_that_of_scikit_image() -> None:
    """Directions on the border between two bins: 0 and 180 degrees are one."""
    maps = torch.zeros(3, 24, 24, dtype=torch.float64)
    maps[0, :, 12:] = 1  # rises to the right
    maps[1, :, :12] = 1  # falls to the right
    maps[2, 6:18, 6:18] = 1
    expected = [hog(a.numpy(), pixels_per_cell=(8, 8), cells_per_block=(3, 3)) for a in maps]
    np.testing.assert_allclose(hog_features(maps, 8).numpy(), np.stack(expected), atol=SINGLE)


def test_spearman_is_that_of_scipy_with_many_ties() -> None:
    generator = np.random.default_rng(3)
    first, second = generator.integers(0, 5, (2, 4, 9, 9)).astype(np.float32)
    expected = [spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(first, second, strict=True)]
    assert spearman(torch.from_numpy(first), torch.from_numpy(second)).tolist() == pytest.approx(expected, abs=ROUNDING)


@given(st.lists(st.sampled_from([-1.5, -0.0, 0.0, 0.25, 3.0]), min_size=1, max_size=12))
def test_ranks_are_those_of_scipy(values: list[float]) -> None:
    assert average_ranks(torch.tensor([values])).tolist() == [rankdata(values).tolist()]


def test_golden_similarities_of_saliency_investigation() -> None:
    arrays, parameters = case("s3_sanity_similarity")
    first, second = torch.from_numpy(arrays["in_a"]), torch.from_numpy(arrays["in_b"])
    found = {
        "spearman": spearman(first, second),
        "abs_spearman": spearman((0.5 - first).abs(), (0.5 - second).abs()),  # the original centres logits at 0.5
        "hog_correl": correlation(hog_features(first, 16), hog_features(second, 16)),
        "ssim": ssim(first, second, torch.full((len(first),), 2.0), window_px=5),
    }
    for row, key in enumerate(parameters["keys"]):
        np.testing.assert_allclose(found[key].numpy(), arrays["out_scores"][row], atol=1e-7)  # ranks of many ties


def test_a_constant_map_correlates_with_nothing() -> None:
    first, _ = pair(2, 12, 12)
    flat = torch.full_like(first, 3.0)
    assert spearman(first, flat).tolist() == [0.0, 0.0]
    assert correlation(hog_features(first, 4), hog_features(flat, 4)).tolist() == [0.0, 0.0]


@given(st.floats(0.01, 100), st.integers(0, 10))
def test_scale_does_not_matter_once_maps_are_normalised(scale: float, seed: int) -> None:
    first, second = pair(2, 9, 9, seed)
    for how in ("second_moment", "min_max"):
        plain, scaled = normalised(second, how), normalised(second * scale, how)  # type: ignore[arg-type]
        torch.testing.assert_close(plain, scaled)
        assert joint_range(normalised(first, how), plain).shape == (2,)  # type: ignore[arg-type]


def test_normalisation_keeps_what_it_says() -> None:
    maps = torch.tensor([[[0.0, -2.0], [4.0, 2.0]], [[1e-30, -1e-30], [1e-30, 1e-30]], [[0.0, 0.0], [0.0, 0.0]]])
    scaled = normalised(maps, "second_moment")
    assert scaled.square().mean(dim=(1, 2)).tolist() == pytest.approx([1.0, 1.0, 0.0])  # squares of 1e-30 vanish
    assert (scaled.sign() == maps.sign()).all()
    assert normalised(maps, "min_max").amin().item() == 0
    assert normalised(maps, "min_max").amax(dim=(1, 2)).tolist() == [1.0, 1.0, 0.0]


def test_binder_2023_one_extreme_pixel_makes_min_max_maps_alike_and_not_those_of_second_moment() -> None:
    """Two unrelated maps that share one outlier: min-max flattens what differs, and SSIM calls them equal."""
    first, second = (torch.from_numpy(np.random.default_rng(seed).random((1, 32, 32))) for seed in (0, 1))
    first[0, 0, 0] = second[0, 0, 0] = 1e4
    alike = {
        how: ssim(normalised(first, how), normalised(second, how), torch.ones(1)).item()  # type: ignore[arg-type]
        for how in ("min_max", "second_moment")
    }
    assert alike["min_max"] > 0.9
    assert alike["second_moment"] < alike["min_max"]


def test_too_small_maps_are_refused() -> None:
    first, second = pair(1, 8, 8)
    with pytest.raises(ValueError, match="window_px is 9"):
        ssim(first, second, torch.ones(1), window_px=9)
    with pytest.raises(ValueError, match="cells of 4 px"):
        hog_features(first, 4)


def test_cells_are_16_px_and_smaller_where_a_block_would_not_fit() -> None:
    assert [hog_cell_px(224, 224), hog_cell_px(48, 64), hog_cell_px(28, 28), hog_cell_px(8, 8)] == [16, 16, 9, 2]
