"""Components above all levels at once are those that labelling finds level by level."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from roarline.imaging.level_components import Connectivity, components_above

Found = list[tuple[int, ...]]
EIGHT = np.ones((3, 3), dtype=int)


def labelled(values: np.ndarray, levels: np.ndarray, connectivity: int) -> Found:
    """Level, box, pixels of every component, by scipy's labelling of every level."""
    found = []
    for index, level in enumerate(levels):
        labels, _ = ndimage.label(values > level, EIGHT if connectivity == 8 else None)
        for number, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
            box = (columns.start, rows.start, columns.stop - 1, rows.stop - 1)
            found.append((index, *box, int((labels == number).sum())))
    return sorted(found)


def at_once(values: np.ndarray, levels: np.ndarray, connectivity: Connectivity) -> Found:
    found = components_above(values, levels, connectivity)
    columns = [found.level[:, None], found.boxes, found.pixels[:, None]]
    return sorted(map(tuple, np.concatenate(columns, axis=1).tolist()))


@given(
    st.integers(1, 12).flatmap(
        lambda side: arrays(np.uint8, st.tuples(st.just(side), st.integers(1, 12)), elements=st.integers(0, 5))
    ),
    st.sets(st.integers(-1, 6), min_size=1),
    st.sampled_from([4, 8]),
)
def test_as_labelling_level_by_level(values: np.ndarray, levels: set[int], connectivity: Connectivity) -> None:
    rising = np.array(sorted(levels))
    signed = values.astype(np.int64)
    assert at_once(signed, rising, connectivity) == labelled(signed, rising, connectivity)


@pytest.mark.parametrize("connectivity", [4, 8])
def test_noise_with_thousands_of_basins(connectivity: Connectivity) -> None:
    values = np.random.default_rng(0).integers(0, 40, (90, 70))
    levels = np.arange(0, 40, 3)
    assert at_once(values, levels, connectivity) == labelled(values, levels, connectivity)


def test_weights_add_up_over_each_component() -> None:
    values = np.array([[3, 0, 1], [2, 0, 1]])
    found = components_above(values, np.array([0, 2]), 4, [np.array([[1.0, 9.0, 4.0], [2.0, 9.0, 8.0]])])
    assert sorted(zip(found.level.tolist(), found.sums[:, 0].tolist(), strict=True)) == [(0, 3.0), (0, 12.0), (1, 1.0)]


def test_levels_that_do_not_rise_are_refused() -> None:
    with pytest.raises(ValueError, match="levels must rise"):
        components_above(np.zeros((2, 2)), np.array([1, 1]), 4)
