"""Shared passes: which altered images are made, once each, and what the network says of them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from roarline.evaluation.curves import area_under_curve, relative_deviation
from roarline.evaluation.perturb import Curve, altered_images, target_outputs
from roarline.evaluation.perturbation_scores import CurveSettings, curves_for
from roarline.imaging.ranking import rank_pixels, removal_count
from roarline.imaging.removal import remove
from tests.evaluation.tiny_net import load, tiny_net

MORF, LERF = "most_relevant_first", "least_relevant_first"
USUAL = ["srg", "insertion", "deletion", "morf_deviation", "lerf_deviation", "aopc"]
TENTHS = tuple(i / 10 for i in range(11))


def settings(**changes: Any) -> CurveSettings:
    usual = {"fractions": TENTHS, "steps": 28, "fill": "mean", "insertion_fill": "blur", "deletion_fill": "mean"}
    return CurveSettings(**{**usual, **changes})


class Recording(nn.Module):
    """Logits that say how many pixels are left and which: [sum of the image, weighted sum]; counts what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.batches.append(images.clone())
        return torch.stack([images.sum(dim=(1, 2, 3)), images[:, 0, 0, 0]], dim=1)


def test_everything_shared_is_passed_through_once() -> None:
    """By counting: morf and lerf have 9 inner points each, insertion 27, deletion 27 but for the one at 1/2, which is
    morf's too; then the untouched image, the mean fill alone and the blur alone."""
    altered = altered_images(curves_for(USUAL, settings()), 224 * 224, untouched=True)
    assert len(altered.removals) == 9 + 9 + 27 + 26 + 3


def test_insertion_on_lerfs_fill_shares_lerfs_images() -> None:
    same = settings(insertion_fill="mean", steps=10)
    altered = altered_images(curves_for(["morf", "lerf", "insertion", "deletion"], same), 100)
    assert len(altered.removals) == 9 + 9 + 2
    assert altered.places["insertion"] == altered.places["lerf"][::-1]
    assert altered.places["deletion"] == altered.places["morf"]


def test_morf_and_lerf_share_both_ends() -> None:
    altered = altered_images(curves_for(["srg"], settings()), 64)
    morf, lerf = altered.places["morf"], altered.places["lerf"]
    assert morf[0] == lerf[0] == altered.untouched
    assert morf[-1] == lerf[-1]
    assert not set(morf[1:-1]) & set(lerf[1:-1])


@given(st.lists(st.integers(0, 100), min_size=1, max_size=6, unique=True), st.integers(1, 12), st.integers(1, 40))
def test_every_point_of_every_curve_has_the_image_it_asks_for(percents: list[int], steps: int, side: int) -> None:
    """Whatever is shared: a point's column makes the same mask as the removal that the curve describes."""
    pixels = side * side
    fractions = tuple(sorted(percent / 100 for percent in percents))
    curves = curves_for(["srg", "insertion", "deletion"], settings(fractions=fractions, steps=steps))
    altered = altered_images(curves, pixels)
    assert len({(r.order, r.fill, r.count) for r in altered.removals}) == len(altered.removals)
    for name, curve in curves.items():
        for fraction, column in zip(curve.fractions, altered.places[name], strict=True):
            removal, count = altered.removals[column], removal_count(fraction, pixels)
            gone = pixels - count if name == "insertion" else count
            assert removal.count == gone
            if 0 < gone < pixels:
                assert (removal.order == LERF) == (name in ("lerf", "insertion"))
            if gone > 0:
                assert removal.fill == curve.fill


@pytest.mark.parametrize("sign", ["raw", "normabs"])
@pytest.mark.parametrize(("baseline", "score"), [("black", "probabilities"), ("zero_logits", "logits")])
def test_parity_with_quantus_pixel_flipping(baseline: str, score: str, sign: str) -> None:
    """It flips 16 values a step, a pixel's three channels in a row: after three steps 16 whole pixels are gone.

    Black is the smallest number of an image. float32 networks, batched otherwise.
    """
    golden = load("q_faithfulness")
    images, targets = torch.from_numpy(golden["in_x"]), torch.from_numpy(golden["in_y"])
    maps = torch.from_numpy(golden["in_a"])[:, 0]
    ranks = rank_pixels(maps.abs() if sign == "normabs" else maps, None, ties="index")
    altered = altered_images({"morf": Curve(tuple(16 * step / 576 for step in range(1, 37)), MORF, "fill")}, 576)
    fill = images.amin(dim=(1, 2, 3), keepdim=True) if baseline == "black" else torch.zeros(1, 3, 1, 1)
    outputs = target_outputs(tiny_net(golden), images, ranks, targets, altered, {"fill": fill}, batch_size=7)
    found = getattr(outputs, score)[:, list(altered.places["morf"])]
    expected = golden[f"out_pixelflipping_{baseline}_{sign}"][:, 2::3]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_original_compat_wipes_morf_at_nothing_and_nothing_else() -> None:
    curves = curves_for(["morf", "lerf", "deletion"], settings(compat="original"))
    altered = altered_images(curves, 224 * 224, untouched=True)
    assert altered.places["morf"][0] == altered.places["morf"][-1]
    assert altered.places["lerf"][0] == altered.places["deletion"][0] == altered.untouched


def test_passes_are_full_and_inference_only() -> None:
    model = Recording()
    curves = curves_for(["morf", "lerf", "insertion"], settings(steps=5))
    altered = altered_images(curves, 36)
    images = torch.rand(7, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    ranks = rank_pixels(torch.rand(7, 6, 6), list(range(7)))
    fills = {"mean": torch.full((1, 3, 1, 1), -1.0), "blur": images * 0.5}
    target_outputs(model, images, ranks, torch.zeros(7, dtype=torch.int64), altered, fills, batch_size=8)
    sizes = [len(batch) for batch in model.batches]
    assert sum(sizes) == 7 * len(altered.removals)
    partial = [size for size in sizes if size != 8]
    assert len(partial) <= 3  # the last one of each order and fill
    assert all(batch.is_inference() for batch in model.batches)


class Copies(TorchDispatchMode):
    """Counts copies of tensors to another device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        to = [value for value in (*args, *(kwargs or {}).values()) if isinstance(value, torch.device)]
        self.count += any(isinstance(value, Tensor) and value.device not in to for value in args[:1] if to)
        return func(*args, **(kwargs or {}))


def test_quantus_bug_each_step_copies_between_host_and_device() -> None:
    """peers.md: that made PixelFlipping slow. torch's meta device has no values, so that asking for one raises."""

    def copies(rows: int, steps: int) -> int:
        altered = altered_images(curves_for(["srg", "insertion"], settings(steps=steps)), 36)
        images, ranks = (
            torch.rand(rows, 3, 6, 6, device="meta"),
            torch.zeros(rows, 6, 6, dtype=torch.int32, device="meta"),
        )
        fills = {"mean": torch.full((1, 3, 1, 1), -1.0, device="meta"), "blur": images * 0.5}
        targets = torch.zeros(rows, dtype=torch.int64, device="meta")
        with Copies() as counted:
            outputs = target_outputs(Recording(), images, ranks, targets, altered, fills, batch_size=4)
        assert outputs.logits.is_meta
        return counted.count

    assert copies(9, 20) == copies(2, 3) == 0


@pytest.mark.parametrize("batch_size", [1, 3, 1000])
def test_outputs_depend_neither_on_the_batch_nor_on_the_row(batch_size: int) -> None:
    """float64, so that only the order of sums inside a convolution may differ; against one image at a time."""
    golden = load("r_causal_metric")
    net = tiny_net(golden).double()
    images = torch.from_numpy(golden["in_images"]).double()
    ranks = rank_pixels(torch.from_numpy(golden["in_explanations"]), [1, 2, 3, 4])
    targets = torch.tensor([0, 4, 2, 1])
    curves = {"a": Curve((0.0, 0.3, 1.0), MORF, "mean"), "b": Curve((0.1, 0.5), MORF, "blur", inserts=True)}
    altered = altered_images(curves, 28 * 28)
    fills = {"mean": torch.zeros(1, 3, 1, 1).double(), "blur": images.flip(3)}
    outputs = target_outputs(net, images, ranks, targets, altered, fills, batch_size=batch_size)
    for row in range(4):
        for column, removal in enumerate(altered.removals):
            fill = fills[removal.fill] if len(fills[removal.fill]) == 1 else fills[removal.fill][row : row + 1]
            single = remove(images[row : row + 1], ranks[row : row + 1], removal.count, fill, order=removal.order)
            logits = net(single).float()[0]
            torch.testing.assert_close(outputs.logits[row, column], logits[targets[row]], rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(
                outputs.probabilities[row, column], logits.softmax(0)[targets[row]], rtol=1e-5, atol=1e-7
            )


def test_a_multi_label_classifier_is_read_by_its_sigmoid() -> None:
    model, images = Recording(), torch.full((1, 3, 2, 2), 0.1)
    altered = altered_images({"a": Curve((0.0, 1.0), MORF, "mean")}, 4)
    ranks, targets = rank_pixels(torch.zeros(1, 2, 2), [0]), torch.tensor([1])
    outputs = target_outputs(
        model, images, ranks, targets, altered, {"mean": torch.ones(1, 3, 1, 1)}, batch_size=4, multi_label=True
    )
    torch.testing.assert_close(outputs.probabilities, torch.tensor([[0.1, 1.0]]).sigmoid())


def test_a_row_whose_output_is_not_finite_is_nan_and_its_neighbours_are_not() -> None:
    class Breaking(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            logits = images.sum(dim=(2, 3))
            return torch.where(images[:, :1, 0, 0] > 5, torch.tensor([0.0, torch.inf, 0.0]), logits)

    images = torch.zeros(2, 3, 2, 2)
    images[1] = 9
    altered = altered_images({"a": Curve((0.0, 1.0), MORF, "mean")}, 4)
    ranks = rank_pixels(torch.zeros(2, 2, 2), [0, 1])
    outputs = target_outputs(
        Breaking(), images, ranks, torch.tensor([0, 0]), altered, {"mean": torch.zeros(1, 3, 1, 1)}, batch_size=3
    )
    assert torch.isnan(outputs.probabilities).tolist() == [[False, False], [True, False]]
    assert torch.isnan(outputs.logits).tolist() == [[False, False], [True, False]]


def test_parity_with_rise_insertion_and_deletion() -> None:
    """float32 convolutions on both sides: single evaluations agree to 1e-4, as the golden README suggests."""
    golden = load("r_causal_metric")
    images, targets = torch.from_numpy(golden["in_images"]), None
    net = tiny_net(golden)
    targets = net(images).argmax(dim=1)
    ranks = rank_pixels(torch.from_numpy(golden["in_explanations"]), None, ties="index")
    curves = curves_for(["insertion", "deletion"], settings(steps=28, deletion_fill="zero", insertion_fill="blur"))
    altered = altered_images(curves, 28 * 28)
    fills = {"zero": torch.zeros(1, 3, 1, 1), "blur": torch.from_numpy(golden["out_blurred"])}
    outputs = target_outputs(net, images, ranks, targets, altered, fills, batch_size=16)
    for name, short in (("insertion", "ins"), ("deletion", "del")):
        scores = outputs.probabilities[:, list(altered.places[name])]
        torch.testing.assert_close(
            scores.double(), torch.from_numpy(golden[f"out_{short}_single"]), rtol=1e-4, atol=1e-5
        )
        torch.testing.assert_close(
            scores.double(), torch.from_numpy(golden[f"out_{short}_evaluate"]).T, rtol=1e-4, atol=1e-5
        )
        areas = area_under_curve(torch.tensor(curves[name].fractions), scores)
        torch.testing.assert_close(areas, torch.from_numpy(golden[f"out_{short}_auc"]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("compat", ["original", "corrected"])
def test_parity_with_the_original_lerf_deviation(compat: str) -> None:
    golden = load("s4_lerf_deviation")
    net, images = tiny_net(golden), torch.from_numpy(golden["in_images"])
    logits = net(images)
    torch.testing.assert_close(logits, torch.from_numpy(golden["out_logits"]), rtol=1e-4, atol=1e-5)
    maps = torch.from_numpy(golden["in_attributions"]).amax(dim=1)
    assert all(len(row.float().unique()) == 256 for row in maps)
    fractions = [percent / 100 for percent in json.loads(str(golden["params"]))["percentiles"]]
    curves = curves_for(["morf_deviation", "lerf_deviation"], settings(fractions=fractions, compat=compat))
    altered = altered_images(curves, 256, untouched=True)
    assert altered.untouched is not None
    outputs = target_outputs(
        net, images, rank_pixels(maps, None, ties="index"), logits.argmax(dim=1), altered,
        {"mean": torch.zeros(1, 3, 1, 1)}, batch_size=5,
    )  # fmt: skip
    before = outputs.probabilities[:, altered.untouched, None]
    for last, name in enumerate(("morf", "lerf")):
        deviation = relative_deviation(before, outputs.probabilities[:, list(altered.places[name])]).mean(dim=0)
        # 1 % of 256 px is 2 px, so that the original's slice of nothing does not come up here.
        torch.testing.assert_close(
            deviation, torch.from_numpy(golden["out_deviation"][0, :, last]), rtol=1e-4, atol=1e-4
        )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_outputs_are_close_on_a_gpu() -> None:
    """float32 on both, TF32 off: only the order of sums differs."""
    golden = load("r_causal_metric")
    net, images = tiny_net(golden), torch.from_numpy(golden["in_images"])
    ranks = rank_pixels(torch.from_numpy(golden["in_explanations"]), [1, 2, 3, 4])
    altered = altered_images(curves_for(["srg", "insertion"], settings()), 28 * 28)
    fills = {"mean": torch.zeros(1, 3, 1, 1), "blur": images.flip(3)}
    targets = torch.tensor([0, 4, 2, 1])
    expected = target_outputs(net, images, ranks, targets, altered, fills, batch_size=8)
    on_gpu = target_outputs(
        net.cuda(), images.cuda(), ranks.cuda(), targets.cuda(), altered,
        {name: fill.cuda() for name, fill in fills.items()}, batch_size=64,
    )  # fmt: skip
    torch.testing.assert_close(on_gpu.probabilities.cpu(), expected.probabilities, rtol=1e-4, atol=1e-5)
