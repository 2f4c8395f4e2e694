"""Accuracy is a mean, in float64, of numbers in [0, 1]."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import accuracy_score

from roarline.evaluation.accuracy import accuracy


def test_parity_with_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(0)
    labels, predicted = torch.randint(0, 4, (2, 101), generator=generator)
    assert accuracy((labels == predicted).float()) == pytest.approx(accuracy_score(labels, predicted), abs=1e-12)


def test_shares_of_right_decisions_are_averaged() -> None:
    assert accuracy(torch.tensor([0.5, 1.0, 0.75])) == 0.75


def test_nothing_and_impossible_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        accuracy(torch.zeros(0))
    for bad in (1.5, -0.1, float("nan")):
        with pytest.raises(ValueError, match=r"outside \[0, 1\]"):
            accuracy(torch.tensor([bad]))
