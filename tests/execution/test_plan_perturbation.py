"""The sweep's jobs: what each point changes, which metrics it computes, and what it leaves as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from roarline.errors import UserInputError
from tests.execution.test_plan import TEXT, keys, plan

SWEEP = "evaluate-perturbation.sweep={fill: [zero, mean, blur], steps: [14], score: [logit], seed: [0, 5]}"


def test_a_point_changes_one_thing_and_computes_what_it_changes(tmp_path: Path) -> None:
    given = plan(tmp_path, SWEEP)
    (summary,) = given.of("aggregate-scores")
    points = {role: (point["factor"], point["value"]) for role, point in summary.parameters["sweep"].items()}
    # The base has mean fills, seed 0 and probabilities: a fill of mean and a seed of 0 are no points.
    assert list(points.values()) == [
        ("fill", "zero"), ("fill", "blur"), ("steps", "14"), ("score", "logit"), ("seed", "5"),
    ]  # fmt: skip
    base = next(job for job in given.of("evaluate-perturbation") if "metrics" in job.parameters).parameters
    jobs = {job.key: job for job in given.jobs}
    found = {name: jobs[summary.inputs[f"{role}:gradient"][1]].parameters for role, name in points.items()}
    changed = {
        name: {key for key in base if parameters[key] != base[key]} - {"metrics"} for name, parameters in found.items()
    }
    assert changed == {
        ("fill", "zero"): {"fill", "deletion_fill"}, ("fill", "blur"): {"fill", "deletion_fill"},
        ("steps", "14"): {"steps"}, ("score", "logit"): {"score"}, ("seed", "5"): {"seed"},
    }  # fmt: skip
    assert found["fill", "zero"]["metrics"] == ["morf", "lerf", "srg", "deletion", "morf_deviation", "lerf_deviation"]
    assert found["steps", "14"]["metrics"] == ["insertion", "deletion"]
    assert found["score", "logit"]["metrics"] == ["morf", "lerf", "srg", "insertion", "deletion"]
    assert found["seed", "5"]["metrics"] == base["metrics"]


def test_a_sweep_adds_jobs_and_leaves_all_other_keys_as_they_were(tmp_path: Path) -> None:
    without, given = plan(tmp_path), plan(tmp_path, SWEEP)
    shared = ("prepare-data", "train-cls", "extract-attribution-maps", "evaluate-roar")
    assert keys(without, *shared) == keys(given, *shared)
    assert keys(without, "evaluate-perturbation") < keys(given, "evaluate-perturbation")
    assert len(given.of("evaluate-perturbation")) == 2 * (1 + 5)
    assert keys(without, "aggregate-scores") != keys(given, "aggregate-scores")
    assert "sweep" not in without.of("aggregate-scores")[0].parameters
    assert all("sweep" not in job.parameters for job in given.of("evaluate-perturbation"))


def test_a_fill_changes_only_the_metrics_whose_own_fill_is_another(tmp_path: Path) -> None:
    text = TEXT.replace("evaluate-perturbation: {}", "evaluate-perturbation: {fill: zero, metrics: [morf, deletion]}")
    given = plan(tmp_path, "evaluate-perturbation.sweep={fill: [zero]}", text=text)
    (point,) = [job for job in given.of("evaluate-perturbation") if "gradient, fill" in job.label]
    assert point.parameters["metrics"] == ["deletion"]  # MoRF has this fill already


@pytest.mark.parametrize(
    ("sweep", "words"),
    [
        ("{}", "changes nothing"),
        ("{fill: [zero, zero]}", "fill holds a value twice"),
        ("{fill: [pink]}", "pink"),
        ("{steps: [0]}", "greater than or equal to 1"),
        ("{insertion_fill: [zero]}", "sweep.insertion_fill changes only insertion"),
        ("{colour: [red]}", "colour"),
    ],
)
def test_what_is_no_sweep_is_refused(tmp_path: Path, sweep: str, words: str) -> None:
    text = TEXT.replace("evaluate-perturbation: {}", "evaluate-perturbation: {metrics: [morf, deletion]}")
    with pytest.raises(UserInputError, match=words):
        plan(tmp_path, f"evaluate-perturbation.sweep={sweep}", text=text)
