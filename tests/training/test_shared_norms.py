"""Three processes that share a batch, of uneven parts, give what one process gives: the layer, and whole trainings."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from roarline.config.training import TrainCls
from roarline.errors import UserInputError
from roarline.training import loop
from roarline.training.batches import ResidentSplit
from roarline.training.classification import Classification
from roarline.training.shared_norms import NormsOverProcesses
from tests.training.gloo import in_processes

PROCESSES, CHANNELS = 3, 4
PARTS = [(3, 1, 2), (5, 0, 1), (0, 2, 0), (1, 1, 1)]
PLACES: dict[type[nn.Module], tuple[int, ...]] = {
    nn.BatchNorm1d: (), nn.BatchNorm2d: (3, 2), nn.BatchNorm3d: (2, 1, 2),
}  # fmt: skip
CASES: dict[str, tuple[type[nn.Module], tuple[int, ...], dict[str, Any]]] = {
    f"{kind.__name__} {parts}": (kind, parts, {}) for kind in PLACES for parts in PARTS
} | {
    "mean of all batches": (nn.BatchNorm2d, (3, 1, 2), {"momentum": None}),
    "without weights": (nn.BatchNorm2d, (3, 1, 2), {"affine": False}),
    "without statistics": (nn.BatchNorm2d, (3, 1, 2), {"track_running_stats": False}),
}
FAR, MIXED = "far from 0", "bfloat16"
TRAININGS = {"whole": 1, "in passes": 3, "in pairs": 4}


def layer_of(case: str) -> nn.Module:
    kind, _, options = CASES[case]
    layer = kind(CHANNELS, dtype=torch.float64, **options)
    generator = torch.Generator().manual_seed(1)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, generator=generator)
    return layer


def drawn(case: str) -> tuple[Tensor, Tensor]:
    """Inputs of all processes, and what outputs are multiplied by; each part has a mean and a spread of its own."""
    kind, parts, _ = CASES[case]
    shape, generator = (sum(parts), CHANNELS, *PLACES[kind]), torch.Generator().manual_seed(2)
    values, factors = torch.randn((2, *shape), dtype=torch.float64, generator=generator)
    of_part = torch.repeat_interleave(torch.arange(PROCESSES), torch.tensor(parts)).reshape(-1, *[1] * (len(shape) - 1))
    return values * (1 + of_part) + 3 * of_part, factors


def seen(layer: nn.Module, values: Tensor, factors: Tensor) -> dict[str, Tensor]:
    """Two batches' outputs, the gradients of their product with the factors, and of those gradients' squares."""
    layer(values / 2 + 1)
    values = values.clone().requires_grad_()
    outputs = layer(values)
    (first,) = torch.autograd.grad((outputs * factors).sum(), values, create_graph=True)
    found = {"outputs": outputs.detach(), "gradient": first.detach()}
    weights = tuple(layer.parameters())
    of_weights = torch.autograd.grad((outputs * factors).sum(), weights, retain_graph=True) if weights else ()
    found |= {f"sum {place}": gradient for place, gradient in enumerate(of_weights)}
    second = torch.autograd.grad(first.square().sum(), (values, *weights), allow_unused=True)
    found |= {"second gradient": second[0]}
    found |= {f"sum second {place}": gradient for place, gradient in enumerate(second[1:]) if gradient is not None}
    return found | {f"alike {name}": buffer for name, buffer in layer.named_buffers()}


def network() -> nn.Module:
    """Three batch norms, in float64: two images are hard to normalise, and magnify what is rounded."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(6, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(8, 5), nn.BatchNorm1d(5), nn.Linear(5, 3),
        ).double()  # fmt: skip


def images(count: int, seed: int) -> ResidentSplit:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (count,), generator=generator)
    values = torch.randn((count, 3, 8, 8), generator=generator, dtype=torch.float64)
    return ResidentSplit(values + labels.reshape(-1, 1, 1, 1), labels)


def trained(name: str) -> dict[str, Tensor]:
    """A training of 26 images in batches of 8: the last has 2 for the three processes, in pairs every pass."""
    settings = TrainCls(
        epochs=3, batch_size=8, gradient_accumulation=TRAININGS[name], augmentation={"horizontal_flip": True},
        optimizer={"name": "sgd", "lr": 0.05}, gradient_clip_norm=2.0,
    )  # fmt: skip
    model = network()
    result = loop.fit(
        Classification(model, settings, multi_label=False), images(26, 0), images(20, 1), settings, seed=3
    )
    curve = torch.tensor([list(row.values()) for row in result.curve], dtype=torch.float64)
    kept = torch.tensor([[*result.best.values(), result.best_epoch]], dtype=torch.float64)
    return {**model.state_dict(), "curve": curve, "kept": kept}


def in_one_of_several(rank: int) -> dict[str, Tensor]:
    """All that a process does here."""
    found: dict[str, Tensor] = {}
    for case, (_, parts, _) in CASES.items():
        values, factors = (whole.split(parts)[rank] for whole in drawn(case))
        with NormsOverProcesses():
            found |= {f"{case}/{name}": value for name, value in seen(layer_of(case), values, factors).items()}
    with NormsOverProcesses():
        found[FAR] = nn.BatchNorm2d(CHANNELS)(far().split((3, 1, 2))[rank]).detach()
        found[MIXED] = nn.BatchNorm2d(CHANNELS)(mixed().split((3, 1, 2))[rank]).detach()
    for name in TRAININGS:
        found |= {f"{name}/{key}": value for key, value in trained(name).items()}
    return found


def far() -> Tensor:
    """Values whose square is 10⁸ times their variance."""
    return drawn("BatchNorm2d (3, 1, 2)")[0].float() / 8 + 1e4


def mixed() -> Tensor:
    return drawn("BatchNorm2d (3, 1, 2)")[0].bfloat16()


@pytest.fixture(scope="module")
def several(tmp_path_factory) -> list[dict[str, Tensor]]:
    """What each of three processes found."""
    return in_processes(in_one_of_several, PROCESSES, tmp_path_factory.mktemp("processes"))


@pytest.mark.parametrize("case", CASES)
def test_parts_of_a_batch_are_normalised_as_the_whole(several, case):
    """Outputs, gradients of first and second order, running statistics; float64, so that only rounding is forgiven."""
    for name, value in seen(layer_of(case), *drawn(case)).items():
        parts = [found[f"{case}/{name}"] for found in several if f"{case}/{name}" in found]
        assert len(parts) == PROCESSES
        if name.startswith("alike"):
            for part in parts:
                torch.testing.assert_close(part, value, rtol=1e-12, atol=1e-12)
        else:
            joined = torch.stack(parts).sum(0) if name.startswith("sum") else torch.cat(parts)
            torch.testing.assert_close(joined, value, rtol=1e-9, atol=1e-9)


def test_a_mean_far_from_0_costs_no_digits(several):
    """The variance is no difference of squares, which float32 could not tell apart here."""
    values = far().double()
    exact = nn.BatchNorm2d(CHANNELS, dtype=torch.float64)(values).detach().float()
    step = 2**-10  # of float32 at 1e4: the mean is off by one or two of them, in units of the standard deviation
    tolerance = 2 * step / float(values.std((0, 2, 3)).min())
    torch.testing.assert_close(torch.cat([found[FAR] for found in several]), exact, rtol=0, atol=tolerance)


def test_statistics_of_bfloat16_images_are_float32(several):
    expected = nn.BatchNorm2d(CHANNELS)(mixed()).detach()
    found = torch.cat([found[MIXED] for found in several])
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected, rtol=2**-7, atol=0)  # one step of bfloat16


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_with_batch_norm_is_that_of_one_process(several, name):
    """Weights, running statistics, curve and best epoch; there are passes of which one process has no image."""
    for key, value in trained(name).items():
        for found in several:
            # Sums in another order, over twelve steps; validation losses are float32.
            tolerance = 1e-6 if key in ("curve", "kept") else 1e-9
            torch.testing.assert_close(found[f"{name}/{key}"], value, rtol=tolerance, atol=tolerance)


def test_layers_that_use_their_running_statistics_ask_nobody():
    """Here nobody would answer: there is no group of processes."""
    layer, values = nn.BatchNorm2d(CHANNELS).eval(), torch.randn(2, CHANNELS, 3, 3)
    before = copy.deepcopy(layer.state_dict())
    with NormsOverProcesses():
        outputs = layer(values)
    torch.testing.assert_close(outputs, layer(values), rtol=0, atol=0)
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


def test_a_batch_needs_an_image_for_each_process(monkeypatch):
    monkeypatch.setattr(loop.processes, "count", lambda: 4)
    settings = TrainCls(batch_size=3)
    with pytest.raises(UserInputError, match="batch_size is 3, of 8 images: 4 processes need an image each"):
        loop.fit(Classification(network(), settings, multi_label=False), images(8, 0), None, settings, seed=0)
