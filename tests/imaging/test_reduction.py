"""Channels, sign, and several targets of one image."""

from __future__ import annotations

import pytest
import torch

from roarline.imaging.ranking import rank_pixels
from roarline.imaging.reduction import apply_sign, merge_targets, reduce_channels

MAPS = torch.tensor([[[[1.0, -5.0]], [[-2.0, 4.0]], [[0.5, 0.0]]]])  # [1, 3, 1, 2]


@pytest.mark.parametrize(
    ("channels", "expected"),
    [("sum", [-0.5, -1.0]), ("mean", [-0.5 / 3, -1 / 3]), ("max", [1.0, 4.0]), ("max_abs", [2.0, 5.0])],
)
def test_reduce_channels(channels: str, expected: list[float]) -> None:
    torch.testing.assert_close(reduce_channels(MAPS, channels), torch.tensor([[expected]]))  # type: ignore[arg-type]


def test_reduce_channels_none_keeps_them() -> None:
    assert torch.equal(reduce_channels(MAPS, "none"), MAPS)


@pytest.mark.parametrize(
    ("sign", "expected"),
    [
        ("signed", [-2.0, 0.0, 3.0]),
        ("positive", [0.0, 0.0, 3.0]),
        ("absolute", [2.0, 0.0, 3.0]),
        ("squared", [4.0, 0.0, 9.0]),
    ],
)
def test_apply_sign(sign: str, expected: list[float]) -> None:
    values = torch.tensor([-2.0, 0.0, 3.0])
    assert apply_sign(values, sign).tolist() == expected  # type: ignore[arg-type]
    assert values.tolist() == [-2.0, 0.0, 3.0]


def test_absolute_and_squared_rank_alike() -> None:
    maps = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(0))
    seeds = [1, 2, 3, 4]
    assert torch.equal(
        rank_pixels(apply_sign(maps, "absolute"), seeds), rank_pixels(apply_sign(maps, "squared"), seeds)
    )


def test_merge_is_the_pixelwise_maximum() -> None:
    maps = torch.tensor([[[0.0, 10.0]], [[2.0, 1.0]]])
    assert merge_targets(maps, "none").tolist() == [[2.0, 10.0]]
    assert merge_targets(maps, "min_max").tolist() == [[1.0, 1.0]]


def test_merge_by_min_max_does_not_depend_on_a_maps_scale() -> None:
    maps = torch.rand(3, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scaled = maps * torch.tensor([1.0, 1000.0, 0.01]).reshape(3, 1, 1) + torch.tensor([0.0, -7.0, 3.0]).reshape(3, 1, 1)
    torch.testing.assert_close(merge_targets(scaled, "min_max"), merge_targets(maps, "min_max"))


def test_merge_of_a_constant_map_adds_nothing_and_no_nan() -> None:
    maps = torch.stack([torch.full((2, 2), 3.0), torch.tensor([[0.0, 1.0], [2.0, 4.0]])])
    assert merge_targets(maps, "min_max").tolist() == [[0.0, 0.25], [0.5, 1.0]]


def test_a_single_map_keeps_its_ranking_exactly() -> None:
    single = torch.tensor([[[-1e8, 1.0], [1.0 + 2**-20, 2.0]]])
    assert torch.equal(merge_targets(single, "min_max"), single[0])


def test_unknown_names_and_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="max_abs"):
        reduce_channels(MAPS, "median")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"\[B, C, H, W\]"):
        reduce_channels(MAPS[0], "sum")
    with pytest.raises(ValueError, match="squared"):
        apply_sign(MAPS, "negative")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="min_max"):
        merge_targets(MAPS[0], "sum")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="T at least 1"):
        merge_targets(torch.zeros(0, 2, 2), "none")
