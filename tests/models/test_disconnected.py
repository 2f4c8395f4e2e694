"""A network whose grid cells don't see one another gives what it gives for a cell alone."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor, nn

from roarline.models.build import build
from roarline.models.disconnected import apart, disconnected, joined


@pytest.fixture
def cells() -> Tensor:
    """[2 · 4, 3, 16, 16]: four cells of each of two grids."""
    return torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def network(name: str) -> nn.Module:
    if name.startswith("torchvision:"):
        model: nn.Module = getattr(torchvision.models, name.removeprefix("torchvision:"))(num_classes=5)
        return model.eval()
    return build(name, {"width": 4} if name == "small_cnn" else {}, 5, input_size=(16, 16), seed=0).eval()


def test_joined_and_apart_are_inverse(cells: Tensor) -> None:
    grids = joined(cells, 2)
    assert grids.shape == (2, 3, 32, 32)
    assert torch.equal(grids[1, :, 16:, :16], cells[6])  # the third cell of the second grid
    assert torch.equal(apart(grids, 2), cells)


@pytest.mark.parametrize("name", ["small_cnn", "resnet8", "torchvision:resnet18", "torchvision:squeezenet1_1"])
@pytest.mark.parametrize("cell", [0, 3])
def test_as_the_cell_alone(cells: Tensor, name: str, cell: int) -> None:
    model = network(name)
    size = 64 if name.startswith("torchvision:") else 16
    cells = nn.functional.interpolate(cells, (size, size))
    grids = joined(cells, 2)
    with torch.no_grad():
        alone = model(cells[cell::4])
        with disconnected(model, 2, cell):
            found = model(grids)
        # Convolutions of other batch sizes round otherwise.
        torch.testing.assert_close(found, alone, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(model(grids), alone, rtol=1e-3)  # as it is, the network sees all cells


def test_gradients_outside_the_cell_are_zero_and_layers_keep_the_layout(cells: Tensor) -> None:
    model, grids, shapes = network("small_cnn"), joined(cells, 2).requires_grad_(), []
    handle = model.conv3.register_forward_hook(lambda module, args, output: shapes.append(output.shape[2:]))
    with disconnected(model, 2, 1):
        model(grids)[:, 2].sum().backward()
    handle.remove()
    gradient = grids.grad
    assert gradient is not None
    assert gradient[:, :, :16, 16:].abs().sum() > 0
    assert gradient[:, :, 16:].abs().sum() == gradient[:, :, :, :16].abs().sum() == 0
    assert shapes == [(16, 16)]


def test_the_network_is_left_as_it_was(cells: Tensor) -> None:
    model, grids = network("small_cnn"), joined(cells, 2)
    before = model(grids)
    with pytest.raises(KeyError), disconnected(model, 2, 0):
        raise KeyError
    assert "forward" not in vars(model)
    assert torch.equal(model(grids), before)
