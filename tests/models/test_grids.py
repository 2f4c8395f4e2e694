"""Layer outputs as maps: what is where, for convolutions, Swin and tokens."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from roarline.errors import ModelError
from roarline.models.grids import as_grid, grid_of_layer, token_cells


def test_a_map_stays_what_it_is():
    output = torch.randn(2, 5, 3, 4)
    assert torch.equal(as_grid(output, (24, 32)), output)


def test_channels_that_come_last_are_put_first():
    output = torch.randn(2, 3, 4, 50)
    torch.testing.assert_close(as_grid(output, (24, 32)), output.permute(0, 3, 1, 2))


@pytest.mark.parametrize("channels", [4, 8, 16])
def test_where_both_readings_fit_channels_come_first(channels):
    """[B, 4, 4, 4], or an image twice as wide as high with half as many channels as rows."""
    square = torch.randn(1, channels, channels, channels)
    wide = torch.randn(1, channels // 2, channels, 2 * channels)
    assert torch.equal(as_grid(square, (32, 32)), square)
    assert torch.equal(as_grid(wide, (32, 64)), wide)


def test_where_both_readings_fit_a_layer_by_name_must_be_told_which():
    square = torch.randn(1, 4, 4, 4)
    assert torch.equal(grid_of_layer("x", square, (32, 32), 1), square)
    assert torch.equal(grid_of_layer("x", square, (32, 32), 3), square.permute(0, 3, 1, 2))
    with pytest.raises(ModelError, match=r"layer 'x' gives shape \[1, 4, 4, 4\], which may be"):
        grid_of_layer("x", square, (32, 32))


@pytest.mark.parametrize("leading", [0, 1, 2, 5])
def test_tokens_lie_row_by_row_behind_the_leading_ones(leading):
    """Each token holds its own row and column, so that the grid must count them up."""
    places = torch.cartesian_prod(torch.arange(14.0), torch.arange(14.0))
    tokens = torch.cat([torch.full((leading, 2), -1.0), places])[None]
    grid = as_grid(tokens, (224, 224))
    assert grid[0, 0, :, 0].tolist() == list(range(14))
    assert grid[0, 1, 0].tolist() == list(range(14))
    assert grid.shape == (1, 2, 14, 14)


@given(rows=st.integers(2, 20), columns=st.integers(2, 20), side=st.sampled_from([8, 14, 16, 32]))
def test_tokens_of_oblong_images_have_the_images_proportions(rows, columns, side):
    """Fewer leading tokens may fit too, in another grid; with none the right one must come out."""
    assert token_cells(rows * columns, (rows * side, columns * side)) == (rows, columns)


@pytest.mark.parametrize(
    "output", [torch.zeros(2, 7), torch.zeros(2, 5, 1, 1), torch.zeros(2, 2, 7), torch.zeros(2, 15, 7), (1, 2), None]
)
def test_what_is_no_map_is_none(output):
    assert as_grid(output, (32, 32)) is None
