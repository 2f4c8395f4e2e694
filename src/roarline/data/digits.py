"""The embedded data set ``digits``: scikit-learn's 1,797 handwritten digits of 8×8 px."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from roarline.config.dataset_params import DigitsParams
from roarline.data.raw import RawDataset
from roarline.data.splits import draw_share
from roarline.seeds import derive_seed


def read(root: Path | None, params: DigitsParams, seed: int) -> RawDataset:
    """Read the digits; the test split is drawn from the seed, stratified.

    The original values v, whole numbers from 0 to 16, become u = ⌊(255 v + 8) / 16⌋, rounded to the nearest;
    ⌊(16 u + 127) / 255⌋ gives them back.

    Source: Alpaydin and Kaynak 1998, UCI "Optical Recognition of Handwritten Digits" (its test part).
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    values = np.rint(digits.images).astype(np.int64)
    labels = np.asarray(digits.target, dtype=np.int64)
    sample_ids = [f"{row:04d}" for row in range(len(labels))]
    test = draw_share(sample_ids, labels, params.test_fraction, derive_seed(seed, "digits", "test"))
    return RawDataset(
        name="digits",
        class_names=[str(digit) for digit in range(10)],
        sample_ids=sample_ids,
        splits=["test" if held_out else "train" for held_out in test],
        labels=labels,
        images=((values * 255 + 8) // 16).astype(np.uint8)[:, None],
    )
