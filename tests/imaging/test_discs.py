"""Centred discs: nested, symmetric, from nothing to everything."""

import torch

from roarline.imaging.discs import centred_discs


def test_discs_grow_from_almost_nothing_to_the_whole_image_and_are_symmetric():
    for height, width in ((32, 32), (24, 40)):
        discs = centred_discs(height, width)
        assert discs.shape == (35, height, width)
        assert discs[0].sum() < 0.01 * height * width
        assert discs[-1].min() > 0.99
        assert (discs[1:] >= discs[:-1] - 1e-9).all()
        torch.testing.assert_close(discs, discs.flip(1))
        torch.testing.assert_close(discs, discs.flip(2))


def test_at_224_px_the_disc_of_radius_50_has_its_edge_at_50_px():
    """Half of the edge's height, along the middle row, up to the disc's curvature."""
    row = centred_discs(224, 224)[10, 112]
    assert row[112 + 48] > 0.5 > row[112 + 52]
