"""Ranks of a split: joined by id, merged over targets, in few bytes."""

import numpy as np
import pytest
import torch

from roarline.artifacts.maps import MapRows, MapsFile, join_parts, write_part
from roarline.errors import ArtifactError, MethodError
from roarline.imaging.ranking import rank_pixels
from roarline.seeds import derive_seed
from roarline.stages.rank_maps import Ranking, rank_samples

HOW = Ranking(sign="signed", ties="random", merge_normalization="min_max", compat="corrected", seed=0)


def opened(tmp_path, maps: np.ndarray, ids: list[str], targets: list[int] | None = None) -> MapsFile:
    rows = MapRows(ids, np.array(targets or [0] * len(ids)), maps.astype(np.float32), np.zeros((len(ids), 2)))
    write_part(tmp_path / "0.h5", rows)
    join_parts(tmp_path / "maps.h5", [tmp_path / "0.h5"], {"method": "toy"})
    return MapsFile(tmp_path / "maps.h5")


def test_maps_are_joined_by_sample_id_not_by_position(tmp_path, rng):
    maps = rng.random((4, 3, 5))
    with opened(tmp_path, maps, ["d", "b", "a", "c"]) as file:
        ranks = rank_samples(file, ["a", "b", "c"], (3, 5), HOW)
    expected = rank_pixels(torch.from_numpy(maps[[2, 1, 3]]), [derive_seed(0, "ties", name) for name in "abc"])
    assert torch.equal(ranks.int(), expected)


def test_ties_are_broken_by_seed_and_sample_alone(tmp_path):
    flat = np.zeros((3, 4, 4))
    with opened(tmp_path, flat, ["a", "b", "c"]) as file:
        both = rank_samples(file, ["a", "b"], (4, 4), HOW)
        alone = rank_samples(file, ["b"], (4, 4), HOW)
        other = rank_samples(file, ["b"], (4, 4), Ranking("signed", "random", "min_max", "corrected", seed=1))
    assert torch.equal(both[1], alone[0])
    assert not torch.equal(both[0], both[1])
    assert not torch.equal(alone, other)


@pytest.mark.parametrize(
    ("size", "dtype"),
    [((15, 17), torch.uint8), ((16, 16), torch.int16), ((181, 181), torch.int16), ((182, 182), torch.int32)],
)
def test_ranks_take_the_fewest_bytes_that_hold_every_count(tmp_path, rng, size, dtype):
    """255, 256, 32,761 and 33,124 px."""
    with opened(tmp_path, rng.random((1, *size)), ["a"]) as file:
        ranks = rank_samples(file, ["a"], size, HOW)
    assert ranks.dtype == dtype
    assert torch.iinfo(dtype).max >= size[0] * size[1]
    assert sorted(ranks.flatten().tolist()) == list(range(size[0] * size[1]))


def test_several_targets_merge_by_the_maximum_of_normalised_maps(tmp_path):
    strong, weak = np.zeros((1, 3)), np.zeros((1, 3))
    strong[0], weak[0] = [0, 60, 100], [1.0, 0.0, 0.2]
    with opened(tmp_path, np.stack([strong, weak, strong]), ["a", "a", "b"], [0, 1, 0]) as file:
        merged = rank_samples(file, ["a", "b"], (1, 3), HOW)
        plain = rank_samples(file, ["a"], (1, 3), Ranking("signed", "random", "none", "corrected", 0))
    # min_max: the maxima are 1, 0.6, 1: the middle pixel is last though the weak map's peak is a hundredth of its value
    assert int(merged[0, 0, 1]) == 2
    assert merged[1, 0].tolist() == plain[0, 0].tolist() == [2, 1, 0]


@pytest.mark.parametrize(("sign", "order"), [("signed", [2, 0, 1]), ("absolute", [0, 1, 2]), ("squared", [0, 1, 2])])
def test_the_sign_is_applied_before_ranking_and_channels_take_the_largest(tmp_path, sign, order):
    maps = np.array([[[[-5.0, 3.0, 2.0]], [[-4.0, 0.0, 0.0]]]])  # one map of two channels, 1×3 px
    with opened(tmp_path, maps, ["a"]) as file:
        ranks = rank_samples(file, ["a"], (1, 3), Ranking(sign, "random", "min_max", "corrected", 0))
    assert ranks[0, 0].tolist() == order


def test_positive_makes_all_negative_values_tie(tmp_path):
    with opened(tmp_path, np.array([[[-1.0, -2.0, 1.0]]] * 40), [str(index) for index in range(40)]) as file:
        ranks = rank_samples(file, file.sample_ids, (1, 3), Ranking("positive", "random", "min_max", "corrected", 0))
    assert set(ranks[:, 0, 2].tolist()) == {0}
    assert set(ranks[:, 0, 0].tolist()) == {1, 2}


def test_original_roar_bug_maps_stretched_to_uint8_tie_and_lose_their_order(tmp_path):
    """One strong pixel pushes all others into one grey level; float maps keep their order."""
    values = np.concatenate([[1000.0], np.linspace(0, 3, 63)]).reshape(1, 8, 8)
    with opened(tmp_path, values, ["a"]) as file:
        corrected = rank_samples(file, ["a"], (8, 8), HOW)
        original = rank_samples(file, ["a"], (8, 8), Ranking("signed", "index", "min_max", "original", 0))
    assert corrected.flatten().tolist() == [0, *range(63, 0, -1)]
    levels = torch.zeros(1, 8, 8)
    levels[0, 0, 0] = 255
    assert torch.equal(original.int(), rank_pixels(levels, None, "index"))


def test_original_roar_bug_the_sign_is_lost_where_a_map_is_stretched(tmp_path):
    """-1 … 1 and 0 … 2 become the same grey levels; a constant map becomes black."""
    maps = np.stack([np.linspace(-1, 1, 9), np.linspace(0, 2, 9), np.full(9, 7.0)]).reshape(3, 3, 3)
    how = Ranking("signed", "index", "min_max", "original", 0)
    with opened(tmp_path, maps, ["a", "b", "c"]) as file:
        ranks = rank_samples(file, ["a", "b", "c"], (3, 3), how)
    assert torch.equal(ranks[0], ranks[1])
    assert torch.equal(ranks[2].int(), rank_pixels(torch.zeros(1, 3, 3), None, "index")[0])


def test_a_missing_map_names_the_sample(tmp_path, rng):
    with (
        opened(tmp_path, rng.random((1, 2, 2)), ["a"]) as file,
        pytest.raises(ArtifactError, match="no map for sample 'b'"),
    ):
        rank_samples(file, ["a", "b"], (2, 2), HOW)


def test_a_nan_map_names_the_row(tmp_path):
    maps = np.zeros((2, 2, 2))
    maps[1, 0, 0] = np.nan
    with opened(tmp_path, maps, ["a", "b"]) as file, pytest.raises(ArtifactError, match=r"row 1 .*'b'.* NaN"):
        rank_samples(file, ["a", "b"], (2, 2), HOW)


def test_maps_of_another_size_are_refused(tmp_path, rng):
    with (
        opened(tmp_path, rng.random((1, 2, 3)), ["a"]) as file,
        pytest.raises(MethodError, match="2×3 px, images of 3×2"),
    ):
        rank_samples(file, ["a"], (3, 2), HOW)
