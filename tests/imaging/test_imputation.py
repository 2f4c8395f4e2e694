"""Noisy linear imputation: golden arrays, pytorch-grad-cam's imputer, what it leaves alone, what peers get wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_grad_cam.metrics.road import NoisyLinearImputer, ROADMostRelevantFirst

from roarline.imaging.hashed_noise import normal_noise
from roarline.imaging.imputation import impute
from roarline.imaging.ranking import rank_pixels, removal_count
from roarline.imaging.removal import removal_mask
from tests.golden_cases import case

GOLDEN, PARAMS = case("s5_noisy_linear")
IMAGE = torch.from_numpy(GOLDEN["in_image"])


def golden_mask(name: str) -> torch.Tensor:
    """bool [1, H, W], True where removed."""
    return torch.from_numpy(GOLDEN["in_masks"][PARAMS["masks"].index(name)] == 0)[None]


@pytest.mark.parametrize("name", PARAMS["masks"])
def test_parity_with_road_evaluation(name: str) -> None:
    """theirs is float64 cut to float32; ours is solved to 1e-5 in float32."""
    found = impute(IMAGE[None], golden_mask(name))[0]
    torch.testing.assert_close(found, torch.from_numpy(GOLDEN[f"out_{name}"]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", PARAMS["masks"])
def test_parity_with_road_evaluations_noise(name: str) -> None:
    mask = golden_mask(name)
    noise = torch.zeros_like(IMAGE)
    noise[:, mask[0]] = torch.from_numpy(GOLDEN["in_noise"])[:, : int(mask.sum())] * PARAMS["noise"]
    found = impute(IMAGE[None], mask, noise[None])[0]
    torch.testing.assert_close(found, torch.from_numpy(GOLDEN[f"out_{name}_noise"]), atol=1e-5, rtol=0)


# Theirs gives numpy functions tensors.
@pytest.mark.filterwarnings("ignore:__array_wrap__ must accept context:DeprecationWarning")
@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
def test_parity_with_pytorch_grad_cam(fraction: float) -> None:
    """Both orders of a smooth and of a fine map, to 1e-5 of the pixel range."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(3, 40, 40, generator=generator)
    smooth = torch.nn.functional.interpolate(
        torch.rand(1, 1, 5, 5, generator=generator), (40, 40), mode="bilinear", align_corners=False
    )[0]
    maps = torch.cat([smooth, torch.rand(1, 40, 40, generator=generator)])
    ranks = rank_pixels(maps, [1, 2])
    theirs = NoisyLinearImputer(noise=0.0)
    for order in ("most_relevant_first", "least_relevant_first"):
        masks = removal_mask(ranks, removal_count(fraction, 1600), order)  # type: ignore[arg-type]
        found = impute(image[None], masks)
        for row in range(2):
            torch.testing.assert_close(found[row], theirs(image, (~masks[row]).float()), atol=1e-5, rtol=0)


def test_pytorch_grad_cam_bug_a_map_of_mostly_zeros_loses_the_whole_image() -> None:
    """peers.md: at the 10th and the 50th percentile of a map that is 75 % zeros the threshold is 0, and what is kept
    is what lies below it: nothing. Here a fraction is a fraction of the pixels, and ties are drawn."""
    map_HW = torch.zeros(8, 8)
    map_HW[:2] = torch.arange(1.0, 17.0).reshape(2, 8) / 16
    image = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for percentile in (10, 50):
        road = ROADMostRelevantFirst(percentile).perturbation
        seen: list[torch.Tensor] = []
        road.imputer = lambda tensor, mask, seen=seen: seen.append(mask) or tensor
        road(image[0], map_HW)
        assert int(seen[0].sum()) == 0  # all of theirs is gone
        mask = removal_mask(rank_pixels(map_HW[None], [0]), removal_count(percentile / 100, 64))
        assert int(mask.sum()) == percentile * 64 // 100
        assert torch.isfinite(impute(image, mask)).all()


def test_road_evaluation_bug_the_mean_of_an_image_changes_it() -> None:
    """peers.md B5.4: its ChannelMeanImputer writes into its argument; nothing of ours does."""
    images, mask, noise = IMAGE[None].clone(), golden_mask("rand30"), torch.full((1, 3, 1, 1), 0.1)
    kept = [value.clone() for value in (images, mask, noise)]
    impute(images, mask, noise)
    assert all(torch.equal(one, other) for one, other in zip((images, mask, noise), kept, strict=True))


def test_known_pixels_stay_as_they_are_and_noise_is_on_removed_ones_only() -> None:
    mask, noise = golden_mask("rand80"), normal_noise(torch.tensor([3]), IMAGE.shape) * 0.01
    plain, noisy = impute(IMAGE[None], mask), impute(IMAGE[None], mask, noise)
    assert torch.equal(plain[:, :, ~mask[0]], IMAGE[None][:, :, ~mask[0]])
    torch.testing.assert_close(noisy - plain, noise * mask[:, None], atol=1e-7, rtol=0)


@pytest.mark.parametrize("colour", [0.25, torch.tensor([0.1, 0.5, 0.9]).reshape(1, 3, 1, 1)])
def test_an_image_of_which_nothing_is_known_becomes_the_stated_colour(colour: object) -> None:
    """The system is singular there."""
    masks = torch.ones(2, 16, 19, dtype=torch.bool)
    masks[1, 3, 4] = False
    found = impute(IMAGE[None].expand(2, -1, -1, -1), masks, nothing_known=colour)  # type: ignore[arg-type]
    expected = torch.as_tensor(colour).expand(1, 3, 16, 19)
    torch.testing.assert_close(found[:1], expected, atol=1e-7, rtol=0)
    torch.testing.assert_close(found[1], IMAGE[:, 3:4, 4:5].expand_as(IMAGE), atol=1e-5, rtol=0)


@settings(max_examples=10, deadline=None)
@given(st.floats(0.01, 100), st.floats(-10, 10), st.integers(0, 2**31))
def test_imputation_commutes_with_normalisation(scale: float, shift: float, seed: int) -> None:
    """A weighted mean does, so that images may be normalised; tolerances scale with the pixel range."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(1, 2, 9, 12, generator=generator)
    mask = torch.rand(1, 9, 12, generator=generator) < 0.7
    mask[0, 0, 0] = False
    moved = impute(image * scale + shift, mask, pixel_range=scale)
    rounding = 1e-6 * (scale + abs(shift))  # float32 has 1e-7 of the value
    torch.testing.assert_close(moved, impute(image, mask) * scale + shift, atol=2e-5 * scale + rounding, rtol=0)


def test_one_image_altered_in_several_ways_needs_no_copies() -> None:
    masks = torch.cat([golden_mask(name) for name in PARAMS["masks"]])
    together = impute(IMAGE[None], masks)
    assert together.shape == (6, 3, 16, 19)
    for row in range(6):
        torch.testing.assert_close(together[row], impute(IMAGE[None], masks[row : row + 1])[0], atol=1e-6, rtol=0)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    masks = torch.cat([golden_mask(name) for name in PARAMS["masks"]])
    images, noise = IMAGE[None] * torch.rand(6, 1, 1, 1), torch.rand(6, 3, 16, 19)
    together = impute(images, masks, noise)
    monkeypatch.setattr("roarline.imaging.imputation._CPU_BLOCK_PX", 2 * 3 * 16 * 19)
    torch.testing.assert_close(impute(images, masks, noise), together, atol=1e-6, rtol=0)


def test_mixed_precision_around_it_changes_nothing() -> None:
    """Within autocast matrix products are of 16 bits; a linear system solved so has errors of 1e-2."""
    mask = golden_mask("block")
    expected = impute(IMAGE[None], mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = impute(IMAGE[None], mask)
    assert torch.equal(found, expected)


def test_a_system_that_is_not_solved_is_nan_and_its_neighbours_are_not() -> None:
    masks = torch.cat([golden_mask("single"), golden_mask("rand80")])
    found = impute(IMAGE[None].expand(2, -1, -1, -1), masks, iterations=1)
    assert torch.isfinite(found[0]).all()
    assert torch.isnan(found[1][:, masks[1]]).all()
    assert torch.isfinite(found[1][:, ~masks[1]]).all()


def test_the_memory_format_of_the_network_is_kept() -> None:
    images = torch.rand(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    mask = torch.rand(2, 8, 8) < 0.5
    found = impute(images, mask)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, impute(images.contiguous(), mask), atol=0, rtol=0)


def test_nothing_waits_for_a_device() -> None:
    """torch's meta device has no values: asking for one raises."""
    images, masks = torch.rand(4, 3, 20, 30, device="meta"), torch.ones(4, 20, 30, dtype=torch.bool, device="meta")
    assert impute(images, masks, torch.rand(4, 3, 20, 30, device="meta")).shape == (4, 3, 20, 30)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_same_to_1e_5() -> None:
    masks = torch.cat([golden_mask(name) for name in PARAMS["masks"]])
    on_gpu = impute(IMAGE[None].cuda(), masks.cuda()).cpu()
    torch.testing.assert_close(on_gpu, impute(IMAGE[None], masks), atol=1e-5, rtol=0)


def test_float64_is_solved_in_float64() -> None:
    found = impute(IMAGE[None].double(), golden_mask("block"))
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found[0].numpy(), GOLDEN["out_block"], atol=1e-5, rtol=0)
