"""Pointing games: counts of the original codes, ties, expectations, Quantus' defects."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from roarline.evaluation.feature_summary import FeatureColumn, score_features
from roarline.evaluation.pointing import drawn_hits, pointing_hits, stochastic_pointing_hits
from roarline.evaluation.relevance import relevance_mass
from tests.golden_cases import case


def point_maps(points: np.ndarray, height: int, width: int) -> Tensor:
    """[n, H, W], highest at one (row, column) each."""
    maps = torch.zeros(len(points), height, width)
    maps[torch.arange(len(points)), torch.from_numpy(points[:, 0]), torch.from_numpy(points[:, 1])] = 1
    return maps


@pytest.mark.parametrize(("name", "points"), [("s6_pointing_game", "in_points_xy"), ("s2_pointing_game", "in_points")])
def test_hits_of_both_original_codes(name: str, points: str) -> None:
    arrays, params = case(name)
    masks = torch.from_numpy(arrays["in_masks"]).bool()
    row_column = arrays[points][..., ::-1] if points.endswith("xy") else arrays[points]  # TorchRay takes (x, y)
    for point in range(row_column.shape[1]):
        maps = point_maps(row_column[:, point].copy(), *masks.shape[1:])
        hits = pointing_hits(maps, masks, tolerance_px=params["tolerance"])
        np.testing.assert_array_equal(2 * hits.numpy() - 1, arrays["out_hit"][:, point])


@pytest.mark.parametrize(("name", "points"), [("s6_pointing_game", "in_points_xy"), ("s2_pointing_game", "in_points")])
def test_mean_over_classes_of_both_original_codes(name: str, points: str) -> None:
    """Of the classes that have an image; as published, one that has none counts as 0."""
    arrays, params = case(name)
    masks, classes = torch.from_numpy(arrays["in_masks"]).bool(), torch.from_numpy(arrays["in_class"])
    row_column = arrays[points][..., ::-1] if points.endswith("xy") else arrays[points]
    hits = torch.cat(
        [
            pointing_hits(point_maps(at.copy(), *masks.shape[1:]), masks, tolerance_px=params["tolerance"])
            for at in row_column.swapaxes(0, 1)
        ]
    )
    groups = classes.repeat(row_column.shape[1])
    column = FeatureColumn("a", "pointing_game", "", hits[:, None], "mean_value", groups)
    score = score_features(column, torch.arange(len(hits)), resamples=1, seed=0).value
    counted = arrays["out_hits"] + arrays["out_misses"] > 0
    assert score is not None
    assert score == pytest.approx(arrays["out_class_acc"][counted].mean())
    assert score * counted.mean() == pytest.approx(arrays["out_acc"])


def test_tolerance_is_strict_as_in_the_original_code() -> None:
    arrays, params = case("s2_pointing_game")
    maps = point_maps(arrays["in_edge_points"], 60, 80)
    masks = torch.from_numpy(arrays["in_edge_mask"]).bool().expand(len(maps), -1, -1)
    hits = pointing_hits(maps, masks, tolerance_px=params["tolerance"])
    np.testing.assert_array_equal(2 * hits.numpy() - 1, arrays["out_edge_hit"])


@pytest.fixture
def consistent_interpretations() -> list[tuple[Tensor, Tensor]]:
    """(map at the picture's size, mask) of each image of the case, batched by one."""
    arrays, _ = case("s2_eval_pg_spg_ch")
    pairs = []
    for image in range(5):
        mask = torch.from_numpy(arrays[f"in_gt_mask_{image}"])[None].bool()
        cam = torch.from_numpy(arrays[f"in_cam_{image}"])[None, None]
        size = (mask.shape[1], mask.shape[2])
        pairs.append((functional.interpolate(cam, size, mode="bilinear", align_corners=False)[0], mask))
    return pairs


def test_pointing_and_content_of_consistent_interpretations(
    consistent_interpretations: list[tuple[Tensor, Tensor]],
) -> None:
    arrays, params = case("s2_eval_pg_spg_ch")
    masses = [relevance_mass(maps, mask)[0].item() for maps, mask in consistent_interpretations]
    assert 100 * np.mean(masses) == pytest.approx(arrays["out_content_percent"], rel=1e-4)
    for image, (maps, mask) in enumerate(consistent_interpretations):
        # float32 maps that OpenCV resized.
        assert masses[image] == pytest.approx(arrays["out_content_per_image"][image], rel=1e-4)
        hit = arrays["out_pointing"][image, 0]
        if hit:  # 0: skipped, all of its boxes are difficult
            assert 2 * pointing_hits(maps, mask, tolerance_px=params["tolerance"], ties="first")[0].item() - 1 == hit


def test_stochastic_pointing_of_consistent_interpretations(
    consistent_interpretations: list[tuple[Tensor, Tensor]],
) -> None:
    arrays, params = case("s2_eval_pg_spg_ch")
    drawn = torch.from_numpy(arrays["in_sampled_flat_index"])
    shares = [
        drawn_hits(drawn[image : image + 1], mask, tolerance_px=params["tolerance"])
        for image, (_, mask) in enumerate(consistent_interpretations[:4])
    ]
    assert 100 * torch.cat(shares).mean().item() == pytest.approx(arrays["out_spg_percent"])


def test_draws_follow_the_map() -> None:
    maps = torch.zeros(1, 2, 2)
    maps[0, 0, 1], maps[0, 1, 0], maps[0, 1, 1] = 3.0, 1.0, -5.0
    mask = torch.tensor([[[False, True], [False, False]]])
    share = stochastic_pointing_hits(maps, mask, seeds=[0], draws=20_000, tolerance_px=0)
    # Five standard errors of a share of 3/4 in 20,000 draws.
    assert share[0].item() == pytest.approx(0.75, abs=5 * (0.75 * 0.25 / 20_000) ** 0.5)


def test_draws_are_of_the_row_not_of_the_batch() -> None:
    maps = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    masks = maps > 0.5
    together = stochastic_pointing_hits(maps, masks, seeds=[5, 6, 7], tolerance_px=0)
    alone = stochastic_pointing_hits(maps[1:2], masks[1:2], seeds=[6], tolerance_px=0)
    assert together[1] == alone[0]


def test_quantus_defect_an_empty_mask_is_no_hit() -> None:
    maps, mask = torch.rand(1, 6, 6), torch.zeros(1, 6, 6, dtype=torch.bool)
    assert torch.isnan(pointing_hits(maps, mask)).all()
    assert torch.isnan(stochastic_pointing_hits(maps, mask, seeds=[0])).all()
    assert case("q_localisation_complexity")[0]["out_pointinggame_emptyseg_raw"][0] == 1  # what Quantus says


@pytest.mark.parametrize("corner", [(0, 0), (9, 9)])
def test_quantus_defect_a_constant_map_has_the_area_share_wherever_the_object_lies(corner: tuple[int, int]) -> None:
    mask = torch.zeros(1, 10, 10, dtype=torch.bool)
    mask[0, corner[0], corner[1]] = True
    assert pointing_hits(torch.full((1, 10, 10), 0.3), mask, tolerance_px=0)[0] == 0.01


@pytest.mark.parametrize("variant", ["raw", "normabs"])
def test_as_quantus_where_it_is_right(variant: Literal["raw", "normabs"]) -> None:
    arrays, _ = case("q_localisation_complexity")
    maps, masks = torch.from_numpy(arrays["in_a"])[:, 0], torch.from_numpy(arrays["in_s"])[:, 0].bool()
    hits = pointing_hits(maps if variant == "raw" else maps.abs(), masks, tolerance_px=0)
    np.testing.assert_array_equal(hits.numpy(), arrays[f"out_pointinggame_{variant}"])


@given(st.integers(0, 2**20), st.floats(0, 4))
def test_perfect_mask_hits_and_order_is_all_that_counts(seed: int, tolerance: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(3, 9, 7, generator=generator)
    masks = torch.rand(3, 9, 7, generator=generator) < 0.3
    masks[:, 4, 3] = True
    assert (pointing_hits(masks.float(), masks, tolerance_px=tolerance) == 1).all()
    assert (stochastic_pointing_hits(masks.float(), masks, seeds=[1, 2, 3], tolerance_px=tolerance) == 1).all()
    hits = pointing_hits(maps, masks, tolerance_px=tolerance)
    torch.testing.assert_close(pointing_hits(maps.exp(), masks, tolerance_px=tolerance), hits)
    torch.testing.assert_close(pointing_hits(maps.flip(2), masks.flip(2), tolerance_px=tolerance), hits)


def test_random_maps_hit_as_often_as_the_object_is_large() -> None:
    generator = torch.Generator().manual_seed(1)
    mask = torch.zeros(10, 10, dtype=torch.bool)
    mask[:3, :7] = True
    maps = torch.rand(4000, 10, 10, generator=generator)
    hits = pointing_hits(maps, mask.expand(4000, -1, -1), tolerance_px=0)
    # Five standard errors of a share of 0.21.
    assert hits.mean().item() == pytest.approx(0.21, abs=5 * (0.21 * 0.79 / 4000) ** 0.5)
