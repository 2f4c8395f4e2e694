"""Which cells are made in one go: those that share a network and a training, none that waits on another."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roarline.config.load import load_experiment
from roarline.execution.plan import build_plan
from roarline.execution.planned import Plan
from roarline.execution.stacks import in_stacks, mates
from roarline.stages.job import Job

TEXT = """\
name: t
data: {dataset: digits}
model: {arch: small_cnn, params: {width: 4}}
train-cls: {epochs: 3, batch_size: 64}
attribution: {baselines: [], methods: [{name: gradient}, {name: random}, {name: sobel}]}
evaluate-roar: {fractions: [0.2, 0.5, 0.7], repeats: 2, modes: [roar, kar, recursive_roar], engine: %s}
runtime: {device: cpu}
"""


def plan(folder: Path, engine: str) -> Plan:
    path = folder / "config.yaml"
    path.write_text(TEXT % engine)
    return build_plan(load_experiment(path, []))


def cell(name: str, size: int, **parameters: object) -> Job:
    shared = {"model": "m", "training": "t", "engine": "stacked", "seed": 0, "threads": 1, "mode": "roar"}
    inputs = {"dataset": ("prepare-data", "d")}
    return Job("evaluate-roar", 1, name, name, {**shared, **parameters}, inputs, {"stack": size})


def names(stacks: Iterable[tuple[Job, ...]]) -> list[str]:
    return ["".join(job.label for job in stack) for stack in stacks]


def test_stacks_are_filled_in_order_and_hold_one_kind() -> None:
    jobs = [cell("a", 3), cell("b", 3), cell("x", 3, seed=1), cell("c", 3), cell("d", 3), cell("y", 3, training="u")]
    assert names(in_stacks(jobs)) == ["abc", "x", "d", "y"]
    other = Job("evaluate-roar", 1, "z", "z", jobs[0].parameters, {"dataset": ("prepare-data", "e")}, {"stack": 3})
    assert names(in_stacks([jobs[0], other])) == ["a", "z"]


def test_stacks_are_as_many_as_there_are_workers_where_there_are_as_many_jobs() -> None:
    jobs = [*(cell(name, 32) for name in "abcdefg"), cell("x", 32, seed=1)]
    assert names(in_stacks(jobs)) == ["abcdefg", "x"]
    assert names(in_stacks(jobs, 2)) == ["abcd", "efg", "x"]
    assert names(in_stacks(jobs, 4)) == ["ab", "cd", "ef", "g", "x"]
    assert names(in_stacks(jobs, 50)) == list("abcdefgx")
    assert names(in_stacks([cell(name, 3) for name in "abcdefg"], 2)) == ["abc", "def", "g"]  # never above the size


@pytest.mark.parametrize("engine", ["single", "stacked"])
def test_a_plan_is_cut_into_stacks_that_can_run_one_after_the_other(tmp_path: Path, engine: str) -> None:
    jobs = plan(tmp_path, engine).jobs
    stacks = in_stacks(jobs)
    assert sorted(job.key for stack in stacks for job in stack) == sorted(job.key for job in jobs)
    assert all(stack == (job,) for stack in stacks for job in stack if job.stage != "evaluate-roar")
    largest = max(len(stack) for stack in stacks)
    assert largest == (5 if engine == "stacked" else 1)
    done: set[str] = set()
    waiting = list(stacks)
    while waiting:
        ready = [stack for stack in waiting if all(key in done for job in stack for _, key in job.inputs.values())]
        assert ready  # else a stack waits for itself, or two for each other
        done |= {job.key for stack in ready for job in stack}
        waiting = [stack for stack in waiting if stack not in ready]


def test_recursion_shares_a_stack_at_one_fraction_apart_from_its_probes(tmp_path: Path) -> None:
    stacks = [stack for stack in in_stacks(plan(tmp_path, "stacked").jobs) if len(stack) > 1]
    chains = [stack for stack in stacks if stack[0].parameters["mode"] == "recursive_roar"]
    assert chains
    for stack in chains:
        places = {
            (job.parameters["mode"], job.parameters["removed_fraction"], job.parameters["probe"]) for job in stack
        }
        assert len(places) == 1


def test_the_engine_is_part_of_the_key_and_the_stack_is_not(tmp_path: Path) -> None:
    single, stacked = (
        {job.key for job in plan(tmp_path, engine).jobs if job.stage == "evaluate-roar"}
        for engine in ("single", "stacked")
    )
    assert not single & stacked
    jobs = [job for job in plan(tmp_path, "stacked").jobs if job.stage == "evaluate-roar"]
    assert all("stack" not in job.parameters and job.parameters["engine"] == "stacked" for job in jobs)


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=40), st.integers(1, 7))
def test_every_job_is_in_one_stack_of_its_kind_and_at_most_the_size(kinds: list[tuple[int, bool]], size: int) -> None:
    jobs = [
        cell(str(index), size, seed=seed, mode="recursive_roar" if chain else "kar", removed_fraction=0.5, probe=False)
        for index, (seed, chain) in enumerate(kinds)
    ]
    stacks = in_stacks(jobs)
    assert sorted(job.key for stack in stacks for job in stack) == sorted(job.key for job in jobs)
    for stack in stacks:
        assert 1 <= len(stack) <= size
        assert len({(job.parameters["seed"], job.parameters["mode"]) for job in stack}) == 1
    assert all(job in mates(jobs)[job.key] for job in jobs)
