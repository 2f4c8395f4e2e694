"""Altered copies through a network: full passes, and draws that depend on nothing but their seed."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from roarline.evaluation.copies import BlockDraws, outputs_of_copies, spans_of_passes

CPU = torch.device("cpu")


@given(st.integers(0, 7), st.integers(1, 20), st.integers(1, 9))
def test_passes_are_full_and_hold_every_copy_once(rows: int, copies: int, size: int) -> None:
    passes = [
        [(row, copy) for row, first, last in spans for copy in range(first, last)]
        for spans in spans_of_passes(rows, copies, size)
    ]
    assert [pair for one in passes for pair in one] == [(row, copy) for row in range(rows) for copy in range(copies)]
    assert all(len(one) == size for one in passes[:-1])


@given(st.integers(1, 6), st.lists(st.integers(1, 5), min_size=1, max_size=6))
def test_a_copy_gets_the_same_draw_however_passes_are_cut(size: int, lengths: list[int]) -> None:
    def draws() -> BlockDraws:
        return BlockDraws(lambda row, block: 7 * row + block, lambda g: torch.rand(size, 2, generator=g), size, CPU)

    total = sum(lengths)
    whole, cut = draws(), draws()
    for row in range(2):
        start, parts = 0, []
        for length in lengths:
            parts.append(cut(row, start, start + length))
            start += length
        assert torch.equal(torch.cat(parts), whole(row, 0, total))
    assert not torch.equal(whole(0, 0, total), whole(1, 0, total))


class Seen(nn.Module):
    """A linear head, and how many images each pass had."""

    def __init__(self) -> None:
        super().__init__()
        self.passes: list[int] = []
        self.weight = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))

    def forward(self, images: Tensor) -> Tensor:
        self.passes.append(len(images))
        return images.flatten(1) @ self.weight


@pytest.mark.parametrize("multi_label", [False, True])
def test_outputs_are_those_of_one_copy_at_a_time(multi_label: bool) -> None:
    images = torch.randn(3, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    targets, model = torch.tensor([0, 2, 1]), Seen()

    def alter(row: int, first: int, last: int) -> Tensor:
        return torch.stack([images[row] * (copy + 1) for copy in range(first, last)])

    found = outputs_of_copies(model, targets, 5, alter, batch_size=4, multi_label=multi_label)
    assert model.passes == [4, 4, 4, 3]
    for row in range(3):
        for copy in range(5):
            logits = model(images[row : row + 1] * (copy + 1))[0]
            probabilities = logits.sigmoid() if multi_label else logits.softmax(dim=0)
            target = int(targets[row])
            # One product of matrices or another: float32 sums of 12 numbers.
            assert found.logits[row, copy].item() == pytest.approx(logits[target].item(), rel=1e-5, abs=1e-5)
            assert found.probabilities[row, copy].item() == pytest.approx(probabilities[target].item(), abs=1e-6)
            called = probabilities[target] >= 0.5 if multi_label else int(logits.argmax()) == target
            assert bool(found.right[row, copy]) == bool(called)


def test_an_output_that_is_not_finite_says_nothing_of_its_copy_alone() -> None:
    def network(images: Tensor) -> Tensor:
        logits = images.flatten(1)[:, :2].clone()
        logits[images[:, 0, 0, 0] > 2, 1] = math.inf
        return logits

    model = nn.Module()
    model.forward = network  # type: ignore[method-assign]
    values = torch.tensor([1.0, 3.0]).reshape(2, 1, 1, 1).expand(-1, 1, 1, 2)
    found = outputs_of_copies(model, torch.tensor([0]), 2, lambda row, first, last: values[first:last], batch_size=8)
    assert torch.isnan(found.logits[0]).tolist() == [False, True]
    assert torch.isnan(found.probabilities[0]).tolist() == [False, True]
    assert found.right[0].tolist() == [True, False]


def test_no_rows_are_no_passes() -> None:
    model = Seen()
    found = outputs_of_copies(model, torch.empty(0, dtype=torch.int64), 4, lambda *_: torch.empty(0), batch_size=4)
    assert found.logits.shape == found.right.shape == (0, 4)
    assert model.passes == []
