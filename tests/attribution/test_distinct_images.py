"""Rows of the same image: which they are, and that each gets back its own target's values."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from roarline.attribution.distinct_images import DistinctImages


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12))
def test_each_row_gets_the_values_of_its_image_and_target(image_index):
    """Values that name image and target must come back as the row's own image and target."""
    targets = torch.arange(len(image_index)) * 10
    distinct = DistinctImages(image_index, targets)
    assert len(distinct.first_rows) == len(set(image_index))
    of_image = torch.tensor(image_index)[distinct.first_rows]
    values = torch.stack([of_image[:, None].expand_as(distinct.targets_UT), distinct.targets_UT], dim=1)
    rows = distinct.of_rows(values)
    assert rows[:, 0].tolist() == image_index
    assert rows[:, 1].tolist() == targets.tolist()
