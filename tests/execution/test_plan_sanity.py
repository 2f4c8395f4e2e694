"""Jobs of evaluate-sanity, and those that data randomisation asks for beside."""

from __future__ import annotations

from pathlib import Path

from roarline.config.load import load_experiment
from roarline.execution.plan import Plan, build_plan

TEXT = """\
name: tiny
data: {dataset: digits}
model: {arch: small_cnn}
train-cls: {epochs: 1}
attribution:
  baselines: []
  methods:
    - {name: gradient}
    - {name: blurred, method: gradient, filter: {kind: blur, sigma_px: 1}}
    - {name: random}
evaluate-sanity: {metrics: [cascading_randomisation, data_randomisation], limit: 20}
"""


def plan(tmp_path: Path, *overrides: str) -> Plan:
    path = tmp_path / "tiny.yaml"
    path.write_text(TEXT)
    return build_plan(load_experiment(path, overrides))


def test_a_method_has_one_job_with_the_network_and_one_of_shuffled_labels(tmp_path: Path) -> None:
    given = plan(tmp_path)
    jobs = [job for job in given.jobs if job.stage == "evaluate-sanity"]
    assert len(jobs) == 2 * 3
    assert len([job for job in jobs if "shuffled_maps" in job.inputs]) == 3
    (summary,) = given.of("aggregate-scores")
    assert {
        f"{family}:{method}" for family in ("sanity", "labels") for method in ("gradient", "blurred", "random")
    } <= {*summary.inputs}


def test_the_shuffled_network_and_its_maps_have_keys_of_their_own(tmp_path: Path) -> None:
    given = plan(tmp_path)
    true, shuffled = [job for job in given.jobs if job.stage == "train-cls"]
    assert "shuffle_labels" not in true.parameters
    assert shuffled.parameters["shuffle_labels"] is True
    assert shuffled.key != true.key
    maps = [job for job in given.jobs if job.stage == "extract-attribution-maps"]
    of_shuffled = [job for job in maps if job.inputs["classifier"][1] == shuffled.key]
    assert len(of_shuffled) == 3
    assert not {job.key for job in of_shuffled} & {job.key for job in maps if job not in of_shuffled}
    assert all(job.asked_by == "evaluate-sanity" for job in (*of_shuffled, shuffled))
    assert given.of("train-cls") == [true]
    blurred = next(job for job in of_shuffled if "filter" in job.parameters)
    assert blurred.inputs["maps"][1] in {job.key for job in of_shuffled}


def test_keys_of_other_stages_are_as_they_were_without_the_section(tmp_path: Path) -> None:
    with_it, without = plan(tmp_path), plan(tmp_path, "evaluate-sanity=null")
    early = ("prepare-data", "train-cls", "extract-attribution-maps")
    keys = {job.key for job in without.jobs if job.stage in early}
    assert keys <= {job.key for job in with_it.jobs}
    assert not without.of("evaluate-sanity")


def test_a_metric_more_of_shuffled_labels_leaves_the_other_jobs_keys(tmp_path: Path) -> None:
    both = plan(tmp_path)
    alone = plan(tmp_path, "evaluate-sanity.metrics=[cascading_randomisation]")
    assert {job.key for job in alone.of("evaluate-sanity")} < {job.key for job in both.of("evaluate-sanity")}
    assert [job.label for job in alone.jobs if job.stage == "train-cls"] == ["train-cls small_cnn"]
