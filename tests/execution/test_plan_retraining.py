"""Plans of recursive ROAR, F-Fidelity and IDSDS: what reads what, and what stays as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from roarline.config.load import load_experiment
from roarline.errors import UserInputError
from roarline.execution.plan import build_plan
from roarline.execution.planned import Plan
from roarline.stages.job import Job

TEXT = """\
name: t
data: {dataset: digits}
model: {arch: small_cnn, params: {width: 4}}
train-cls: {epochs: 3, optimizer: {name: adam, lr: 0.01}}
attribution: {baselines: [], methods: [{name: gradient}, {name: random}]}
"""
ROAR = "evaluate-roar={fractions: [0.7, 0.2, 0.5], repeats: 2, probe_repeats: 1, modes: [%s]}"


def plan(folder: Path, *overrides: str, text: str = TEXT) -> Plan:
    path = folder / "config.yaml"
    path.write_text(text)
    return build_plan(load_experiment(path, list(overrides)))


def by_label(given: Plan) -> dict[str, Job]:
    return {job.label: job for job in given.jobs}


def reads(job: Job, role: str, other: Job) -> bool:
    return job.inputs.get(role) == (other.stage, other.key)


def test_plain_cells_and_all_before_them_keep_their_keys(tmp_path: Path) -> None:
    plain, both = (plan(tmp_path, ROAR % modes) for modes in ("roar, kar", "roar, kar, recursive_roar"))
    kept = {job.key for job in plain.jobs if job.stage not in ("aggregate-scores", "report")}
    assert kept <= {job.key for job in both.jobs}
    assert not any(job.parameters.get("mode") == "everything_removed" for job in plain.jobs)


def test_a_chain_goes_by_rising_fraction_each_reading_maps_of_the_cell_before(tmp_path: Path) -> None:
    jobs = by_label(plan(tmp_path, ROAR % "recursive_roar"))
    given = {split: jobs[f"extract-attribution-maps gradient {split}"] for split in ("train", "validation", "test")}
    for repeat in (0, 1):
        first, second, third = (jobs[f"evaluate-roar gradient recursive_roar {f} #{repeat}"] for f in (0.2, 0.5, 0.7))
        assert "former" not in first.inputs
        assert all(reads(first, f"maps_{split}", given[split]) for split in given)
        for before, after in ((first, second), (second, third)):
            assert reads(after, "former", before)
            fraction = before.parameters["removed_fraction"]
            for split in given:
                made = jobs[f"extract-attribution-maps gradient {split}, recursive_roar {fraction:g} #{repeat}"]
                assert reads(made, "classifier", before)
                assert made.parameters == given[split].parameters | {"removed_fill": "mean"}
                assert reads(after, f"maps_{split}", made)
    last = [job for job in jobs.values() if "recursive_roar 0.7" in job.label and job.stage.startswith("extract")]
    assert not last  # nobody reads maps of the last network


def test_probes_read_the_masks_of_their_cells_and_repeats_as_many_as_asked(tmp_path: Path) -> None:
    jobs = by_label(plan(tmp_path, ROAR % "recursive_roar"))
    probes = [job for job in jobs.values() if job.parameters.get("probe")]
    assert len(probes) == 2 * 3  # methods, fractions; one repeat
    for probe in probes:
        assert reads(probe, "cell", jobs[probe.label.removesuffix(" probe")])
        assert "fill" not in probe.parameters


def test_each_repeat_has_an_end_where_everything_is_removed(tmp_path: Path) -> None:
    jobs = plan(tmp_path, ROAR % "recursive_roar").of("evaluate-roar")
    ends = [job for job in jobs if job.parameters.get("mode") == "everything_removed"]
    assert [job.parameters["repeat"] for job in ends] == [0, 1]
    assert all(set(job.inputs) == {"dataset"} and job.parameters["removed_fraction"] == 1.0 for job in ends)


def test_another_fraction_changes_only_the_cells_after_it(tmp_path: Path) -> None:
    before, after = (
        {
            (j.parameters["removed_fraction"], j.key)
            for j in plan(tmp_path, words).of("evaluate-roar")
            if "fill" in j.parameters
        }
        for words in (ROAR % "recursive_roar", (ROAR % "recursive_roar").replace("0.5", "0.6"))
    )
    assert {fraction for fraction, _ in before & after} == {0.2, 1.0}


def test_recursion_and_the_originals_bugs_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match="recursive_roar"):
        plan(tmp_path, (ROAR % "recursive_roar").replace("}", ", compat: original}"))


def test_jobs_stand_after_what_they_read_and_are_run_by_the_stage_that_asks_for_them(tmp_path: Path) -> None:
    given = plan(tmp_path, ROAR % "roar, recursive_roar", "evaluate-f-fidelity={}", "evaluate-idsds={}")
    seen: set[str] = set()
    for job in given.jobs:
        assert {key for _, key in job.inputs.values()} <= seen
        seen.add(job.key)
    assert [job.label for job in given.of("train-cls")] == ["train-cls small_cnn"]
    plain = {
        f"extract-attribution-maps {m} {s}" for m in ("gradient", "random") for s in ("train", "validation", "test")
    }
    assert {job.label for job in given.of("extract-attribution-maps")} == plain
    assert {job.stage for job in given.of("evaluate-idsds")} == {
        "train-cls", "extract-attribution-maps", "evaluate-idsds",
    }  # fmt: skip
    needed = given.needed_by("evaluate-f-fidelity")
    assert not any("idsds" in job.label or job.stage == "evaluate-roar" for job in needed)
    assert sum(len(given.of(stage)) for stage in {job.asked_by or job.stage for job in given.jobs}) == len(given.jobs)


def test_one_fine_tuned_classifier_serves_all_methods(tmp_path: Path) -> None:
    jobs = by_label(plan(tmp_path, "evaluate-f-fidelity={beta: 0.2, fill: zero}", "evaluate-idsds={grid: 3}"))
    base = jobs["train-cls small_cnn"]
    for stage, alteration in (
        ("evaluate-f-fidelity", {"kind": "pixels", "most": 0.2, "fill": "zero"}),
        ("evaluate-idsds", {"kind": "patch", "grid": 3, "share": 0.5, "fill": "mean"}),
    ):
        tuned = jobs[f"train-cls small_cnn, fine-tuned for {stage}"]
        assert reads(tuned, "classifier", base)
        assert tuned.parameters["alteration"] == alteration
        assert tuned.parameters["training"]["optimizer"]["lr"] == pytest.approx(0.001)  # a tenth of the classifier's
        assert tuned.parameters["training"]["epochs"] == 3
        for method in ("gradient", "random"):
            assert reads(jobs[f"{stage} {method}"], "classifier", tuned)
    for method in ("gradient", "random"):
        assert reads(jobs[f"evaluate-f-fidelity {method}"], "maps", jobs[f"extract-attribution-maps {method} test"])
        own = jobs[f"extract-attribution-maps {method} test, fine-tuned for evaluate-idsds"]
        assert reads(jobs[f"evaluate-idsds {method}"], "maps", own)


def test_whose_maps_are_scored_can_be_chosen(tmp_path: Path) -> None:
    swapped = plan(tmp_path, "evaluate-f-fidelity={maps_of: fine_tuned}", "evaluate-idsds={maps_of: classifier}")
    jobs = by_label(swapped)
    assert reads(jobs["evaluate-idsds random"], "maps", jobs["extract-attribution-maps random test"])
    own = jobs["extract-attribution-maps random test, fine-tuned for evaluate-f-fidelity"]
    assert reads(jobs["evaluate-f-fidelity random"], "maps", own)


def test_scores_reach_the_summary(tmp_path: Path) -> None:
    given = plan(tmp_path, "evaluate-f-fidelity={}", "evaluate-idsds={}")
    inputs = given.of("aggregate-scores")[0].inputs
    assert {"f_fidelity:gradient", "f_fidelity:random", "idsds:gradient", "idsds:random"} <= set(inputs)


def test_a_loaded_classifier_needs_a_training_to_be_fine_tuned_by(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from roarline.models.build import build

    save_file(build("small_cnn", {"width": 4}, 10, input_size=(8, 8), seed=0).state_dict(), tmp_path / "w.safetensors")
    text = TEXT.replace("params: {width: 4}}", f"params: {{width: 4}}, weights: {tmp_path / 'w.safetensors'}}}")
    text = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("train-cls"))
    with pytest.raises(UserInputError, match="evaluate-idsds: needs a training section"):
        plan(tmp_path, "evaluate-idsds={}", text=text)
    jobs = by_label(plan(tmp_path, "evaluate-idsds={training: {epochs: 1}}", text=text))
    tuned = jobs["train-cls small_cnn, fine-tuned for evaluate-idsds"]
    assert tuned.parameters["training"]["epochs"] == 1
    assert "weights" not in tuned.parameters["model"]
