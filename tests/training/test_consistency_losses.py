"""The consistency loss and its second-order gradients, against the original's in float64, and by mathematics.

Tolerances: both sides compute in float64 by the same operations in another order, hence 1e-7 relative.
"""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from roarline.errors import ModelError
from roarline.models.recording import recording
from roarline.training.composites import composites
from roarline.training.consistency_losses import class_maps, consistency_loss, normalised
from tests.golden_cases import case
from tests.golden_recipes import tiny_net


def double_net(arrays: dict[str, np.ndarray], pool: nn.Module) -> nn.Module:
    model = tiny_net(arrays)
    model.gap = pool
    weights = {name: torch.from_numpy(arrays[f"w_{name.replace('.', '_')}"]) for name in model.state_dict()}
    model.load_state_dict(weights)  # once more, now that it is float64
    return model


def raw_maps(model: nn.Module, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    with recording(model, "relu2", images, keep_graph=True) as recorded:
        logits = model(images)
        return logits, class_maps(recorded.outputs[0], logits.gather(1, targets[:, None])[:, 0])


def close(ours: Tensor, theirs: object) -> None:
    torch.testing.assert_close(ours, torch.as_tensor(theirs, dtype=ours.dtype), rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize(("name", "pool"), [("gap", nn.AdaptiveAvgPool2d(1)), ("gmp", nn.AdaptiveMaxPool2d(1))])
def test_maps_loss_and_gradients_equal_those_of_consistent_interpretations(name, pool):
    arrays, params = case(f"s2_gc_loss_{name}")
    model = double_net(arrays, pool)
    images, targets, quadrants = (torch.from_numpy(arrays[f"in_{key}"]) for key in ("images", "targets", "quadrants"))
    negatives = torch.from_numpy(arrays["in_negatives"]).reshape(6, 3, 3, 24, 24)
    logits, maps = raw_maps(model, images, targets)
    logits_of_four, maps_of_four = raw_maps(model, composites(images, negatives, quadrants), targets)
    close(normalised(maps, "original"), arrays["out_gradcam"])
    close(normalised(maps_of_four, "original"), arrays["out_gradcam_composite"])
    close(logits, arrays["out_logits"])
    close(logits_of_four, arrays["out_logits_composite"])
    loss = consistency_loss(maps, maps_of_four, quadrants, (24, 24), "original").mean()
    close(loss, arrays["out_gcam_loss"])
    entropy = F.cross_entropy(logits, targets)
    close(entropy, arrays["out_xe"])
    named = dict(model.named_parameters())
    for what, value in (("gcam", loss), ("total", entropy + params["lambda_val"] * loss)):
        gradients = torch.autograd.grad(value, list(named.values()), retain_graph=True, allow_unused=True)
        for key, gradient in zip(named, gradients, strict=True):
            stored = f"out_grad_{what}_{key.replace('.', '_')}"
            if stored in arrays:
                close(torch.zeros_like(named[key]) if gradient is None else gradient, arrays[stored])


def test_the_enlarged_form_equals_that_of_the_published_alexnet():
    arrays, _ = case("s2_gc_loss_alexnet")
    model = double_net(arrays, nn.AdaptiveAvgPool2d(1))
    images, of_four, targets, quadrants = (
        torch.from_numpy(arrays[f"in_{key}"]) for key in ("images", "composites", "targets", "quadrants")
    )
    logits, maps = raw_maps(model, images, targets)
    _, maps_of_four = raw_maps(model, of_four, targets)
    loss = consistency_loss(maps, maps_of_four, quadrants, (25, 25), "original").mean()
    close(loss, arrays["out_gcam_loss"])
    close(F.cross_entropy(logits, targets), arrays["out_xe"])
    conv2, fc = torch.autograd.grad(loss, [model.conv2.weight, model.fc.weight])
    close(conv2, arrays["out_grad_gcam_conv2_weight"])
    close(fc, arrays["out_grad_gcam_fc_weight"])


def random_maps(rows: int, *size: int) -> Tensor:
    return torch.rand(rows, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("quadrant", [0, 1, 2, 3])
def test_a_map_that_stays_as_it_is_costs_nothing_and_one_in_another_quadrant_costs_the_most(quadrant):
    maps, here = random_maps(2, 3, 4), torch.full((2,), quadrant)
    of_four = torch.zeros(2, 6, 8, dtype=torch.float64)
    top, left = 3 * (quadrant // 2), 4 * (quadrant % 2)
    of_four[:, top : top + 3, left : left + 4] = 7 * maps  # normalisation takes the factor away
    assert float(consistency_loss(maps, of_four, here, (12, 16)).max()) < 1e-9
    elsewhere = (here + 1) % 4
    torch.testing.assert_close(
        consistency_loss(maps, of_four, elsewhere, (12, 16)), torch.full((2,), 2 / 48, dtype=torch.float64)
    )


def test_enlarged_maps_are_compared_as_shares_and_the_bound_is_that_of_the_cells():
    maps, of_four = torch.zeros(1, 3, 3, dtype=torch.float64), torch.zeros(1, 5, 5, dtype=torch.float64)
    maps[0, 0, 0] = of_four[0, 4, 4] = 1
    quadrant = torch.tensor([0])
    torch.testing.assert_close(
        consistency_loss(maps, of_four, quadrant, (9, 9)), torch.tensor([2 / 25], dtype=torch.float64)
    )
    flat = torch.ones(1, 3, 3, dtype=torch.float64)
    whole = torch.ones(1, 5, 5, dtype=torch.float64)
    # the composite's map has a quarter in the image's quadrant, and three quarters outside: |1 - 1/4| + 3/4 = 3/2
    torch.testing.assert_close(
        consistency_loss(flat, whole, quadrant, (9, 9)), torch.tensor([1.5 / 25], dtype=torch.float64)
    )


def test_a_dead_map_stays_dead_unless_the_original_is_asked_for():
    dead = torch.zeros(1, 4, 4)
    assert float(normalised(dead).abs().max()) == 0
    assert torch.equal(normalised(dead, "original"), torch.full((1, 4, 4), 1e-8))


def test_a_layer_that_the_scores_do_not_depend_on_is_refused():
    features = torch.rand(1, 2, 3, 3, requires_grad=True)
    with pytest.raises(ModelError, match="don't depend"):
        class_maps(features, torch.rand(1, requires_grad=True))
