"""Pixels near a mask, against scipy's exact Euclidean distances."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from roarline.imaging.distance import within_distance


@given(
    arrays(np.bool_, st.tuples(st.just(2), st.integers(1, 14), st.integers(1, 14))),
    st.sampled_from([0.0, 0.5, 1.0, 1.2, 2.0, 2.25, 5.0, 15.0]),
)
def test_as_the_distance_transform(masks: np.ndarray, distance: float) -> None:
    near = within_distance(torch.from_numpy(masks), distance).numpy()
    for mask, found in zip(masks, near, strict=True):
        if mask.any():
            np.testing.assert_array_equal(found, mask | (ndimage.distance_transform_edt(~mask) < distance))
        else:
            assert not found.any()


def test_distances_are_compared_strictly() -> None:
    mask = torch.zeros(1, 1, 40, dtype=torch.bool)
    mask[0, 0, 20] = True
    assert within_distance(mask, 15)[0, 0].nonzero().flatten().tolist() == list(range(6, 35))
