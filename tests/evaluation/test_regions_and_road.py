"""ROAD, IROF and region perturbation: road_evaluation's and Quantus's numbers, and the bugs that they are known for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from roarline.evaluation.curves import area_over_curve
from roarline.evaluation.perturb import Curve, MaskFill, altered_images, target_outputs
from roarline.evaluation.perturbation_scores import CurveSettings, curves_for
from roarline.imaging.imputation import impute
from roarline.imaging.ranking import rank_pixels
from roarline.imaging.region_ranks import RegionRanks, rank_regions
from roarline.imaging.removal import Order, removal_mask
from roarline.imaging.superpixels import patches
from tests.evaluation.tiny_net import load, tiny_net

MOST: Order = "most_relevant_first"
LEAST: Order = "least_relevant_first"
IMAGENET = [torch.tensor(values).reshape(1, 3, 1, 1) for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
FRACTIONS = [0.1, 0.3, 0.5, 0.7, 0.9]


def imputing(images_NCHW: Tensor, mask_NHW: Tensor, rows: slice | Tensor) -> Tensor:
    return impute(images_NCHW, mask_NHW)


def road_ranks(golden: dict[str, np.ndarray], draw: int) -> Tensor:
    """As road_evaluation ranks: channels summed, min-max, one tie-breaking draw for all images of a percentage."""
    maps = golden["in_explanations"].sum(-1)
    low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
    maps = (maps - low) / (high - low + 1e-5) + 1e-4 * golden["in_tiebreak"][draw]
    # Ours compares float32; whole numbers keep the order of float64 values that float32 would tie.
    order = maps.reshape(len(maps), -1).argsort(1).argsort(1).reshape(maps.shape)
    return rank_pixels(torch.from_numpy(order), None, ties="index")


@pytest.mark.parametrize(("order", "name"), [(MOST, "morf"), (LEAST, "lerf")])
def test_parity_with_road_evaluation(order: Order, name: str) -> None:
    """float32 networks: 1e-5. Its LeRF keeps the top p: the number of removed pixels is what floor(p · H · W) leaves.

    road_evaluation bugs (peers.md, B5.3): what it prints as the probability is class 0's, whatever the images show, so
    that class 0 is the target here; ours is the target's.
    """
    golden = load("s5_road")
    net, images = tiny_net(golden), torch.from_numpy(golden["in_images"])
    normalised = (images - IMAGENET[0]) / IMAGENET[1]
    labels = torch.from_numpy(golden["in_labels"])
    for index, fraction in enumerate(FRACTIONS):
        ranks = road_ranks(golden, index + (5 if order == LEAST else 0))
        count = int(256 * fraction) if order == MOST else 256 - int(256 * fraction)
        mask = removal_mask(ranks, count, order)
        bits = torch.from_numpy(golden["out_bitmasks"][0 if order == MOST else 1, index])
        assert torch.equal(~mask[:2], bits.bool())
        altered = altered_images({name: Curve((count / 256,), order, "noisy_linear")}, 256)
        for target, expected in ((torch.zeros(8, dtype=torch.int64), f"out_{name}_prob0"),):
            outputs = target_outputs(net, normalised, ranks, target, altered, {"noisy_linear": imputing}, batch_size=3)
            assert outputs.probabilities.mean().item() == pytest.approx(golden[expected][index], abs=1e-5)
        right = net(impute(normalised, mask)).argmax(1) == labels
        assert right.float().mean().item() == pytest.approx(golden[f"out_{name}_acc"][index])


def test_road_evaluation_bug_the_imputer_is_the_one_that_was_asked_for() -> None:
    """peers.md: ``==`` where ``=`` was meant left the imputer as it was. A curve is filled by the fill it names."""
    golden = load("s5_road")
    net, images = tiny_net(golden), torch.from_numpy(golden["in_images"])
    ranks, targets = road_ranks(golden, 0), torch.from_numpy(golden["in_labels"])
    fills: dict[str, Tensor | MaskFill] = {"noisy_linear": imputing, "zero": torch.zeros(1, 3, 1, 1)}
    curves = {name: Curve((0.5,), MOST, name) for name in fills}
    altered = altered_images(curves, 256)
    outputs = target_outputs(net, images, ranks, targets, altered, fills, batch_size=8)
    mask = removal_mask(ranks, 128)
    for name, filled in (("noisy_linear", impute(images, mask)), ("zero", images.masked_fill(mask[:, None], 0.0))):
        expected = net(filled)[torch.arange(8), targets]
        torch.testing.assert_close(outputs.logits[:, altered.places[name][0]], expected, rtol=1e-4, atol=1e-5)


def test_road_evaluation_bug_lerf_of_a_fraction_removes_that_fraction() -> None:
    """spec B5.5: its LeRF at p keeps p. ``removed_fraction`` is what is removed, from either end."""
    settings = CurveSettings((0.0, 1.0), 1, "mean", "mean", "mean", road_fractions=(0.25,))
    altered = altered_images(curves_for(["road_combined"], settings), 64)
    assert {(removal.order, removal.count) for removal in altered.removals} == {(MOST, 16), (LEAST, 16)}


def quantus_net() -> tuple[dict[str, np.ndarray], nn.Module, Tensor, Tensor, Tensor]:
    golden = load("q_road_irof_1ch")
    images, maps = torch.from_numpy(golden["in_x"]), torch.from_numpy(golden["in_a"])[:, 0]
    return golden, tiny_net(golden), images, maps, torch.from_numpy(golden["in_y"])


@pytest.mark.parametrize("sign", ["raw", "norm", "normabs"])
def test_parity_with_quantus_road(sign: str) -> None:
    """Its score is the accuracy at each percentage of removed pixels, on one channel and one batch, where it is right.

    Dividing a map by its largest magnitude (norm) changes no rank."""
    golden, net, images, maps, labels = quantus_net()
    ranks = rank_pixels(maps.abs() if sign == "normabs" else maps, None, ties="index")
    for index, percent in enumerate([5, 10, 30, 50, 80, 95]):
        filled = impute(images, removal_mask(ranks, int(576 * percent / 100)))
        accuracy = (net(filled).argmax(1) == labels).double().mean().item()
        assert accuracy == pytest.approx(golden[f"out_road_{sign}"][index])


def test_quantus_bug_road_scores_every_batch_and_colour_images() -> None:
    """peers.md: it scored the first batch only and raised on RGB. Here no row is NaN, and batches change nothing."""
    golden = load("s5_road")
    net, images = tiny_net(golden), torch.from_numpy(golden["in_images"])
    ranks, targets = road_ranks(golden, 0), torch.from_numpy(golden["in_labels"])
    altered = altered_images({"road_morf": Curve(tuple(FRACTIONS), MOST, "noisy_linear")}, 256)
    fills: dict[str, Tensor | MaskFill] = {"noisy_linear": imputing}
    one, many = (
        target_outputs(net, images, ranks, targets, altered, fills, batch_size=size).probabilities for size in (100, 3)
    )
    assert torch.isfinite(one).all()
    assert len(one.unique()) == one.numel()
    torch.testing.assert_close(one, many, rtol=1e-4, atol=1e-5)


def irof_curve(net: nn.Module, image: Tensor, label: Tensor, ranks: RegionRanks, fill: Tensor) -> tuple[Tensor, Tensor]:
    """[F + 1] fractions and the probability after each superpixel of one image."""
    count = int(ranks.regions_B)
    fractions = tuple(k / count for k in range(count + 1))
    altered = altered_images({"irof": Curve(fractions, MOST, "fill", unit="superpixels")}, image[0, 0].numel())
    outputs = target_outputs(
        net, image, torch.empty(1, 0), label, altered, {"fill": fill}, batch_size=64, regions={"superpixels": ranks}
    )
    scores = outputs.probabilities[0, list(altered.places["irof"])]
    return torch.tensor(fractions, dtype=torch.float64), scores


class Brightness(nn.Module):
    """Logits: the mean of all pixels, and 0."""

    def forward(self, images: Tensor) -> Tensor:
        mean = images.mean(dim=(1, 2, 3))
        return torch.stack([mean, torch.zeros_like(mean)], dim=1)


def test_quantus_bug_irof_keeps_what_it_removed() -> None:
    """peers.md: segments once did not accumulate. A white image of four quarters loses one more at each step."""
    y, x = torch.meshgrid(torch.arange(8) // 4, torch.arange(8) // 4, indexing="ij")
    segments = (2 * y + x)[None]
    ranks = rank_regions(segments.float(), segments, 4, None, "index")
    white, label = torch.ones(1, 3, 8, 8), torch.tensor([0])
    _, found = irof_curve(Brightness(), white, label, ranks, torch.zeros(1, 1, 1, 1))
    expected = torch.tensor([1, 0.75, 0.5, 0.25, 0]).sigmoid()
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=1e-6)


def test_parity_with_quantus_irof() -> None:
    """Its number is L - ∫ of the relative scores after 1 … L superpixels, steps of 1; ours is the same area over
    0 … L, divided by L. On black: its mean is that of the whole batch, some of it removed already, which no other
    batch would repeat."""
    golden, net, images, maps, labels = quantus_net()
    fill = torch.zeros(1, 1, 1, 1)
    for row in range(len(images)):
        segments = torch.from_numpy(np.unique(golden["in_segments"][row], return_inverse=True)[1].reshape(1, 24, 24))
        ranks = rank_regions(maps[row : row + 1], segments, int(segments.max()) + 1, None, "index")
        one = slice(row, row + 1)
        fractions, scores = irof_curve(net, images[one], labels[one], ranks, fill)
        relative = (scores / scores[0]).double()
        count = len(scores) - 1
        theirs = count - torch.trapezoid(relative[1:]).item()
        assert theirs == pytest.approx(golden["out_irof_zero_raw"][row], rel=1e-3)
        ours = area_over_curve(fractions, scores[None], scores[None, 0]).item()
        assert ours == pytest.approx((theirs - (1 + relative[1].item()) / 2) / count, abs=1e-5)


def test_attribench_bug_no_step_of_irof_masks_the_whole_image_but_the_last() -> None:
    """peers.md: ``[-0:]`` masks everything at its first step. Here the first image is the untouched one, each further
    one has a superpixel less, also where an image has fewer superpixels than there are steps."""

    class Left(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.stack([images.sum(dim=(1, 2, 3)), torch.zeros(len(images))], dim=1)

    labels = torch.stack([patches(8, 8, 2)[0], patches(8, 8, 4)[0]])
    maps = torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(0))
    ranks = rank_regions(maps, labels, 16, [0, 1])
    curve = Curve(tuple(step / 8 for step in range(9)), MOST, "fill", unit="superpixels")
    altered = altered_images({"irof": curve}, 64)
    outputs = target_outputs(
        Left(), torch.ones(2, 1, 8, 8), torch.empty(2, 0), torch.zeros(2, dtype=torch.int64), altered,
        {"fill": torch.zeros(1, 1, 1, 1)}, batch_size=5, regions={"superpixels": ranks},
    )  # fmt: skip
    left = outputs.logits[:, list(altered.places["irof"])].tolist()
    assert left[0] == [64, 56, 48, 40, 32, 24, 16, 8, 0]
    assert left[1] == [64, 64, 48, 48, 32, 32, 16, 16, 0]


def test_regions_share_the_untouched_image_and_the_fill_alone_with_pixels() -> None:
    settings = CurveSettings(
        (0.0, 0.5, 1.0), 2, "mean", "mean", "mean", irof_steps=2, irof_fill="mean", patch_px=(4,),
        patch_fractions=(0.0, 0.5, 1.0), patch_fill="mean",
    )  # fmt: skip
    altered = altered_images(curves_for(["morf", "irof", "region_perturbation"], settings), 64, untouched=True)
    assert len(altered.removals) == 2 + 3


def test_regions_are_removed_from_one_end_only() -> None:
    with pytest.raises(ValueError, match="a curve of superpixels removes the most relevant first"):
        Curve((0.5,), LEAST, "mean", unit="superpixels")


@pytest.mark.parametrize("sign", ["raw", "normabs"])
def test_parity_with_quantus_region_perturbation(sign: str) -> None:
    """MoRF: drops of the probability after 1 … 12 of 36 patches of 4 px; black is the image's smallest number.

    Its Selectivity is the probability itself, after 1 … 36 of them.
    """
    golden = load("q_faithfulness")
    net, images = tiny_net(golden), torch.from_numpy(golden["in_x"])
    maps, targets = torch.from_numpy(golden["in_a"])[:, 0], torch.from_numpy(golden["in_y"])
    ranks = rank_regions(maps.abs() if sign == "normabs" else maps, patches(24, 24, 4), 36, None, "index")
    curve = Curve(tuple(k / 36 for k in range(37)), MOST, "black", unit="patches_4")
    altered = altered_images({"regions": curve}, 576)
    black = images.amin(dim=(1, 2, 3), keepdim=True)
    outputs = target_outputs(
        net, images, torch.empty(5, 0), targets, altered, {"black": black}, batch_size=7, regions={"patches_4": ranks}
    )
    scores = outputs.probabilities[:, list(altered.places["regions"])].double()
    drops = (scores[:, :1] - scores[:, 1:13]).numpy()
    np.testing.assert_allclose(drops, golden[f"out_regionperturbation_morf_{sign}"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(scores[:, 1:].numpy(), golden[f"out_selectivity_{sign}"], rtol=1e-4, atol=1e-5)


def test_curves_of_regions_follow_their_settings() -> None:
    settings = CurveSettings((0.0, 1.0), 1, "mean", "mean", "mean", patch_px=(3, 5), patch_fractions=(0.1, 0.2))
    for name, curve in curves_for(["region_perturbation"], replace(settings, patch_fill="blur")).items():
        assert curve == Curve((0.1, 0.2), MOST, "blur", unit=f"patches_{name.rpartition('_')[2]}")
