"""PxAP: wsolevaluation's histograms and score, and average precision where both must agree."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from roarline.evaluation.pixel_precision import pixel_histograms
from roarline.evaluation.statistics_of_means import average_precision
from tests.golden_cases import case, unpacked


def test_as_published() -> None:
    arrays, params = case("s3_wsol_pxap")
    maps = torch.from_numpy(arrays["in_scoremap_u16"].repeat(2, axis=1).repeat(2, axis=2) / 997.0)
    objects = unpacked(arrays["in_instance_masks"], 6, 2, 224, 224).any(axis=1)
    valid = ~(unpacked(arrays["in_ignore"], 6, 224, 224) & ~objects)
    every_fourth = np.where(objects, 1, np.where(valid, 0, 255))[:, ::4, ::4]
    np.testing.assert_array_equal(every_fourth, arrays["out_mask"])
    found = pixel_histograms(maps, torch.from_numpy(objects), torch.from_numpy(valid), step=params["step"])
    np.testing.assert_array_equal(found[:, 0].sum(dim=0), arrays["out_hist_true"])
    np.testing.assert_array_equal(found[:, 1].sum(dim=0), arrays["out_hist_false"])
    score = average_precision(found.flatten(1).mean(dim=0))
    assert 100 * score.item() == pytest.approx(arrays["out_pxap"], rel=1e-12)


@given(st.integers(0, 2**20))
def test_as_scikit_learn_where_values_are_the_bins(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randint(0, 11, (3, 5, 6), generator=generator, dtype=torch.float64) / 10
    masks = torch.rand(3, 5, 6, generator=generator) < 0.4
    masks[0, 0, 0] = True
    found = average_precision(pixel_histograms(maps + 1e-9, masks, step=0.1).flatten(1).mean(dim=0))
    assert found.item() == pytest.approx(average_precision_score(masks.flatten(), maps.flatten()))


def test_perfect_mask_scores_one_and_random_the_area() -> None:
    mask = torch.zeros(1, 100, 100, dtype=torch.bool)
    mask[0, :30, :50] = True
    assert average_precision(pixel_histograms(mask.double(), mask).flatten(1))[0] == 1
    noise = torch.rand(20, 100, 100, generator=torch.Generator().manual_seed(0))
    found = average_precision(pixel_histograms(noise, mask.expand(20, -1, -1)).flatten(1).mean(dim=0))
    assert found.item() == pytest.approx(0.15, abs=0.005)  # 200,000 pixels


def test_without_any_object_there_is_no_value() -> None:
    histograms = pixel_histograms(torch.rand(2, 4, 4), torch.zeros(2, 4, 4, dtype=torch.bool))
    assert torch.isnan(average_precision(histograms.flatten(1))).all()
