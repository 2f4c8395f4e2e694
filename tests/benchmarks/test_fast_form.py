"""The fast form's accuracy is set beside float32's with intervals, in turns, from equal initialisations."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from scipy import stats

from benchmarks import fast_form
from benchmarks.fast_form import CELL, Cell, Forms, measured
from benchmarks.harness import Options

TINY = Cell("small_cnn", 16, train=48, test=24, batch_size=16, epochs=1, repeats=2)


def test_the_interval_is_welchs() -> None:
    fast, plain = [0.80, 0.82, 0.79, 0.83, 0.81], [0.84, 0.80, 0.88, 0.86, 0.82]
    forms = Forms(fast, plain)
    one, two = statistics.variance(fast) / 5, statistics.variance(plain) / 5
    degrees = (one + two) ** 2 / (one**2 / 4 + two**2 / 4)  # Welch and Satterthwaite
    half = stats.t.ppf(0.975, degrees) * math.sqrt(one + two)
    assert forms.difference == pytest.approx(-0.03)
    assert forms.interval == pytest.approx((-0.03 - half, -0.03 + half))
    assert forms.plain_half_width == pytest.approx(2.7764 * statistics.stdev(plain) / math.sqrt(5), rel=1e-4)  # t(4)


@pytest.mark.parametrize(
    ("fast", "plain", "agree"),
    [
        ([0.80, 0.81, 0.82], [0.80, 0.81, 0.82], True),  # no difference
        ([0.70, 0.71, 0.72], [0.80, 0.81, 0.82], False),  # ten standard deviations
        ([0.90, 0.91, 0.92], [0.80, 0.81, 0.82], False),  # other in the other direction is other, too
        ([0.5, 0.5], [0.5, 0.5], True),
        ([0.5, 0.5], [0.6, 0.6], False),
        ([0.70, 0.70, 0.70], [0.60, 0.80, 0.79], True),  # the interval of the difference holds 0
        # Standard errors of 0.01: ± 4.303 √2 0.01 for the difference excludes 0, float32's own ± 12.71 · 0.01 holds it
        ([0.71, 0.73], [0.79, 0.81], True),
    ],
)
def test_it_agrees_where_an_interval_says_so(fast: list[float], plain: list[float], agree: bool) -> None:
    assert Forms(fast, plain).agree is agree


def test_forms_take_turns_from_the_same_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []

    def accuracy(cell: Cell, splits: object, form: dict[str, object], repeat: int) -> float:
        asked.append((str(form["precision"]), repeat))
        return 0.9 if form["precision"] == "bfloat16" else 0.5 + repeat / 100

    monkeypatch.setattr(fast_form, "_accuracy", accuracy)
    line = measured(TINY, Options())
    fast, plain = "bfloat16", "float32"
    assert asked == [(fast, 0), (fast, 0), (plain, 0), (plain, 1), (fast, 1)]  # the first is untimed
    assert line.missed
    assert not line.holds
    assert "0.9000 against 0.5050" in line.note


def test_a_tiny_cell_is_trained_in_both_forms() -> None:
    line = measured(TINY, Options())
    assert len(line.ours_s) == len(line.bare_s) == 2
    assert line.passes == 48
    assert "2 repeats" in line.note


def test_half_of_the_pixels_are_replaced_by_the_mean() -> None:
    split = fast_form._split(TINY, "test", "cpu")
    assert len(split.labels) == 24
    gone = (split.images == 0).all(dim=1).float().mean((1, 2))  # the mean is 0 once it is normalised
    assert torch.equal(gone, torch.full((24,), 0.5))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_the_fast_form_is_as_accurate() -> None:
    line = measured(CELL, Options(device="cuda"))
    assert line.holds, line.note
