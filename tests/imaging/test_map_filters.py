"""Filtered maps: controls."""

import pytest
import torch
from scipy import ndimage

from roarline.imaging.map_filters import blur_maps, max_filter_maps

MAPS = torch.randn(3, 9, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("window", [1, 3, 5, 11])
def test_max_filter_equals_scipys(window):
    expected = ndimage.maximum_filter(MAPS.numpy(), size=(1, window, window), mode="nearest")
    assert torch.equal(max_filter_maps(MAPS, window), torch.from_numpy(expected))


def test_blur_equals_scipys():
    expected = ndimage.gaussian_filter(MAPS.numpy(), sigma=(0, 1.3, 1.3), mode="mirror", truncate=4)
    torch.testing.assert_close(blur_maps(MAPS, 1.3), torch.from_numpy(expected))


def test_channels_are_filtered_one_by_one():
    stacked = MAPS.reshape(1, 3, 9, 12)
    assert torch.equal(max_filter_maps(stacked, 3)[0], max_filter_maps(MAPS, 3))


@pytest.mark.parametrize("window", [0, 2, -1])
def test_even_windows_are_refused(window):
    with pytest.raises(ValueError, match="odd"):
        max_filter_maps(MAPS, window)
