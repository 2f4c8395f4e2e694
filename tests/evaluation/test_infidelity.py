"""Infidelity: linear networks, captum, Quantus' sums, and what a perturbation is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from captum.metrics import infidelity as captum_infidelity
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from roarline.evaluation.infidelity import infidelity, noise_weights, perturb, square_weights
from roarline.evaluation.outcomes import OUTCOMES
from roarline.evaluation.pixel_sets import relevance_of
from tests.evaluation.tiny_net import tiny_net
from tests.golden_cases import case

SAMPLES = 12


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def weights_of(kind: str, generator: torch.Generator, height: int = 8, width: int = 8) -> Tensor:
    if kind == "square":
        return square_weights(generator, SAMPLES, height, width, [1, 3, 8])
    return noise_weights(generator, SAMPLES, height, width, 0.3)


@given(st.integers(0, 2**40), st.integers(1, 9), st.integers(1, 9), st.data())
def test_squares_are_squares_and_lie_within(seed: int, height: int, width: int, data: st.DataObject) -> None:
    sides = data.draw(st.lists(st.integers(1, min(height, width)), min_size=1, max_size=3, unique=True))
    for square in square_weights(seeded(seed), 5, height, width, sides):
        rows, columns = square.any(dim=1).sum().item(), square.any(dim=0).sum().item()
        assert rows == columns
        assert rows in sides
        assert square.sum().item() == rows * columns
        assert set(square.unique().tolist()) <= {0.0, 1.0}


def test_squares_come_at_every_place_and_in_every_size() -> None:
    squares = square_weights(seeded(0), 2000, 4, 5, [1, 4])
    singles = squares[squares.sum(dim=(1, 2)) == 1]
    # Half of 2,000, give or take 5 standard deviations of 22; 20 places of one pixel, 2 of a square of 4.
    assert abs(len(singles) - 1000) < 112
    assert len(singles.flatten(1).argmax(dim=1).unique()) == 20
    assert len(squares[squares.sum(dim=(1, 2)) == 16].flatten(1).unique(dim=0)) == 2


def test_noise_has_its_deviation() -> None:
    noise = noise_weights(seeded(0), 4, 100, 100, 0.2)
    # Of 40,000 draws the mean is within 5 · 0.2 / 200 and the deviation within 5 · 0.2 / √80,000.
    assert abs(noise.mean().item()) < 0.005
    assert noise.std().item() == pytest.approx(0.2, abs=0.0036)


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_share_of_one_replaces_and_of_zero_leaves(channels_last: bool) -> None:
    format_ = torch.channels_last if channels_last else torch.contiguous_format
    image = torch.rand(1, 3, 4, 4, generator=seeded(0)).contiguous(memory_format=format_)
    weights = torch.tensor([0.0, 1.0, 0.25, -1.0]).reshape(4, 1, 1).expand(4, 4, 4)
    moved = perturb(image, weights, torch.full((1, 1, 1, 1), 0.5))
    assert moved.is_contiguous(memory_format=format_)
    assert torch.equal(moved[0], image[0])
    assert (moved[1] == 0.5).all()
    torch.testing.assert_close(moved[2], 0.75 * image[0] + 0.125)
    torch.testing.assert_close(moved[3], 2 * image[0] - 0.5)


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("kind", ["square", "noise"])
def test_a_linear_network_s_input_times_gradient_is_free_of_infidelity(kind: str, normalise: bool) -> None:
    """With the fill as baseline: Σ I · w · (x - fill) is what moving x by I · (x - fill) costs w · x."""
    image, weights = torch.randn(2, 1, 3, 8, 8, generator=seeded(0), dtype=torch.float64)
    shares, fill = weights_of(kind, seeded(1)).double(), torch.tensor([0.1, -0.2, 0.3]).double().reshape(1, 3, 1, 1)
    map_HW = ((image - fill) * weights).sum(dim=(0, 1))
    after = (perturb(image, shares, fill) * weights).sum(dim=(1, 2, 3))
    before = (image * weights).sum()[None]
    found = infidelity(relevance_of(shares, map_HW)[None], before, after[None], normalise=normalise)
    assert found.values.item() == pytest.approx(0, abs=1e-20)
    worse = infidelity(relevance_of(shares, map_HW.flip(0))[None], before, after[None], normalise=normalise)
    assert worse.values.item() > 1


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("kind", ["square", "noise"])
def test_as_captum(kind: str, normalise: bool) -> None:
    generator = seeded(2)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    images = torch.randn(2, 3, 8, 8, generator=generator, dtype=torch.float64)
    maps, targets = torch.randn(2, 8, 8, generator=generator, dtype=torch.float64), torch.tensor([1, 4])
    shares = torch.stack([weights_of(kind, seeded(row)) for row in range(2)]).double()
    fill = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    perturbed = torch.stack([perturb(images[row : row + 1], shares[row], fill) for row in range(2)])

    def perturbations(inputs: Tensor) -> tuple[Tensor, Tensor]:
        """A third of the relevance in each channel, since captum sums over them."""
        return (shares[:, :, None] / 3).expand(-1, -1, 3, -1, -1).reshape(-1, 3, 8, 8), perturbed.reshape(-1, 3, 8, 8)

    expected = captum_infidelity(
        network, perturbations, images, maps[:, None].expand(-1, 3, -1, -1), target=targets,
        n_perturb_samples=SAMPLES, normalize=normalise,
    )  # fmt: skip
    with torch.no_grad():
        before = network(images).gather(1, targets[:, None])[:, 0]
        after = network(perturbed.reshape(-1, 3, 8, 8)).reshape(2, SAMPLES, 5)
    after = after.gather(2, targets[:, None, None].expand(-1, SAMPLES, 1))[:, :, 0]
    relevance = torch.stack([relevance_of(shares[row], maps[row]) for row in range(2)])
    found = infidelity(relevance, before, after, normalise=normalise)
    np.testing.assert_allclose(found.values, expected.detach(), rtol=1e-9)


@settings(max_examples=30)
@given(st.integers(0, 2**20), st.floats(0.001, 1000))
def test_normalised_is_blind_to_the_unit_and_never_worse_than_no_map(seed: int, unit: float) -> None:
    relevance, after = torch.randn(2, 3, 20, generator=seeded(seed), dtype=torch.float64)
    before = torch.zeros(3, dtype=torch.float64)
    found = infidelity(relevance, before, after)
    np.testing.assert_allclose(infidelity(unit * relevance, before, after).values, found.values, rtol=1e-9)
    nothing = infidelity(torch.zeros_like(relevance), before, after)
    np.testing.assert_allclose(nothing.values, after.square().mean(dim=1))
    assert (found.values <= nothing.values + 1e-12).all()
    assert (found.values <= infidelity(relevance, before, after, normalise=False).values + 1e-12).all()


def test_an_output_that_is_not_finite_fails_its_row_alone() -> None:
    after = torch.zeros(2, 3)
    after[0, 1] = torch.inf
    found = infidelity(torch.ones(2, 3), torch.zeros(2), after)
    assert [OUTCOMES[number] for number in found.outcomes.tolist()] == [
        "the classifier's output is NaN or infinite", "ok"
    ]  # fmt: skip


@pytest.mark.parametrize("variant", ["raw", "normabs"])
def test_quantus_defect_patches_pile_up(variant: str) -> None:
    """Quantus perturbs one patch after the other without restoring any: the same mean square of other perturbations.

    Its relevance is the map times the change of each channel; the golden case says that "black" is the minimum over
    all channels of what is left of the image.
    """
    arrays, params = case("q_faithfulness")
    side, model = params[f"infidelity_{variant}"]["perturb_patch_sizes"][0], tiny_net(arrays)
    images, targets = torch.from_numpy(arrays["in_x"]), torch.from_numpy(arrays["in_y"])
    maps = torch.from_numpy(arrays["in_a"])
    if variant == "normabs":
        maps = (maps / maps.abs().max()).abs()  # of the whole batch

    def logits(pixels: Tensor) -> Tensor:
        return model(pixels).gather(1, targets[:, None])[:, 0]

    current, relevance, after = images.clone(), [], []
    for top in range(0, images.shape[2], side):
        for left in range(0, images.shape[3], side):
            darkest = current.amin(dim=(1, 2, 3), keepdim=True)
            current[:, :, top : top + side, left : left + side] = darkest
            relevance.append((maps * (images - current)).sum(dim=(1, 2, 3)))
            after.append(logits(current))
    found = infidelity(torch.stack(relevance, dim=1), logits(images), torch.stack(after, dim=1), normalise=False)
    # float32 sums over 1,728 products.
    np.testing.assert_allclose(found.values, arrays[f"out_infidelity_{variant}"], rtol=1e-4)
