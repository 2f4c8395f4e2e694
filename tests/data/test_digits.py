"""The embedded digits."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from roarline.config.dataset_params import DigitsParams
from roarline.data.digits import read
from roarline.data.raw import RawDataset


@pytest.fixture(scope="module")
def digits() -> RawDataset:
    raw = read(None, DigitsParams(), 0)
    raw.check()
    return raw


def test_the_original_values_come_back(digits: RawDataset) -> None:
    stored = np.asarray(digits.images)[:, 0].astype(int)
    original = load_digits().images
    assert np.array_equal((16 * stored + 127) // 255, original)
    assert np.abs(stored - original * 255 / 16).max() <= 0.5


def test_labels_follow_the_images(digits: RawDataset) -> None:
    assert np.array_equal(digits.labels, load_digits().target)
    assert digits.class_names[int(digits.labels[7])] == str(load_digits().target[7])


def test_the_test_split_is_a_quarter_of_each_class(digits: RawDataset) -> None:
    test = np.asarray([split == "test" for split in digits.splits])
    assert test.sum() == round(1797 / 4)
    sizes = np.bincount(digits.labels)
    assert np.abs(np.bincount(digits.labels[test]) - sizes / 4).max() < 1


def test_the_seed_decides_the_test_split(digits: RawDataset) -> None:
    assert read(None, DigitsParams(), 0).splits == digits.splits
    assert read(None, DigitsParams(), 1).splits != digits.splits
