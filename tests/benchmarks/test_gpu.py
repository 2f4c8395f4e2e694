"""The benchmark of trainings on a GPU compares a cell with its bare step, and measures nothing without one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from benchmarks import fast_form, gpu
from benchmarks.gpu import CASES, Case, measure, measure_case
from benchmarks.harness import Measurement, Options
from roarline.models.build import build

TINY = Case("small_cnn", 8, 3, batch_size=8, images=24, epochs=2, augmentation={"horizontal_flip": True})


@pytest.mark.parametrize("case", [TINY, Case("small_cnn", 8, 3, 8, 24, 2, precision="float32", channels_last=False)])
def test_a_case_makes_as_many_bare_steps_as_the_cell_makes(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    made = gpu._bare_step

    def counted(*words: Any) -> Callable[[], None]:
        step = made(*words)

        def one() -> None:
            steps.append(1)
            step()

        return one

    monkeypatch.setattr(gpu, "_bare_step", counted)
    line = measure_case(case, Options(quick=True, threads=1))
    assert len(steps) == 6  # 3 batches, twice
    assert line.passes == 48
    assert line.efficiency > 0
    assert "training images a second" in line.note
    assert line.setting == case.setting


def test_the_bare_step_trains() -> None:
    model = build(TINY.arch, {}, 3, input_size=None, seed=0)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    gpu._bare_step(TINY, model, torch.device("cpu"))()
    assert not any(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def test_cases_are_what_the_project_asks_for() -> None:
    found = {(case.arch, case.side_px, case.classes, case.batch_size, case.precision) for case in CASES}
    assert ("resnet8", 32, 10, 256, "bfloat16") in found
    assert ("torchvision:resnet50", 224, 1000, 256, "bfloat16") in found
    assert all(case.images * case.epochs >= 10_000 and case.settings.epochs == case.epochs for case in CASES)


def test_every_case_and_the_accuracy_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "measure_case", lambda case, options: case)
    monkeypatch.setattr(fast_form, "measured", lambda cell, options: cell)
    assert list(measure(Options(device="cuda"))) == [*CASES, fast_form.CELL]
    assert list(measure(Options(device="cuda", quick=True))) == [*gpu.QUICK_CASES, fast_form.QUICK_CELL]


def test_without_a_gpu_nothing_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(measure(Options())) == []
    assert "--device cuda" in capsys.readouterr().err


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_quick_run_on_a_gpu() -> None:
    found: list[Measurement] = list(measure(Options(device="cuda", quick=True)))
    assert [line.hot_path for line in found] == ["gpu", "gpu, fast form"]
    assert all(line.efficiency > 0 for line in found)
