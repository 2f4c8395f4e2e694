"""Max- and average sensitivity: captum, Quantus, and maps whose change is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from captum.metrics import sensitivity_max
from torch import Tensor

from roarline.evaluation.map_sensitivity import largest_change, mean_change, relative_change, uniform_noise
from roarline.evaluation.outcomes import OUTCOMES
from tests.evaluation.tiny_net import tiny_net
from tests.golden_cases import case


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def input_times_gradient(model: torch.nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    leaf = images.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(model(leaf).gather(1, targets[:, None]).sum(), leaf)
    return (gradient * images).sum(dim=1)


def changes(maps: Tensor, noisy: list[Tensor]) -> Tensor:
    return torch.stack([relative_change(maps, other) for other in noisy], dim=1)


@pytest.mark.parametrize("variant", ["raw", "normabs"])
def test_as_quantus(variant: str) -> None:
    arrays, _ = case("q_robustness")
    model, targets = tiny_net(arrays), torch.from_numpy(arrays["in_y"])
    images = torch.from_numpy(arrays["in_x"])

    def maps_of(inputs: Tensor) -> Tensor:
        maps = input_times_gradient(model, inputs, targets)
        if variant == "normabs":
            maps = (maps / maps.abs().max()).abs()  # of the whole batch
        return maps

    noise = torch.from_numpy(arrays["in_noise"]).reshape(-1, *images.shape)
    found = changes(maps_of(images), [maps_of(images + one) for one in noise])
    # float32 gradients of noisy images; changes of 0.6 to 0.9.
    np.testing.assert_allclose(largest_change(found).values, arrays[f"out_maxsensitivity_{variant}"], rtol=1e-4)
    np.testing.assert_allclose(mean_change(found).values, arrays[f"out_avgsensitivity_{variant}"], rtol=1e-4)


def test_as_captum() -> None:
    arrays, _ = case("q_robustness")
    model, targets = tiny_net(arrays), torch.from_numpy(arrays["in_y"])
    images, copies, radius = torch.from_numpy(arrays["in_x"]), 6, 0.02
    noise = torch.stack([uniform_noise(seeded(row), copies, 24, 24, [radius] * 3) for row in range(len(images))])

    def perturbations(inputs: Tensor) -> Tensor:
        return inputs + noise.flatten(0, 1)

    def explanation(inputs: Tensor | tuple[Tensor], target: Tensor) -> tuple[Tensor]:
        (one,) = inputs if isinstance(inputs, tuple) else (inputs,)
        with torch.enable_grad():
            return (input_times_gradient(model, one, target),)

    expected = sensitivity_max(explanation, images, perturbations, n_perturb_samples=copies, target=targets)
    maps = input_times_gradient(model, images, targets)
    found = changes(maps, [input_times_gradient(model, images + noise[:, one], targets) for one in range(copies)])
    # The same float32 maps in another batch, norms in float64 here.
    np.testing.assert_allclose(largest_change(found).values, expected, rtol=1e-4)


def test_a_map_that_stays_has_no_sensitivity() -> None:
    maps = torch.full((2, 4, 4), 0.3)
    found = changes(maps, [maps.clone(), maps.clone()])
    for reduce in (largest_change, mean_change):
        assert reduce(found).values.tolist() == [0, 0]


def test_known_changes() -> None:
    """A map that doubles changes by 1, one that vanishes by 1, one that turns around by 2."""
    maps = torch.randn(1, 5, 5, generator=seeded(0))
    found = changes(maps, [2 * maps, 0 * maps, -maps, 1.5 * maps])
    assert largest_change(found).values.item() == pytest.approx(2)
    assert mean_change(found).values.item() == pytest.approx((1 + 1 + 2 + 0.5) / 4)
    np.testing.assert_allclose(changes(1e-6 * maps, [-1e-6 * maps]), [[2]])


def test_a_map_of_zeros_has_a_status() -> None:
    maps = torch.zeros(2, 3, 3)
    maps[1] = 1
    found = largest_change(changes(maps, [maps + 1, maps]))
    assert [OUTCOMES[number] for number in found.outcomes.tolist()] == ["the map is zero everywhere", "ok"]
    assert torch.isnan(found.values).tolist() == [True, False]
    still = mean_change(changes(torch.zeros(1, 3, 3), [torch.zeros(1, 3, 3)]))
    assert OUTCOMES[int(still.outcomes[0])] == "the map is zero everywhere"


def test_noise_fills_its_cube_evenly() -> None:
    noise = uniform_noise(seeded(0), 2, 100, 100, [0.1, 0.4, 1.0])
    for channel, radius in enumerate([0.1, 0.4, 1.0]):
        values = noise[:, channel] / radius
        assert values.abs().max() <= 1
        # Of 20,000 draws, 5 standard errors: of the mean 1/√3 / √20,000, of the mean square √(4/45) / √20,000.
        assert abs(values.mean().item()) < 0.0205
        assert values.square().mean().item() == pytest.approx(1 / 3, abs=0.0106)
    assert torch.equal(noise, uniform_noise(seeded(0), 2, 100, 100, [0.1, 0.4, 1.0]))
