"""torchrun: two processes train what one trains, and only the first writes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from roarline.artifacts.classifier import CARD_FILE, CURVE_FILE, WEIGHTS_FILE, ClassifierCard
from roarline.artifacts.explainer import EXPLAINER_CURVE_FILE
from roarline.artifacts.store import Artifact, Store
from roarline.artifacts.tables import read_csv
from roarline.config.load import load_experiment
from roarline.errors import UserInputError
from roarline.execution import together
from roarline.execution.plan import build_plan
from roarline.execution.run_job import run_job
from roarline.execution.together import run_together
from roarline.stages.job import Context, Job

ROOT = Path(__file__).parents[2]
CONFIG = """
name: together
data: {dataset: digits, limit: {train: 67, validation: 20, test: 10}}
model: {arch: tests.execution.test_together.two_convolutions}
train-cls:
  epochs: 3
  batch_size: 16
  gradient_accumulation: 2
  consistency: {weight: 5}
  optimizer: {name: adam, lr: 0.01}
  augmentation: {horizontal_flip: true}
  threads: 1
train-explainer:
  - name: nn_explainer
    params: {network: &network {backbone: light, width: 4, levels: 1}}
    training: {epochs: 2, batch_size: 16}
    threads: 1
  - name: self_explainer
    params: {network: *network}
    training: {epochs: 1, batch_size: 16, precision: bfloat16}
    threads: 1
attribution: {target: label, methods: [{name: gradient}]}
runtime: {device: cpu, workers: 1, artifacts: ARTIFACTS}
"""


def two_convolutions(num_classes: int) -> nn.Module:
    """With batch norm, and no bias before it, whose gradient is rounding that Adam would make a step of."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, num_classes),
    )  # fmt: skip


def written(folder: Path) -> Path:
    config = folder / "config.yaml"
    config.write_text(CONFIG.replace("ARTIFACTS", str(folder / "artifacts")))
    return config


def classifier(config: Path, stages: tuple[str, ...] = ()) -> Artifact:
    """The config's classifier; the stages named are made here, in this process."""
    experiment = load_experiment(config, [])
    store = Store(experiment.runtime.artifacts)
    jobs = {job.stage: job for job in build_plan(experiment).jobs}
    for stage in stages:
        run_job(jobs[stage], Context(store))
    return store.open("train-cls", jobs["train-cls"].key)


def torchrun(config: Path, stage: str) -> str:
    """What two processes say."""
    words = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "roarline", stage)
    done = subprocess.run(
        [sys.executable, *words, str(config)], cwd=ROOT, capture_output=True, text=True, timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_two_processes_train_what_one_does(tmp_path):
    """With batch norm, with consistency, whose loss is differentiated twice, with passes whose gradients wait for the
    step's last, and a last batch of 3 images."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    alone, shared = written(tmp_path / "one"), written(tmp_path / "two")
    one = classifier(alone, ("prepare-data", "train-cls"))
    shutil.copytree(tmp_path / "one" / "artifacts" / "prepare-data", tmp_path / "two" / "artifacts" / "prepare-data")
    assert torchrun(shared, "train-cls").count("train-cls: 1 artifact, 1 job made") == 1  # one of the processes says so
    two = classifier(shared)
    first, second = load_file(one.file(WEIGHTS_FILE)), load_file(two.file(WEIGHTS_FILE))
    for name, weights in first.items():
        torch.testing.assert_close(second[name], weights, rtol=0, atol=1e-4)  # Adam amplifies float32 sums' last bits
    curve, other = read_csv(one.file(CURVE_FILE)), read_csv(two.file(CURVE_FILE))
    for column in ("train_loss", "train_accuracy", "train_consistency", "validation_loss"):
        assert [float(v) for v in other[column]] == pytest.approx([float(v) for v in curve[column]], rel=1e-3)
    cards = [ClassifierCard.read(artifact.file(CARD_FILE)) for artifact in (one, two)]
    assert cards[0] == cards[1]  # with the test accuracy, and the epoch that was kept
    assert two.manifest.provenance["processes"] == 2
    assert "processes" not in one.manifest.provenance


def test_two_processes_train_explainers(tmp_path):
    """Of networks with batch norm, judged by a frozen one."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    alone, shared = written(tmp_path / "one"), written(tmp_path / "two")
    classifier(alone, ("prepare-data", "train-cls"))
    shutil.copytree(tmp_path / "one" / "artifacts", tmp_path / "two" / "artifacts")
    assert torchrun(shared, "train-explainer").count("train-explainer: 2 artifacts, 2 jobs made") == 1
    ones, twos = (Store(load_experiment(config, []).runtime.artifacts) for config in (alone, shared))
    for job in build_plan(load_experiment(alone, [])).of("train-explainer"):
        if job.stage != "train-explainer":
            continue
        run_job(job, Context(ones))
        one, two = (store.open(job.stage, job.key) for store in (ones, twos))
        assert two.manifest.provenance["processes"] == 2
        curve, other = (read_csv(made.file(EXPLAINER_CURVE_FILE)) for made in (one, two))
        losses, others = ([float(value) for value in rows["train_loss"]] for rows in (curve, other))
        assert others == pytest.approx(losses, rel=1e-4)  # a bfloat16 network's, whose parts round alike, too


def test_what_somebody_else_made_meanwhile_is_not_followed(tmp_path, monkeypatch):
    """The others would wait for a training that the first process never begins."""
    followed, told = [], []
    monkeypatch.setattr(together, "run_job", lambda job, context, on_begin: False)
    monkeypatch.setattr(together, "follow_job", lambda job, context: followed.append(job))
    monkeypatch.setattr(together.distributed, "broadcast_object_list", lambda values, src: told.append(list(values)))
    job, context = Job("train-cls", 1, "a" * 64, "", {}, {}), Context(Store(tmp_path))
    assert together._lead(job, context) is False
    assert told == [[False]]
    monkeypatch.setattr(together, "run_job", lambda job, context, on_begin: on_begin() or True)
    assert together._lead(job, context) is True
    assert told == [[False], [True]]
    for hears in (False, True):

        def hear(values, src, hears=hears):
            values[0] = hears

        monkeypatch.setattr(together.distributed, "broadcast_object_list", hear)
        assert together._follow(job, context) is False
        assert followed == [job] * hears


def test_a_stage_that_trains_nothing_is_refused(tmp_path):
    experiment = load_experiment(written(tmp_path), [])
    with pytest.raises(
        UserInputError, match=r"extract-attribution-maps can't be shared .* only train-cls and train-explainer"
    ):
        run_together(build_plan(experiment), Store(tmp_path), "extract-attribution-maps")
