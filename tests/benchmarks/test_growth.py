"""The benchmark of growth: a line for each stage and number of images, against a tenth of them."""

from __future__ import annotations

import pytest

from benchmarks import growth
from benchmarks.growth import STAGES, Cost, costs_of, experiment, measure, memory_note
from benchmarks.harness import Options
from roarline.config.experiment import Experiment
from roarline.execution.plan import build_plan


class _Here:
    """Runs what a process of its own would."""

    def __init__(self, *_: object, **__: object) -> None: ...
    def __enter__(self) -> _Here:
        return self

    def __exit__(self, *_: object) -> None: ...
    def submit(self, function: object, count: int, options: Options) -> _Here:
        self.count = count
        return self

    def result(self) -> dict[str, Cost]:
        """The first stage takes 3 s and a second an image, the others 2 s an image, and the last one all squared.

        Memory is 5 MiB and as many KiB an image as the stage has letters, but of the last stage the same each time.
        """
        costs = {stage: Cost([2.0 * self.count], 5 + len(stage) * self.count / 1024) for stage in STAGES}
        return costs | {STAGES[0]: Cost([3.0 + self.count], 1.0), STAGES[-1]: Cost([self.count**2.0], 1.0)}


def test_linear_is_1_what_comes_once_is_above_and_quadratic_far_below(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "ProcessPoolExecutor", _Here)
    lines = {(line.hot_path, line.images): line for line in measure(Options())}
    assert len(lines) == len(STAGES) * 3
    assert {lines[f"growth, {stage}", 100].efficiency for stage in STAGES} == {1.0}
    assert lines["growth, evaluate-perturbation", 10_000].efficiency == 1.0
    assert lines["growth, prepare-data", 1_000].efficiency == 1030 / 1003
    assert lines["growth, aggregate-scores", 10_000].efficiency == 0.1
    assert {line.goal for (_, images), line in lines.items() if images < 10_000} == {None}
    assert lines["growth, evaluate-perturbation", 10_000].goal == 0.9
    assert lines["growth, evaluate-perturbation", 1_000].peak_memory_mib == 5 + 21 * 1000 / 1024
    # 21 letters, 21 KiB an image
    assert lines["growth, evaluate-perturbation", 10_000].note.startswith("21.0 KiB of memory for each of 9000 more")
    assert {line.hot_path for line in lines.values() if not line.holds} == {
        f"growth, {stage}" for stage in STAGES[1:-1]
    }
    assert all(line.holds and not line.note for (_, images), line in lines.items() if images < 10_000)


@pytest.mark.parametrize(("stage", "kib"), [(stage, 8 if stage == "aggregate-scores" else 3) for stage in STAGES])
def test_an_image_may_cost_so_many_kib_and_no_more(stage: str, kib: int) -> None:
    assert memory_note(stage, kib * 9_000 / 1024, 9_000)[1]
    assert not memory_note(stage, (kib + 0.01) * 9_000 / 1024, 9_000)[1]
    assert memory_note(stage, -1.0, 9_000)[1]


def test_every_stage_has_jobs_in_its_configuration() -> None:
    plan = build_plan(Experiment.model_validate(experiment(100, 1)))
    assert all(plan.of(stage) for stage in STAGES)


@pytest.mark.slow
def test_a_quick_run_measures_every_stage() -> None:
    found = costs_of(20, Options(quick=True, threads=1))
    assert set(STAGES) <= set(found)
    assert all(len(cost.seconds) == 1 and cost.seconds[0] > 0 for cost in found.values())
