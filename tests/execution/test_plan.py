"""The plan: every key without running anything; what can't change a result is in no key."""

from __future__ import annotations

from pathlib import Path

import pytest

from roarline.config.load import load_experiment
from roarline.errors import DataError
from roarline.execution.plan import build_plan
from roarline.execution.planned import Plan
from roarline.execution.prepared import obtain_data
from roarline.execution.run import needed
from roarline.stages.job import Job

TEXT = """\
name: tiny
data: {dataset: digits}
model: {arch: small_cnn}
train-cls: {epochs: 1}
attribution:
  baselines: []
  methods:
    - {name: gradient}
    - {name: random}
evaluate-roar: {fractions: [0.1, 0.5], repeats: 2}
evaluate-perturbation: {}
"""

ALL = {
    "prepare-data",
    "train-cls",
    "extract-attribution-maps",
    "evaluate-roar",
    "evaluate-perturbation",
    "aggregate-scores",
    "report",
}


def plan(tmp_path: Path, *overrides: str, text: str = TEXT) -> Plan:
    path = tmp_path / "tiny.yaml"
    path.write_text(text)
    return build_plan(load_experiment(path, overrides))


def keys(given: Plan, *stages: str) -> set[str]:
    return {job.key for job in given.jobs if not stages or job.stage in stages}


def test_counts_of_jobs(tmp_path: Path) -> None:
    given = plan(tmp_path)
    cells = given.of("evaluate-roar")
    grid = [job for job in cells if not job.parameters["probe"] and job.parameters["mode"] != "reference"]
    assert len(grid) == 2 * 2 * 2 * 2  # methods, modes, fractions, repeats
    assert len([job for job in cells if job.parameters["probe"]]) == 2 * 2 * 2  # one repeat
    assert len([job for job in cells if job.parameters["mode"] == "reference"]) == 2
    assert len(given.of("extract-attribution-maps")) == 2 * 3
    assert len(given.of("evaluate-perturbation")) == 2


def names(given: Plan) -> list[str]:
    return [method["name"] for method in given.of("aggregate-scores")[0].parameters["methods"]]


def test_baselines_ride_along_in_every_table(tmp_path: Path) -> None:
    """design.md section 5; ``baselines: []`` turns them off."""
    text = TEXT.replace("  baselines: []\n", "")
    assert names(plan(tmp_path, text=text)) == ["gradient", "random", "sobel", "centre_gaussian", "constant"]
    drawn = text.replace("{dataset: digits}", "{dataset: shapes}").replace(
        "{epochs: 1}", "{epochs: 1, loss: binary_cross_entropy}"
    )
    assert names(plan(tmp_path, text=drawn)) == [
        "gradient", "random", "ground_truth", "sobel", "centre_gaussian", "constant",
    ]  # fmt: skip
    assert names(plan(tmp_path)) == ["gradient", "random"]
    few = plan(tmp_path, "attribution.baselines=[sobel]")
    assert names(few) == ["gradient", "random", "sobel"]
    assert [m["name"] for m in few.of("report")[0].parameters["methods"] if m["baseline"]] == ["random", "sobel"]


def test_a_method_that_bears_a_baselines_name_does_not_replace_it(tmp_path: Path) -> None:
    text = TEXT.replace("{name: random}", "{name: constant, method: gradient, sign: absolute}")
    assert names(plan(tmp_path, "attribution.baselines=[constant]", text=text)) == [
        "gradient", "constant", "constant_baseline",
    ]  # fmt: skip


def test_a_filtered_method_reads_the_maps_of_the_method_itself(tmp_path: Path) -> None:
    """The network is asked once for both."""
    filtered = "{name: random}\n    - {name: blurred, method: gradient, filter: {kind: blur, sigma_px: 1.5}}"
    before, after = plan(tmp_path), plan(tmp_path, text=TEXT.replace("{name: random}", filtered))
    stage = "extract-attribution-maps"
    assert keys(before, stage) < keys(after, stage)
    for job in after.of(stage):
        assert ("maps" in job.inputs) == ("filter" in job.parameters)
        if "maps" in job.inputs:
            assert job.inputs["maps"][1] in keys(before, stage)


def test_smoothing_is_in_the_key_and_its_absence_leaves_keys_as_they_were(tmp_path: Path) -> None:
    smooth = TEXT.replace("{name: gradient}", "{name: gradient, smooth: {samples: 3}}")
    assert "smooth" not in plan(tmp_path).of("extract-attribution-maps")[0].parameters
    given = plan(tmp_path, text=smooth).of("extract-attribution-maps")[0].parameters["smooth"]
    assert given == {"samples": 3, "noise": 0.15, "kind": "mean"}


def test_a_methods_own_normalisation_before_the_merge(tmp_path: Path) -> None:
    own = TEXT.replace("{name: gradient}", "{name: gradient, merge_normalization: none}")
    cells = [job for job in plan(tmp_path, text=own).of("evaluate-roar") if "maps_test" in job.inputs]
    assert {job.parameters["merge_normalization"] for job in cells if " gradient " in job.label} == {"none"}
    assert {job.parameters["merge_normalization"] for job in cells if " random " in job.label} == {"min_max"}


def test_jobs_stand_after_what_they_read(tmp_path: Path) -> None:
    seen: set[str] = set()
    for job in plan(tmp_path).jobs:
        assert {key for _, key in job.inputs.values()} <= seen
        seen.add(job.key)


def test_same_config_same_keys(tmp_path: Path) -> None:
    assert keys(plan(tmp_path)) == keys(plan(tmp_path))


@pytest.mark.parametrize(
    "override",
    [
        "runtime.workers=7",
        "runtime.device=cuda:3",
        "runtime.artifacts=elsewhere",
        "runtime.loader_threads=9",
        "runtime.shards=3",
        "runtime.map_compression=lz4",
        "runtime.record_steps=false",
        "data.root=somewhere",
        "attribution.methods.gradient.channels=max_abs",  # its default, said aloud
    ],
)
def test_what_can_not_change_a_result_is_in_no_key(tmp_path: Path, override: str) -> None:
    named = "evaluate-roar.engine=single"  # `auto` follows the device
    assert keys(plan(tmp_path, named, override)) == keys(plan(tmp_path, named))


def test_the_compression_of_maps_reaches_the_jobs_that_write_them(tmp_path: Path) -> None:
    jobs = plan(tmp_path, "runtime.map_compression=lz4").of("extract-attribution-maps")
    assert {job.local["map_compression"] for job in jobs} == {"lz4"}


def test_jobs_that_train_are_told_to_record_no_steps(tmp_path: Path) -> None:
    jobs = plan(tmp_path, "runtime.record_steps=false").jobs
    told = {job.stage for job in jobs if job.local.get("record_steps") is False}
    assert told == {"train-cls", "evaluate-roar"}
    assert not any(job.local.get("record_steps", True) for job in jobs if job.stage in told)
    assert not any("record_steps" in job.local for job in plan(tmp_path).jobs)


def test_the_layers_that_methods_name_are_told_to_the_training_and_are_in_no_key_of_it(tmp_path: Path) -> None:
    methods = """
    - {name: gradcam, params: {layer: conv2}}
    - {name: both, method: gradcam, params: {layer: [conv1, auto]}}
    - {name: excitation, method: contrastive_excitation_backprop, params: {contrast_layer: conv3}}
    - {name: auto, method: gradcam}
    - {name: gradient}
"""
    (job,) = plan(tmp_path, text=TEXT.replace("\n    - {name: gradient}\n", methods)).of("train-cls")
    assert job.local["layers"] == {"gradcam": ["conv2"], "both": ["conv1"], "excitation": ["conv3"]}
    assert job.key == plan(tmp_path).of("train-cls")[0].key


def test_changed_fractions_change_only_what_depends_on_them(tmp_path: Path) -> None:
    before, after = plan(tmp_path), plan(tmp_path, "evaluate-roar.fractions=[0.1, 0.9]")
    upstream = ("prepare-data", "train-cls", "extract-attribution-maps", "evaluate-perturbation")
    assert keys(before, *upstream) == keys(after, *upstream)
    kept = keys(before, "evaluate-roar") & keys(after, "evaluate-roar")
    assert len(kept) == 2 + 2 * 2 * 2 + 2 * 2  # references, grid and probe at 0.1
    assert not keys(before, "aggregate-scores", "report") & keys(after, "aggregate-scores", "report")


@pytest.mark.parametrize(
    ("override", "same"),
    [
        ("train-cls.epochs=2", {"prepare-data"}),
        ("train-cls.threads=3", {"prepare-data"}),
        ("seed=1", set()),
        ("evaluate-roar.repeats=3", {"prepare-data", "train-cls", "extract-attribution-maps", "evaluate-perturbation"}),
        ("attribution.methods.gradient.sign=squared", {"prepare-data", "train-cls", "extract-attribution-maps"}),
        ("report.gallery_images=3", ALL - {"report"}),
    ],
)
def test_what_changes_a_result_changes_the_keys_from_there_on(tmp_path: Path, override: str, same: set[str]) -> None:
    before, after = plan(tmp_path), plan(tmp_path, override)
    stages = {job.stage for job in before.jobs}
    assert {stage for stage in stages if keys(before, stage) == keys(after, stage)} == same


def test_a_methods_name_in_the_experiment_is_not_in_its_maps_key(tmp_path: Path) -> None:
    renamed = TEXT.replace("{name: gradient}", "{name: mine, method: gradient}")
    stage = "extract-attribution-maps"
    assert keys(plan(tmp_path), stage) == keys(plan(tmp_path, text=renamed), stage)


def test_editing_ones_own_method_never_reuses_its_old_maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = TEXT.replace("{name: gradient}", "{name: mine, method: edited_method.edges}")
    (tmp_path / "edited_method.py").write_text("def edges(model, images, targets): return images\n")
    before = plan(tmp_path, text=text)
    (tmp_path / "edited_method.py").write_text("def edges(model, images, targets): return -images\n")
    after = plan(tmp_path, text=text)
    both = keys(before, "extract-attribution-maps") & keys(after, "extract-attribution-maps")
    assert len(both) == 3  # those of random


def test_fraction_zero_and_equal_recipes_are_made_once(tmp_path: Path) -> None:
    given = plan(tmp_path)
    assert len(keys(given)) == len(given.jobs)


def test_missing_weights_leave_the_plan_pending(tmp_path: Path) -> None:
    given = plan(tmp_path, "model.weights=nowhere/weights.pth")
    assert given.pending is not None
    assert "model.weights: nowhere/weights.pth: no such file" in given.pending
    with pytest.raises(DataError, match=r"nowhere/weights\.pth"):
        obtain_data(given)


def test_missing_raw_data_leaves_the_plan_pending(tmp_path: Path) -> None:
    text = TEXT.replace("{dataset: digits}", f"{{dataset: image_folder, root: {tmp_path / 'nowhere'}}}")
    given = plan(tmp_path, text=text)
    assert given.pending is not None
    assert "nowhere" in given.pending


def job(key: str, *reads: str) -> Job:
    return Job("s", 1, key, key, {}, {name: ("s", name) for name in reads})


def test_only_what_a_missing_result_needs_is_run() -> None:
    chain = [
        job("data"),
        job("maps", "data"),
        job("cell1", "maps"),
        job("cell2", "maps"),
        job("page", "cell1", "cell2"),
    ]
    assert [j.key for j in needed(chain, set())] == ["data", "maps", "cell1", "cell2", "page"]
    assert [j.key for j in needed(chain, {"data", "maps", "cell1"})] == ["cell2", "page"]
    assert [j.key for j in needed(chain, {"cell1", "cell2"})] == ["page"]
    assert needed(chain, {"page"}) == []


def test_what_a_probe_never_sees_is_not_in_its_key(tmp_path: Path) -> None:
    before, after = plan(tmp_path), plan(tmp_path, "evaluate-roar.fill=zero")
    for probe in (True, False):
        of = [{j.key for j in p.of("evaluate-roar") if j.parameters["probe"] is probe} for p in (before, after)]
        assert (of[0] == of[1]) is probe


def test_order_of_metrics_is_in_no_key(tmp_path: Path) -> None:
    one = plan(tmp_path, "evaluate-perturbation.metrics=[morf, lerf]")
    other = plan(tmp_path, "evaluate-perturbation.metrics=[lerf, morf]")
    assert keys(one, "evaluate-perturbation") == keys(other, "evaluate-perturbation")


def test_a_users_data_set_has_its_files_in_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_data.py").write_text("def read(root, params, seed): ...\n")
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.npy").write_bytes(name[:3].encode())
    text = TEXT.replace("{dataset: digits}", "{dataset: my_data.read, root: one}")
    assert keys(plan(tmp_path, text=text)) != keys(plan(tmp_path, "data.root=other", text=text))
    assert plan(tmp_path, "data.root=nowhere", text=text).pending is not None


OWN_METRIC = "evaluate-perturbation.metrics=[morf, {name: mine, metric: my_metrics.flat%s}]"


def test_editing_ones_own_metric_never_reuses_its_old_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_metrics.py").write_text("def flat(model, images, targets, maps): return maps.std((1, 2))\n")
    before = plan(tmp_path, OWN_METRIC % "")
    (tmp_path / "my_metrics.py").write_text("def flat(model, images, targets, maps): return -maps.std((1, 2))\n")
    after = plan(tmp_path, OWN_METRIC % "")
    assert not keys(before, "evaluate-perturbation") & keys(after, "evaluate-perturbation")
    assert keys(before, "extract-attribution-maps") == keys(after, "extract-attribution-maps")
    assert keys(before) != keys(plan(tmp_path, OWN_METRIC % ", params: {knob: 1}"))


def test_a_metrics_direction_is_in_the_key_of_the_summary_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_metrics.py").write_text("")
    before, after = plan(tmp_path, OWN_METRIC % ""), plan(tmp_path, OWN_METRIC % ", higher_is_better: true")
    assert {stage for stage in ALL if keys(before, stage) != keys(after, stage)} == {"aggregate-scores", "report"}
