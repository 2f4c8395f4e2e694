"""RISE: parity with both original codes, its expectation on a linear network, masks shared by images and classes."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from roarline.attribution import rise as rise_module
from roarline.attribution.rise import rise, rise_maps, rise_scores
from roarline.imaging.shifted_grids import ShiftedGrids, draw_shifted_grids
from roarline.models.passes import at_most
from tests.golden_recipes import tiny_net

GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.fixture(scope="module")
def torchray():
    arrays = dict(np.load(GOLDEN / "s6_rise.npz", allow_pickle=False))
    return arrays, tiny_net(arrays)


def test_equals_torchray_given_its_masks(torchray):
    """Sigmoid scores, divided by the number of masks alone. 1e-5: 24 float32 terms, another order of summing."""
    arrays, model = torchray
    masks = torch.from_numpy(arrays["in_masks"])[:, 0]
    scores = rise_scores(model, torch.from_numpy(arrays["in_image"]), masks, "sigmoid")
    maps = rise_maps(scores, masks)
    torch.testing.assert_close(maps, torch.from_numpy(arrays["out_saliency_given_masks"]), rtol=0, atol=1e-5)
    torch.testing.assert_close(maps, torch.from_numpy(arrays["out_saliency"]), rtol=0, atol=1e-5)
    targets = torch.from_numpy(arrays["in_target"])
    expected = torch.from_numpy(arrays["out_rise_class"])[:, 0]
    torch.testing.assert_close(maps[torch.arange(2), targets], expected, rtol=0, atol=1e-5)


def test_equals_the_original_code_given_its_draws():
    """r_rise_original.npz: softmax, divided by N and p. 1e-5: its masks and sums are float32."""
    arrays = dict(np.load(GOLDEN / "r_rise_original.npz", allow_pickle=False))
    grids = torch.from_numpy(arrays["in_uniform"] < 0.5).float()
    drawn = ShiftedGrids(grids, torch.from_numpy(arrays["in_shifts"]), (28, 28))
    scores = rise_scores(tiny_net(arrays), torch.from_numpy(arrays["in_image"]), drawn, "softmax")
    expected = torch.from_numpy(arrays["out_saliency"])
    torch.testing.assert_close(rise_maps(scores, drawn, p=0.5)[0], expected, rtol=0, atol=1e-5)
    of_masks = rise_maps(scores, torch.from_numpy(arrays["out_masks"]), p=0.5)[0]
    torch.testing.assert_close(of_masks, expected, rtol=0, atol=1e-5)


def exact_expectation(linear, images, targets, drawn, p):
    """E[f(x · M) M(q)] / p for f = w · x + b, from the cells' own mean and variance.

    A pixel's mask is a weighted mean of independent cells: E[M(r) M(q)] = p² + p (1 - p) Σ over cells k_r k_q, averaged
    over the shifts.
    """
    weights = linear.layer.weight.detach().reshape(5, 3, 8, 8)[targets]
    products = (weights * images).sum(dim=1).flatten(1)
    rows, columns = (table.double() for table in drawn._tables)
    overlap = torch.zeros(64, 64, dtype=torch.float64)
    for row, column in itertools.product(rows, columns):
        cells = torch.einsum("hi,wj->hwij", row, column).reshape(64, -1)
        overlap += cells @ cells.T
    overlap /= len(rows) * len(columns)
    covariance = p**2 + p * (1 - p) * overlap
    bias = linear.layer.bias.detach()[targets][:, None] * p
    return ((products @ covariance + bias) / p).reshape(-1, 8, 8)


@pytest.mark.parametrize("enlargement", ["exact", "whole_px"])
def test_over_all_grids_and_shifts_a_linear_networks_map_is_its_expectation(linear, images, targets, enlargement):
    grids = torch.tensor(list(itertools.product([0.0, 1.0], repeat=4)), dtype=torch.float64).reshape(16, 2, 2)
    shifts = torch.tensor(list(itertools.product(range(4), repeat=2)))
    drawn = ShiftedGrids(grids.repeat_interleave(16, dim=0), shifts.repeat(16, 1), (8, 8), enlargement)
    scores = rise_scores(linear, images, drawn, "logit")
    maps = rise_maps(scores, drawn, p=0.5)[torch.arange(4), targets]
    torch.testing.assert_close(maps, exact_expectation(linear, images, targets, drawn, 0.5))


def test_drawn_masks_come_near_the_expectation(linear, images, targets):
    """Within 6 standard errors at every one of 256 pixels; each pixel's error is taken from the draws themselves."""
    p, count = 0.4, 4000
    found = rise(linear, images, targets, masks=count, cells=3, p=p, score="logit", shared_seed=5)
    drawn = draw_shifted_grids(count, 3, p, (8, 8), torch.Generator().manual_seed(5))
    masks = drawn.masks(slice(None)).double()
    with torch.no_grad():
        scores = torch.stack([linear(masks[:, None] * image)[:, t] for image, t in zip(images, targets, strict=True)])
    spread = torch.stack([(row[:, None, None] * masks / p).std(dim=0) for row in scores]) / count**0.5
    expected = exact_expectation(linear, images, targets, drawn, p)
    assert ((found - expected).abs() < 6 * spread).all()
    assert (found - expected).abs().max() > 1e-6  # it is a draw, not the expectation itself


def test_a_rows_map_is_its_class_of_one_run_for_all_classes(convnet, images, targets):
    convnet.eval()
    maps = rise(convnet, images, targets, masks=30, cells=4, p=0.3, shared_seed=8)
    drawn = draw_shifted_grids(30, 4, 0.3, (8, 8), torch.Generator().manual_seed(8))
    every = rise_maps(rise_scores(convnet, images, drawn), drawn, p=0.3)
    assert every.shape == (4, 5, 8, 8)
    torch.testing.assert_close(maps, every[torch.arange(4), targets])
    some = rise_maps(rise_scores(convnet, images, drawn)[:, :, [3, 1]], drawn, p=0.3)
    torch.testing.assert_close(some, every[:, [3, 1]])


def test_torchrays_form_is_three_parameters(convnet, images, targets):
    convnet.eval()
    form = {"score": "sigmoid", "divide_by_p": False, "enlargement": "whole_px"}
    maps = rise(convnet, images, targets, masks=30, cells=4, p=0.3, shared_seed=8, **form)
    drawn = draw_shifted_grids(30, 4, 0.3, (8, 8), torch.Generator().manual_seed(8), "whole_px")
    with torch.no_grad():
        scores = torch.stack([convnet(mask * images).sigmoid() for mask in drawn.masks(slice(None)).double()])
    expected = torch.einsum("nbk,nhw->bkhw", scores, drawn.masks(slice(None)).double()) / 30
    torch.testing.assert_close(maps, expected[torch.arange(4), targets], rtol=1e-6, atol=1e-9)  # float32 masks here


def test_torchray_takes_one_image_and_draws_masks_anew_and_roarline_shares_masks_and_passes(
    convnet, images, targets, monkeypatch
):
    """TorchRay: batch size 1, the same masks regenerated for every image."""
    draws, made, passes = [], [], []
    plain_draw, plain_masks = rise_module.draw_shifted_grids, ShiftedGrids.masks
    monkeypatch.setattr(rise_module, "draw_shifted_grids", lambda *args: draws.append(args) or plain_draw(*args))
    monkeypatch.setattr(ShiftedGrids, "masks", lambda self, chosen: made.append(chosen) or plain_masks(self, chosen))
    convnet.eval().register_forward_pre_hook(lambda module, args: passes.append(len(args[0])))
    with at_most(8):
        rise(convnet, images, targets, masks=20, shared_seed=1)
    assert len(draws) == 1
    assert sum(chosen.stop - chosen.start for chosen in made) == 20  # each mask enlarged once for all four images
    assert sum(passes) == 4 * 20
    assert max(passes) <= 8
    assert len(passes) == 3 * 4


def test_labels_of_one_image_share_their_passes(convnet, images):
    convnet.eval()
    same, targets = images[[0, 1, 0, 0]], torch.tensor([0, 2, 4, 1])
    expected = rise(convnet, same, targets, masks=12, shared_seed=1)
    passes = []
    convnet.register_forward_pre_hook(lambda module, args: passes.append(len(args[0])))
    found = rise(convnet, same, targets, masks=12, shared_seed=1, image_index=[4, 9, 4, 4])
    torch.testing.assert_close(found, expected)
    assert sum(passes) == 2 * 12


def test_the_seed_decides_the_masks(convnet, images, targets):
    convnet.eval()
    first, again, other = (rise(convnet, images, targets, masks=12, shared_seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
