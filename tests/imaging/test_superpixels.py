"""Superpixels and grid cells: what SLIC must find, equal cells, and painting regions back onto pixels."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from roarline.imaging.superpixels import find_superpixels, grid_cells, region_means, spread


def smooth_images(count=3, side=48):
    """Photo-like: a few colours with soft borders."""
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic").clamp(0, 1)


def test_slic_keeps_to_the_border_between_two_colours():
    images = torch.zeros(1, 3, 40, 40)
    images[:, 0, :, :23], images[:, 2, :, 23:] = 1.0, 1.0
    labels = find_superpixels(images, "slic", 16)[0]
    assert not set(labels[:, :23].unique().tolist()) & set(labels[:, 23:].unique().tolist())
    assert 4 <= labels.max() + 1 <= 32


@pytest.mark.parametrize("kind", ["slic", "grid"])
def test_labels_have_no_gap_and_about_the_wanted_number(kind):
    for labels in find_superpixels(smooth_images(), kind, 25):
        found = labels.unique()
        assert torch.equal(found, torch.arange(len(found)))
        assert 12 <= len(found) <= 50


@pytest.mark.parametrize("kind", ["slic", "grid"])
def test_an_images_regions_do_not_depend_on_the_batch(kind):
    images = smooth_images()
    together = find_superpixels(images, kind, 25)
    for row in (2, 0):
        assert torch.equal(find_superpixels(images[row : row + 1], kind, 25)[0], together[row])


def test_slic_sees_pixels_not_normalised_values():
    images = smooth_images()
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.3, 0.25]
    scale = [torch.tensor(values)[None, :, None, None] for values in (mean, std)]
    normalised = (images - scale[0]) / scale[1]
    same = find_superpixels(normalised, "slic", 25, mean=mean, std=std) == find_superpixels(images, "slic", 25)
    assert same.float().mean() > 0.99  # rounding may move a pixel on a border


def test_grey_images_of_one_channel_are_cut_too():
    labels = find_superpixels(smooth_images()[:, :1], "slic", 25)
    assert labels.shape == (3, 48, 48)
    assert labels.max() > 5


def test_an_image_of_one_colour_is_cut_somehow():
    assert find_superpixels(torch.full((1, 3, 16, 16), 0.5), "slic", 4).min() == 0


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="quickshift"):
        find_superpixels(smooth_images(), "quickshift", 4)


@given(height=st.integers(1, 30), width=st.integers(1, 30), cells=st.integers(1, 12))
def test_grid_cells_are_rectangles_of_nearly_equal_size(height, width, cells):
    labels = grid_cells(height, width, cells)[0]
    rows, columns = min(cells, height), min(cells, width)
    assert torch.equal(labels.unique(), torch.arange(rows * columns))
    for length, parts, line in ((height, rows, labels[:, 0] // columns), (width, columns, labels[0] % columns)):
        sizes = torch.bincount(line, minlength=parts)
        assert sizes.min() >= length // parts
        assert sizes.max() <= -(-length // parts)
    assert torch.equal(labels, (labels[:, :1] // columns) * columns + labels[:1] % columns)


def test_spread_paints_every_pixel_with_its_regions_value():
    values = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(5, (2, 4, 6), generator=torch.Generator().manual_seed(1))
    painted, shared = spread(values, labels), spread(values, labels[:1])
    for image, state, row, column in np.ndindex(2, 3, 4, 6):
        assert painted[image, state, row, column] == values[image, state, labels[image, row, column]]
        assert shared[image, state, row, column] == values[image, state, labels[0, row, column]]


def test_region_means_are_each_regions_mean_colour():
    images = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.randint(4, (2, 6, 6), generator=torch.Generator().manual_seed(1))
    means = region_means(images, labels)
    for image in range(2):
        for region in range(4):
            inside = labels[image] == region
            expected = images[image][:, inside].mean(dim=1)
            torch.testing.assert_close(means[image][:, inside], expected[:, None].expand(-1, int(inside.sum())))
