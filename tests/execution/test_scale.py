"""What a large experiment costs the program itself: planning it, looking at it, finding it finished."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from roarline.artifacts.comparison_tables import COMPARISON_TABLES
from roarline.artifacts.maps import MAPS_FILE
from roarline.artifacts.store import Store
from roarline.execution.plan import Plan
from roarline.execution.prepared import load
from roarline.stages.job import Job

CONFIG = """\
name: large
data: {dataset: digits, validation_fraction: 0.2}
model: {arch: small_cnn, params: {width: 8}}
train-cls: {epochs: 2, batch_size: 32, threads: 1}
attribution:
  threads: 1
  baselines: []
  methods:
    - {name: integrated_gradients, params: {steps: 4}}
    - {name: gradcam, params: {layer: conv2}}
    - {name: sobel}
    - {name: gradient}
    - {name: random}
evaluate-roar:
  fractions: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95]
  modes: [roar, kar]
  repeats: 10
  probe_repeats: 0
evaluate-perturbation: {metrics: [morf, lerf], steps: 4, threads: 1}
"""
CELLS_OF_A_REPEAT = 5 * 10 * 2 + 1  # and the reference


@dataclass
class Experiment:
    """The config in a folder of its own."""

    folder: Path

    def cpu_seconds(self, *words: str) -> tuple[float, str]:
        """CPU time of one call of the program, and what it printed. Waiting for a busy machine doesn't count."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, "-m", "roarline", words[0], "large.yaml", *words[1:]],
            cwd=self.folder, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.returncode == 0, done.stderr
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout

    def plan(self, *overrides: str) -> tuple[Plan, Store]:
        """What the program plans, and its store."""
        plan, store = load(self.folder / "large.yaml", overrides)
        return plan, Store(self.folder / store.root)


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    """An experiment of 1,010 cells; nothing of it is made."""
    (tmp_path / "large.yaml").write_text(CONFIG)
    return Experiment(tmp_path)


def publish(store: Store, job: Job) -> None:
    """An artifact that is all manifest, but for what is shown of it."""
    with store.writer(job.stage, job.stage_version, job.key, job.label, job.parameters, {}) as writer:
        assert writer is not None
        for name in ("scores.csv", "index.html", *(f"{table}.csv" for table in COMPARISON_TABLES)):
            (writer.out / name).write_text("dataset,model,method,metric,setting\n")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """The same, as it looks when everything is made: folders with manifests, maps that nobody could read."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "large.yaml").write_text(CONFIG)
    made = Experiment(folder)
    plan, store = made.plan()
    for job in plan.jobs:
        if job.stage in ("aggregate-scores", "report"):
            publish(store, job)
            continue
        path = store.path(job.stage, job.key)
        path.mkdir(parents=True)
        (path / "manifest.json").write_text(json.dumps({"key": job.key}))
        (path / MAPS_FILE).write_bytes(b"no HDF5 at all")
    return made


def test_planning_ten_thousand_cells_takes_less_than_five_seconds(experiment: Experiment) -> None:
    seconds, said = experiment.cpu_seconds("plan", "--set", "evaluate-roar.repeats=100")
    assert f"{100 * CELLS_OF_A_REPEAT} evaluate-roar" in said
    assert seconds < 5.0


def test_a_finished_experiment_of_a_thousand_cells_ends_in_three_seconds(finished: Experiment) -> None:
    finished.cpu_seconds("run")
    seconds, said = finished.cpu_seconds("run")
    assert f"{10 * CELLS_OF_A_REPEAT + 24} jobs" in said
    assert "cached (100%)" in said
    assert seconds < 3.0


def test_status_reads_no_maps_and_no_manifests(finished: Experiment) -> None:
    seconds, said = finished.cpu_seconds("status")
    assert f"{10 * CELLS_OF_A_REPEAT} done" in said
    assert seconds < 3.0
    opened = finished.folder / "opened.txt"
    code = (
        "import sys\n"
        "opened = []\n"
        "sys.addaudithook(lambda event, given: opened.append(str(given[0])) if event == 'open' else None)\n"
        "from roarline.cli import run_command\n"
        "assert run_command(['status', 'large.yaml']) == 0\n"
        "assert not {'torch', 'h5py'} & set(sys.modules), 'imports more than it needs'\n"
        "open('opened.txt', 'w').write('\\n'.join(opened))\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=finished.folder, check=True, timeout=120, capture_output=True)
    names = [Path(line).name for line in opened.read_text().splitlines() if "artifacts/" in line]
    assert [name for name in names if name.endswith((".h5", ".json"))] == []
