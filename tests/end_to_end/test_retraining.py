"""Recursive ROAR, F-Fidelity and IDSDS from nothing to the summary, and again after part of a chain was lost."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from roarline.artifacts.store import Store
from roarline.artifacts.tables import SCORES_FILE, read_parquet
from roarline.config.load import load_experiment
from roarline.execution.leaderboard import leaderboard
from roarline.execution.plan import build_plan
from roarline.execution.planned import Plan
from roarline.execution.run_job import run_job
from roarline.stages.job import Context

TINY = """\
name: tiny
data: {dataset: digits, limit: {train: 240, test: 40}, validation_fraction: 0.2}
model: {arch: small_cnn, params: {width: 8}}
train-cls: {epochs: 4, batch_size: 32, threads: 1, optimizer: {name: adam, lr: 2.0e-2}}
attribution: {threads: 1, baselines: [], methods: [{name: input_x_gradient}, {name: random}]}
evaluate-roar: {fractions: [0.3, 0.8], modes: [roar, recursive_roar], repeats: 1, probe_repeats: 1}
evaluate-f-fidelity: {sizes: [0.3, 0.6], samples: 2, beta: 0.2, threads: 1}
evaluate-idsds: {grid: 3, threads: 1}
aggregate-scores: {resamples: 100}
"""


def run(plan: Plan, store: Store) -> dict[str, str]:
    """Make what is missing, in the plan's order, but the page; label to digest."""
    context = Context(store)
    jobs = [job for job in plan.jobs if job.stage != "report"]
    for job in jobs:
        run_job(job, context)
    return {job.label: store.open(job.stage, job.key).digest for job in jobs}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Store, dict[str, str]]:
    """A plan, its store, and the digests of all that was made."""
    folder = tmp_path_factory.mktemp("retraining")
    (folder / "tiny.yaml").write_text(TINY)
    plan, store = build_plan(load_experiment(folder / "tiny.yaml", [])), Store(folder / "artifacts")
    return plan, store, run(plan, store)


def scores(plan: Plan, store: Store) -> list[dict[str, object]]:
    summary = plan.of("aggregate-scores")[0]
    columns = read_parquet(store.open(summary.stage, summary.key).file(SCORES_FILE))
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def test_every_metric_has_a_row_for_every_method_and_setting(finished: tuple[Plan, Store, dict[str, str]]) -> None:
    plan, store, _ = finished
    rows = scores(plan, store)
    fractions = ["removed_fraction=0.3", "removed_fraction=0.8", "mean over fractions"]
    sizes = ["explanation_size=0.3", "explanation_size=0.6", "mean over explanation sizes"]
    expected = {
        "recursive_roar_accuracy": fractions, "recursive_roar_leakage": fractions, "roar_relative_area": [""],
        "recursive_roar_relative_area": [""], "ffid_plus": sizes, "ffid_minus": sizes, "idsds": [""],
    }  # fmt: skip
    for metric, settings in expected.items():
        for method in ("input_x_gradient", "random"):
            found = [row for row in rows if (row["metric"], row["method"]) == (metric, method)]
            assert [row["setting"] for row in found] == settings
            assert all(row["failed"] == 0 and row["ci_low"] <= row["value"] <= row["ci_high"] for row in found)
    table = {(row["metric"], row["method"], row["setting"]): row["value"] for row in rows}
    for metric in ("roar_relative_area", "recursive_roar_relative_area"):
        assert table[metric, "random", ""] == 0.0
    for method in ("input_x_gradient", "random"):  # the first step of a chain is plain ROAR's
        first = [table[f"{mode}_accuracy", method, fractions[0]] for mode in ("roar", "recursive_roar")]
        assert first[0] == first[1]
    assert not any("everything" in str(row["method"]) for row in rows)
    assert {"(nothing removed)"} == {row["method"] for row in rows} - {"input_x_gradient", "random"}


def test_the_leaderboard_has_a_column_for_each_and_none_for_single_points(
    finished: tuple[Plan, Store, dict[str, str]],
) -> None:
    plan, store, _ = finished
    rows = scores(plan, store)
    text = leaderboard({name: ["" if row[name] is None else str(row[name]) for row in rows] for name in rows[0]})
    titles = re.split(r"\s{2,}", text.splitlines()[0])
    assert len(set(titles)) == len(titles)
    for metric in ("recursive_roar_accuracy ↓", "recursive_roar_relative_area ↑", "roar_relative_area ↑"):
        assert metric in titles
    for metric in ("ffid_plus ↑", "ffid_minus ↓", "idsds ↑", "recursive_roar_leakage"):
        assert metric in titles


def test_a_chain_that_lost_its_middle_is_mended_to_the_same_digests(
    finished: tuple[Plan, Store, dict[str, str]], tmp_path: Path
) -> None:
    plan, store, digests = finished
    copy = Store(tmp_path / "artifacts")
    shutil.copytree(store.root, copy.root)
    lost = [job for job in plan.jobs if "recursive_roar" in job.label and "input_x_gradient" in job.label]
    assert len(lost) == 2 + 2 + 3  # cells, probes, maps of the first cell's network
    for job in lost:
        shutil.rmtree(copy.path(job.stage, job.key))
    assert run(plan, copy) == digests
