"""From nothing; again, with everything cached; with another number of workers; in parts."""

from __future__ import annotations

import html
import json
import resource
import shutil
from pathlib import Path

from roarline.artifacts.tables import read_csv
from tests.end_to_end.conftest import TINY, Program


def test_run_ends_with_leaderboard_and_report(program: Program, undisturbed: Program) -> None:
    said = undisturbed("run", "tiny.yaml")
    assert "integrated_gradients" in said
    assert "report: artifacts/experiments/tiny/report/index.html" in said
    view = undisturbed.folder / "artifacts" / "experiments" / "tiny"
    assert (view / "report" / "index.html").stat().st_size > 10_000
    assert (view / "scores.csv").read_text().startswith("dataset,model,method,metric,setting,value")
    jobs = json.loads((view / "experiment.json").read_text())["jobs"]
    assert all(job["done"] for job in jobs)


def test_cached_run_takes_under_two_seconds_and_is_all_cached(undisturbed: Program) -> None:
    """In processor time, which other work on the machine moves little; a run that computes nothing hardly waits."""
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        said = undisturbed("run", "tiny.yaml")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert "cached (100%), 0 made" in said
    assert min(times) < 2.0


def test_every_artifact_verifies(undisturbed: Program) -> None:
    assert " artifacts good" in undisturbed("verify")


def test_two_workers_and_shards_give_the_same_digests_as_one(program: Program, undisturbed: Program) -> None:
    program("run", program.config(), "--set", "runtime.workers=2", "--set", "runtime.shards=2")
    assert program.digests() == undisturbed.digests()


def test_two_workers_train_stacks_of_cells_under_the_default_engine(program: Program, undisturbed: Program) -> None:
    shutil.copytree(undisturbed.folder, program.folder, dirs_exist_ok=True)
    # Alone: retraining, so that its cells are all that two workers have to share.
    out = program("evaluate-roar", "tiny.yaml", "--set", "evaluate-roar.engine=auto", "--set", "runtime.workers=2")
    cells = [a for a in program.store.artifacts() if a.manifest.parameters.get("engine") == "stacked"]
    assert len(cells) == 2 + 3 * 2 + 3, out  # references, grid, probes: each an artifact of its own
    assert "defect" not in out
    assert "failed" not in out.lower()


def test_changed_fractions_recompute_only_what_depends_on_them(program: Program, undisturbed: Program) -> None:
    shutil.copytree(undisturbed.folder, program.folder, dirs_exist_ok=True)
    before = {a.path: a.path.stat().st_mtime_ns for a in program.store.artifacts()}
    program("run", "tiny.yaml", "--set", "evaluate-roar.fractions=[0.5, 0.75]")
    made = [a for a in program.store.artifacts() if a.path not in before]
    assert {a.manifest.stage for a in made} == {"evaluate-roar", "aggregate-scores", "report"}
    assert len([a for a in made if a.manifest.stage == "evaluate-roar"]) == 3 * 2 + 3  # grid and probe at 0.75
    assert all(path.stat().st_mtime_ns == mtime for path, mtime in before.items())


def test_stage_by_stage_gives_the_same_digests(program: Program, undisturbed: Program) -> None:
    config = program.config()
    assert "run first: prepare-data" in program("train-cls", config, "--only", code=2)
    for stage in (
        "prepare-data",
        "train-cls",
        "extract-attribution-maps",
        "evaluate-roar",
        "evaluate-perturbation",
        "aggregate-scores",
        "report",
    ):
        program(stage, config, "--only")
    assert program.digests() == undisturbed.digests()


def test_a_stage_runs_what_it_needs(program: Program) -> None:
    program("train-cls", program.config())
    assert {a.manifest.stage for a in program.store.artifacts()} == {"prepare-data", "train-cls"}


def test_plan_needs_no_data_and_says_what_is_cached(program: Program, undisturbed: Program) -> None:
    said = undisturbed("plan", "tiny.yaml")
    assert "to do" not in said.split("\n\n")[0]
    assert "0 to do" in said
    text = TINY.replace("dataset: digits", "dataset: image_folder, root: nowhere")
    assert "pending: the raw data of 'image_folder' is not at 'nowhere'" in program("plan", program.config(text))


def test_status_says_done_and_waiting(program: Program, undisturbed: Program) -> None:
    assert "running" not in undisturbed("status", "tiny.yaml")
    config = program.config()
    program("prepare-data", config)
    said = program("status", config)
    assert "prepare-data               1 done" in said
    assert "waiting on train-cls" in said


def test_gc_drops_only_what_no_experiment_refers_to(program: Program) -> None:
    config = program.config()
    program("train-cls", config)
    program("train-cls", config, "--set", "train-cls.epochs=1")
    said = program("gc", "--yes")
    assert "train-cls" in said
    kept = [a.manifest for a in program.store.artifacts()]
    assert sorted(m.stage for m in kept) == ["prepare-data", "train-cls"]
    trained = next(m for m in kept if m.stage == "train-cls")
    assert trained.parameters["training"]["epochs"] == 1
    assert "nothing to drop" in program("gc", "--yes")


def test_gc_without_yes_asks_and_drops_nothing(program: Program) -> None:
    program("train-cls", program.config())
    shutil.rmtree(program.folder / "artifacts" / "experiments")
    process = program.start("gc")
    process.communicate(timeout=60)
    assert len(list(program.store.artifacts())) == 2


def test_own_methods_in_both_call_styles_and_own_metrics(program: Program) -> None:
    (program.folder / "my_methods.py").write_text(
        "import numpy as np\n"
        "def batched(model, images, targets, power=1.0):\n"
        "    return (images ** 2).sum(1) ** power\n"
        "def single(model, image, label, gain=1.0):\n"
        "    assert image.shape[0] == 1\n"
        "    return np.asarray(image[0].abs() * gain)\n"
    )
    (program.folder / "my_metrics.py").write_text(
        "def spread(model, images, targets, maps, scale=1.0):\n"
        "    return scale * (maps.amax((1, 2)) - maps.amin((1, 2)))\n"
        "def logit(model, images, targets, maps):\n"
        "    return model(images).gather(1, targets[:, None])[:, 0]\n"
    )
    text = TINY.replace(
        "    - {name: random}\n",
        "    - {name: random}\n"
        "    - {name: mine, method: my_methods.batched, params: {power: 0.5}}\n"
        "    - {name: old, method: my_methods.single, batched: false, params: {gain: 2.0}}\n",
    ).replace("evaluate-roar: {", "evaluate-roar: {probe_repeats: 0, ")
    spread = "{name: spread, metric: my_metrics.spread, params: {scale: 10}, higher_is_better: true, unit: px}"
    text = text.replace("metrics: [morf, ", f"metrics: [my_metrics.logit, {spread}, morf, ")
    said = program("run", program.config(text))
    assert "mine" in said
    assert "old" in said
    assert "spread ↑" in said
    rows = read_csv(program.folder / "artifacts" / "experiments" / "tiny" / "scores.csv")
    ranks = dict(zip(zip(rows["metric"], rows["method"], strict=True), rows["rank"], strict=True))
    assert all(ranks["spread", method].isdigit() for method in ("mine", "old", "random"))
    assert {ranks["my_metrics.logit", method] for method in ("mine", "old", "random")} == {""}  # no direction given
    page = (program.folder / "artifacts" / "experiments" / "tiny" / "report" / "index.html").read_text()
    assert "this experiment's own metric, my_metrics.spread" in html.unescape(page)
    assert "methods are not ranked by it" in page


def test_list_shows_every_table(program: Program) -> None:
    assert "gradcam" in program("list", "methods")
    assert "lower is better" in program("list", "metrics")
    assert "segmentation" in program("list", "datasets")
    assert "resnet8" in program("list", "models")
    assert "did you mean 'methods'" in program("list", "method", code=2)


def test_version_and_help(program: Program) -> None:
    assert program("--version").startswith("roarline ")
    assert "extract-attribution-maps" in program("--help")


def test_shipped_configs_are_valid(program: Program) -> None:
    for path in sorted((Path(__file__).parents[2] / "configs").glob("*.yaml")):
        assert "jobs" in program("plan", str(path))
