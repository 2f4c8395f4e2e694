"""Removal: exact counts, both ends, and parity with the original ROAR and LeRF code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from roarline.imaging.ranking import rank_pixels, removal_count
from roarline.imaging.removal import removal_mask, remove

GOLDEN = Path(__file__).parent.parent / "golden"
ORDERS = ("most_relevant_first", "least_relevant_first")
PERCENTILES = [0, 1, 10, 30, 50, 70, 90, 100]


def load(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as file:
        return dict(file)


def ranks_from_ascending(order: np.ndarray, shape: tuple[int, ...]) -> torch.Tensor:
    """Ranks of a stored ascending argsort: its last element is the most relevant."""
    ranks = np.empty(order.size, dtype=np.int32)
    ranks[order[::-1]] = np.arange(order.size)
    return torch.from_numpy(ranks.reshape(1, *shape))


@given(st.floats(0, 1), st.integers(1, 9), st.integers(1, 9), st.sampled_from(ORDERS), st.integers(0, 2**63 - 1))
def test_exactly_the_counted_pixels_go(fraction: float, height: int, width: int, order: str, seed: int) -> None:
    # A third of the map is tied, as the zeros of a Grad-CAM are.
    values = torch.arange(height * width).clamp_min(height * width // 3).reshape(1, height, width)
    count = removal_count(fraction, height * width)
    mask = removal_mask(rank_pixels(values, [seed]), count, order)
    assert int(mask.sum()) == count
    if 0 < count < height * width:
        kept, gone = values[~mask], values[mask]
        assert gone.min() >= kept.max() if order == "most_relevant_first" else gone.max() <= kept.min()


@given(st.permutations(range(20)), st.integers(0, 20))
def test_morf_of_a_map_is_lerf_of_its_negative(values: list[int], count: int) -> None:
    maps = torch.tensor(values, dtype=torch.float32).reshape(1, 4, 5)
    morf = removal_mask(rank_pixels(maps, [0]), count, "most_relevant_first")
    assert torch.equal(morf, removal_mask(rank_pixels(-maps, [0]), count, "least_relevant_first"))


@given(st.integers(0, 16), st.integers(0, 2**40))
def test_what_morf_keeps_is_what_lerf_removes_of_the_rest(count: int, seed: int) -> None:
    ranks = rank_pixels(torch.zeros(1, 4, 4), [seed])
    assert torch.equal(
        removal_mask(ranks, count, "most_relevant_first"), ~removal_mask(ranks, 16 - count, "least_relevant_first")
    )


def test_rows_have_counts_of_their_own() -> None:
    ranks = rank_pixels(torch.rand(4, 3, 3, generator=torch.Generator().manual_seed(0)), list(range(4)))
    for order in ORDERS:
        assert removal_mask(ranks, torch.tensor([0, 1, 5, 9]), order).sum(dim=(1, 2)).tolist() == [0, 1, 5, 9]


def test_quantus_bug_all_channels_of_a_pixel_go() -> None:
    """peers.md: only the first colour channel was flipped at one time; and arguments stay as they are."""
    images, ranks = torch.rand(2, 3, 4, 4), rank_pixels(torch.rand(2, 4, 4), [0, 1])
    kept = images.clone()
    fill = torch.tensor([5.0, 6.0, 7.0]).reshape(1, 3, 1, 1)
    removed = remove(images, ranks, 7, fill)
    gone = removal_mask(ranks, 7)
    assert torch.equal(
        removed[gone[:, None].expand(-1, 3, -1, -1)], fill.expand(2, 3, 4, 4)[gone[:, None].expand(-1, 3, -1, -1)]
    )
    assert torch.equal(removed.where(~gone[:, None], 0), images.where(~gone[:, None], 0))
    assert torch.equal(images, kept)


def test_original_roar_bug_removing_nothing_removes_everything() -> None:
    """peers.md: ``argsort()[-0:]`` is the whole order, so 0 % removed wipes the image; here with compat original."""
    images, ranks, fill = torch.rand(1, 3, 4, 4), rank_pixels(torch.rand(1, 4, 4), [0]), torch.zeros(1, 1, 1, 1)
    assert torch.equal(remove(images, ranks, 0, fill), images)
    assert torch.equal(remove(images, ranks, torch.tensor([0]), fill, compat="original"), torch.zeros(1, 3, 4, 4))
    assert torch.equal(remove(images, ranks, 0, fill, order="least_relevant_first", compat="original"), images)


def test_original_roar_bug_small_images_lose_everything_where_the_count_is_zero() -> None:
    """peers.md: 10 % of a 3×3 px image is 0 pixels, and the original removes all nine."""
    count = removal_count(0.1, 9)
    assert count == 0
    images, ranks, fill = torch.rand(1, 1, 3, 3), rank_pixels(torch.rand(1, 3, 3), [0]), torch.zeros(1, 1, 1, 1)
    assert torch.equal(remove(images, ranks, count, fill), images)


def test_original_roar_bug_uint8_maps_tie() -> None:
    """peers.md: stretched to uint8, most pixels of a 224 px map tie; float maps keep every rank."""
    order = torch.randperm(224 * 224, generator=torch.Generator().manual_seed(1))
    values = (order.float() / order.numel()).reshape(1, 224, 224)
    stretched = (values / values.max() * 255).to(torch.uint8)
    assert len(stretched.unique()) <= 256 < len(values.unique())
    exact, quantised = rank_pixels(values, [0]), rank_pixels(stretched, [0])
    assert torch.equal(exact.flatten().argsort(), values.flatten().argsort(descending=True, stable=True))
    assert not torch.equal(exact, quantised)
    # What quantising can't do is move a pixel across another value.
    by_rank = stretched.flatten()[quantised.flatten().argsort()].int()
    assert (by_rank.diff() <= 0).all()


def test_original_roar_bug_sign_is_lost_by_min_max_and_kept_here() -> None:
    """peers.md: negative evidence ranks below zeros (signed), and a caller chooses otherwise by ``apply_sign``."""
    maps = torch.tensor([[[-3.0, 0.0], [1.0, 2.0]]])
    assert rank_pixels(maps, [0]).flatten().tolist() == [3, 2, 1, 0]


def test_original_roar_bug_keep_removes_the_given_percentage() -> None:
    """peers.md: the original's keep = 10 removes 10 %, the lowest; here there is only ``removed_fraction``."""
    golden = load("s4_roar_remove")
    changed = (golden["out_gray_kar"][PERCENTILES.index(10)] != golden["in_image"]).any(axis=0)
    assert changed.sum() == removal_count(0.1, 256) == 25


def test_pytorch_grad_cam_bug_a_map_of_75_percent_zeros_loses_exact_counts() -> None:
    """peers.md: a percentile of values removes the whole image at 10 % and at 50 %; ranks remove what was asked for."""
    values = torch.zeros(1, 16, 16)
    values.view(-1)[:64] = torch.linspace(1, 2, 64)
    ranks = rank_pixels(values, [3])
    for fraction in (0.1, 0.25, 0.5, 0.75):
        for order in ORDERS:
            assert int(removal_mask(ranks, removal_count(fraction, 256), order).sum()) == int(fraction * 256)
    assert bool((values[removal_mask(ranks, 64)] > 0).all())


@pytest.mark.parametrize("compat", ["original", "corrected"])
@pytest.mark.parametrize(("mode", "order"), [("roar", ORDERS[0]), ("kar", ORDERS[1])])
@pytest.mark.parametrize("name", ["gray", "tiefree"])
def test_parity_with_the_original_roar_removal(name: str, mode: str, order: str, compat: str) -> None:
    golden = load("s4_roar_remove")
    mean = json.loads(str(golden["params"]))["mean"]
    check_parity(
        golden["in_image"], golden[f"in_attr_{name}"], golden[f"out_{name}_{mode}"], mean, order, compat,
        joint=name == "tiefree",
    )  # fmt: skip


@pytest.mark.parametrize("compat", ["original", "corrected"])
@pytest.mark.parametrize(("end", "order"), [("top", ORDERS[0]), ("bottom", ORDERS[1])])
@pytest.mark.parametrize("name", ["gray", "gray3", "tiefree"])
def test_parity_with_the_original_lerf_removal(name: str, end: str, order: str, compat: str) -> None:
    golden = load("s4_lerf_remove")
    attribution = golden["in_attr_tiefree" if name == "tiefree" else "in_attr_gray"]
    check_parity(
        golden["in_image"], attribution, golden[f"out_{name}_{end}"], [0.0, 0.0, 0.0], order, compat,
        joint=name == "tiefree",
    )  # fmt: skip


def check_parity(
    image: np.ndarray,
    attribution: np.ndarray,
    expected: np.ndarray,
    fill: list[float],
    order: str,
    compat: str,
    *,
    joint: bool,
) -> None:
    """Bit for bit, for every percentile; ``joint`` ranks all channel values together, as one long gray image."""
    maps = (
        attribution.reshape(1, -1, attribution.shape[-1])
        if joint
        else attribution.reshape(-1, *image.shape[1:]).max(0)[None]
    )
    assert np.unique(maps.astype(np.float32)).size == maps.size  # tie-free still in float32
    pixels = torch.from_numpy(image).reshape(1, 1, -1, image.shape[-1]) if joint else torch.from_numpy(image)[None]
    colours = torch.tensor(fill).reshape(1, 3, 1, 1).expand(1, 3, *image.shape[1:])
    ranks = rank_pixels(torch.from_numpy(maps), None, ties="index")
    for percentile, wanted in zip(PERCENTILES, expected, strict=True):
        count = removal_count(percentile / 100, maps.size)
        ours = remove(pixels, ranks, count, colours.reshape(pixels.shape), order=order, compat=compat)
        if count == 0 and compat == "corrected":
            wanted = image
        assert np.array_equal(ours.reshape(image.shape).numpy(), wanted), percentile


@pytest.mark.parametrize("name", ["uint8", "blocks"])
@pytest.mark.parametrize(("mode", "order"), [("roar", ORDERS[0]), ("kar", ORDERS[1])])
def test_parity_of_tied_maps_given_the_original_order(name: str, mode: str, order: str) -> None:
    """Numpy's unstable sort decided the ties, on other machines otherwise: the stored order is taken as the ranking."""
    golden = load("s4_roar_remove")
    image = torch.from_numpy(golden["in_image"])[None]
    fill = torch.tensor(json.loads(str(golden["params"]))["mean"]).reshape(1, 3, 1, 1)
    ranks = ranks_from_ascending(golden[f"out_argsort_{name}"], image.shape[2:])
    for percentile, wanted in zip(PERCENTILES, golden[f"out_{name}_{mode}"], strict=True):
        ours = remove(image, ranks, removal_count(percentile / 100, 256), fill, order=order, compat="original")
        assert np.array_equal(ours[0].numpy(), wanted), percentile


@pytest.mark.parametrize(
    ("case", "attribution", "output", "order"),
    [
        ("s4_roar_remove", "in_attr_uint8", "out_uint8_roar", ORDERS[0]),
        ("s4_roar_remove", "in_attr_uint8", "out_uint8_kar", ORDERS[1]),
        ("s4_roar_remove", "in_attr_blocks", "out_blocks_roar", ORDERS[0]),
        ("s4_roar_remove", "in_attr_blocks", "out_blocks_kar", ORDERS[1]),
        ("s4_lerf_remove", "in_attr_uint8", "out_uint8_top", ORDERS[0]),
        ("s4_lerf_remove", "in_attr_uint8", "out_uint8_bottom", ORDERS[1]),
    ],
)
@pytest.mark.parametrize("ties", ["index", "random"])
def test_tied_maps_agree_with_the_original_but_for_pixels_at_the_threshold(
    case: str, attribution: str, output: str, order: str, ties: str
) -> None:
    """Whatever breaks ties: pixels above and below the value at which removal stops fare alike, in equal numbers."""
    golden = load(case)
    image = torch.from_numpy(golden["in_image"])[None]
    values = torch.from_numpy(golden[attribution].reshape(-1, 16, 16).max(0)).float()
    ranks = rank_pixels(values[None], [0], ties=ties)
    untouched = golden["in_image"]
    for percentile, wanted in zip(PERCENTILES, golden[output], strict=True):
        count = removal_count(percentile / 100, 256)
        gone = removal_mask(ranks, count, order, compat="original")[0]
        gone_there = torch.from_numpy((wanted != untouched).any(axis=0))
        assert gone.sum() == gone_there.sum()
        last = values.flatten()[ranks.flatten().argsort(descending=order == ORDERS[1])][max(0, count - 1)]
        assert bool((gone == gone_there)[values != last].all()), percentile
        assert torch.equal(
            remove(image, ranks, count, image[:, :, :1, :1] * 0 + 9, order=order, compat="original")[0, 0] == 9, gone
        )


@pytest.mark.parametrize(("mode", "order"), [("roar", ORDERS[0]), ("kar", ORDERS[1])])
def test_colour_ranking_of_a_gray_map_agrees_but_for_the_tied_channels(mode: str, order: str) -> None:
    """The original's unused mode ranks channel values, three equal ones a pixel: at most one pixel is cut apart."""
    golden = load("s4_roar_remove")
    values = torch.from_numpy(golden["in_attr_gray"]).float().reshape(1, 48, 16)
    ranks = rank_pixels(values, None, ties="index")
    for percentile, wanted in zip(PERCENTILES, golden[f"out_graymap_as_color_{mode}"], strict=True):
        count = removal_count(percentile / 100, 768)
        gone = removal_mask(ranks, count, order, compat="original").reshape(3, 16, 16)
        gone_there = torch.from_numpy(wanted != golden["in_image"])
        assert gone.sum() == gone_there.sum() == (count or (768 if mode == "roar" else 0))
        assert int((gone != gone_there).any(dim=0).sum()) <= 1


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("fill_shape", [(1, 1, 1, 1), (1, 3, 1, 1), (4, 3, 5, 6)])
def test_memory_format_changes_nothing_and_is_kept(
    memory_format: torch.memory_format, fill_shape: tuple[int, ...]
) -> None:
    generator = torch.Generator().manual_seed(0)
    images, fill = torch.rand(4, 3, 5, 6, generator=generator), torch.rand(fill_shape, generator=generator)
    ranks, counts = rank_pixels(torch.rand(4, 5, 6, generator=generator), list(range(4))), torch.tensor([0, 3, 29, 30])
    removed = remove(images.contiguous(memory_format=memory_format), ranks, counts, fill)
    assert removed.is_contiguous(memory_format=memory_format)
    assert torch.equal(removed, torch.where(removal_mask(ranks, counts)[:, None], fill, images))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_one_image_can_be_altered_in_many_ways(memory_format: torch.memory_format) -> None:
    image = torch.rand(1, 3, 5, 6).contiguous(memory_format=memory_format)
    ranks, counts = rank_pixels(torch.rand(1, 5, 6), [0]), torch.tensor([0, 3, 30])
    fill = torch.rand(1, 3, 1, 1)
    many = remove(image, ranks, counts, fill)
    copies = remove(image.expand(3, -1, -1, -1).contiguous(), ranks.expand(3, -1, -1), counts, fill)
    assert torch.equal(many, copies)
    assert many.is_contiguous(memory_format=memory_format)
