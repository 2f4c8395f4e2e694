"""Cells made as one stack: each an artifact of its own, as `single` would make it, and its own failure."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from roarline.artifacts.retraining import CELL_FILE, RetrainedCell, read_correct
from roarline.artifacts.store import Artifact
from roarline.artifacts.tables import read_csv
from roarline.errors import ArtifactError, ModelError, RoarlineError
from roarline.execution.local import LocalExecutor
from roarline.execution.run_job import run_job, run_stack
from roarline.models.load import load_classifier
from roarline.stages import evaluate_roar, stacked_cells
from roarline.stages.job import Job
from tests.stages.toy_retraining import TRAINING, Toy, new_toy, patch_maps, random_maps

STACKED = {"engine": "stacked"}
# float32 sums in another order, over 12 steps of Adam.
CLOSE = {"rel": 0.02, "abs": 0.01}


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    """Each test starts as a fresh worker process does."""
    monkeypatch.setattr(evaluate_roar, "_images", type(evaluate_roar._images)())
    monkeypatch.setattr(evaluate_roar, "_ranks", type(evaluate_roar._ranks)())


@pytest.fixture
def toy(tmp_path) -> Toy:
    return new_toy(tmp_path / "artifacts")


def grid(toy: Toy, **changes: object) -> list[Job]:
    """A reference, ROAR and KAR, another repeat, a probe."""
    maps = toy.publish_maps("patch")
    return [
        toy.cell(**changes),
        toy.cell(maps, **changes),
        toy.cell(maps, mode="kar", removed_fraction=0.5, **changes),
        toy.cell(maps, repeat=1, **changes),
        toy.cell(maps, probe=True, **changes),
    ]


def nan_maps(content, rows):
    maps = random_maps(content, rows)
    maps[2, 0, 0] = np.nan
    return maps


def made(toy: Toy, jobs: list[Job]) -> list[Artifact]:
    outcomes = run_stack(jobs, toy.context)
    assert outcomes == {job.key: True for job in jobs}
    return [toy.store.open(job.stage, job.key) for job in jobs]


@pytest.mark.parametrize(
    "training",
    [
        {},
        {"augmentation": {"crop_padding_px": 1, "horizontal_flip": True}, "channels_last": True},
        {"early_stopping": {"patience": 1}, "gradient_clip_norm": 0.5},
    ],
)
def test_each_cell_of_a_stack_is_what_it_would_be_alone(toy, training):
    training = {"training": {**TRAINING, **training}}
    stacked = made(toy, grid(toy, **STACKED, **training))
    for artifact, job in zip(stacked, grid(toy, **training), strict=True):
        alone = toy.run(job)
        assert set(artifact.manifest.files) == set(alone.manifest.files)
        ours, theirs = (RetrainedCell.read(one.file(CELL_FILE)) for one in (artifact, alone))
        assert (ours.place, ours.removed_pixels, ours.n_test) == (theirs.place, theirs.removed_pixels, theirs.n_test)
        curve, expected = (read_csv(one.file("curve.csv")) for one in (artifact, alone))
        assert curve["learning_rate"] == expected["learning_rate"]
        assert [float(loss) for loss in curve["train_loss"]] == pytest.approx(
            [float(loss) for loss in expected["train_loss"]], **CLOSE
        )
        ids, correct = read_correct(artifact.file("predictions.parquet"))
        expected_ids, expected_correct = read_correct(alone.file("predictions.parquet"))
        assert ids == expected_ids
        assert np.abs(correct - expected_correct).sum() <= 1  # one image may lie on the border between two classes
        assert not artifact.problems()


def test_engine_and_companions_are_provenance_and_the_time_is_shared(toy):
    jobs = grid(toy, **STACKED)
    for artifact in made(toy, jobs):
        provenance = artifact.manifest.provenance
        assert provenance["engine"] == "stacked"
        assert provenance["stack"] == [job.key[:16] for job in jobs]
        assert provenance["duration_s"] > 0
    alone = toy.run(toy.cell(repeat=7, **STACKED))
    assert alone.manifest.provenance["stack"] == [alone.manifest.key[:16]]


def test_cells_that_exist_are_left_as_they_are(toy):
    jobs = grid(toy, **STACKED)
    before = toy.run(jobs[1]).digest
    outcomes = run_stack(jobs, toy.context)
    assert outcomes == {job.key: job is not jobs[1] for job in jobs}
    assert toy.store.open(jobs[1].stage, jobs[1].key).digest == before
    assert run_stack(jobs, toy.context) == {job.key: False for job in jobs}


def test_a_cell_with_damaged_maps_fails_alone(toy):
    broken = toy.cell(toy.publish_maps("broken", nan_maps), **STACKED)
    jobs = [*grid(toy, **STACKED)[:2], broken]
    outcomes = run_stack(jobs, toy.context)
    assert [outcomes[job.key] for job in jobs[:2]] == [True, True]
    assert isinstance(outcomes[broken.key], ArtifactError)
    assert not toy.store.exists(broken.stage, broken.key)
    assert not toy.store.is_running(broken.stage, broken.key)
    with pytest.raises(ArtifactError, match="NaN"):
        run_job(broken, toy.context)


def test_a_disk_that_fills_up_while_one_is_published_fails_that_one(toy, monkeypatch):
    jobs = grid(toy, **STACKED)[:3]
    publish = type(toy.store)._publish

    def full(self, writer, final, stage, version, key, *rest):
        if key == jobs[1].key:
            raise OSError(28, "No space left on device")
        publish(self, writer, final, stage, version, key, *rest)

    monkeypatch.setattr(type(toy.store), "_publish", full)
    outcomes = run_stack(jobs, toy.context)
    assert "disk is full" in str(outcomes[jobs[1].key])
    assert [outcomes[job.key] for job in (jobs[0], jobs[2])] == [True, True]


def test_a_network_that_can_not_be_stacked_is_said_once_for_all(toy):
    model = {"arch": "tests.models.test_stacking.Concatenating", "params": {}}
    with pytest.raises(ModelError, match="engine: single"):
        run_stack([toy.cell(repeat=repeat, model=model, **STACKED) for repeat in range(2)], toy.context)


@pytest.mark.parametrize(("cells", "expected"), [(1, [1, 1, 1, 1, 1]), (2, [2, 2, 2, 2, 1])])
def test_no_more_cells_share_a_stack_than_fit_the_device(toy, monkeypatch, cells, expected):
    image_bytes = 110 * 3 * 6 * 6 * 4  # of all splits, as float32
    monkeypatch.setattr(stacked_cells, "resident_bytes", lambda _: cells * image_bytes + 1)
    artifacts = made(toy, grid(toy, **STACKED))
    assert [len(artifact.manifest.provenance["stack"]) for artifact in artifacts] == expected


def test_a_recursive_cell_leaves_its_own_weights_for_the_next(toy):
    maps = toy.publish_maps("patch", patch_maps)
    recursive = {"mode": "recursive_roar", "removed_fraction": 0.3}
    ours = made(toy, [toy.cell(maps, repeat=repeat, **recursive, **STACKED) for repeat in range(3)])
    for repeat, artifact in enumerate(ours):
        alone = toy.run(toy.cell(maps, repeat=repeat, **recursive))
        stacked, single = (load_classifier(one)[0].state_dict() for one in (artifact, alone))
        assert stacked.keys() == single.keys()
        for name, value in stacked.items():
            assert value.float().numpy() == pytest.approx(single[name].float().numpy(), rel=0.05, abs=0.02)
        assert artifact.file("removed.h5").stat().st_size == alone.file("removed.h5").stat().st_size


class Listener:
    """Notes what an executor says."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.kinds: dict[str, str] = {}

    def started(self, job: Job) -> None:
        self.begun.append(job.key)

    def said(self, job: Job, message: object) -> None: ...

    def ended(self, job: Job, message) -> None:
        self.kinds[job.key] = message.kind


def test_the_local_executor_gives_a_worker_a_stack_and_hears_of_each_cell(toy):
    jobs = [*grid(toy, **STACKED), toy.cell(toy.publish_maps("broken", nan_maps), **STACKED)]
    jobs = [replace(job, local={"stack": 4}) for job in jobs]
    done = {key for job in jobs for stage, key in job.inputs.values()}
    listener = Listener()
    failed = LocalExecutor(toy.store.root, ["cpu"], cpu_threads=1).run(jobs, done, listener)
    assert set(failed) == {jobs[-1].key}
    assert "NaN" in toy.store.failure(jobs[-1].stage, jobs[-1].key)
    assert sorted(listener.begun) == sorted(job.key for job in jobs)
    assert listener.kinds == {job.key: "failed" if job is jobs[-1] else "made" for job in jobs}
    stacks = [len(toy.store.open(job.stage, job.key).manifest.provenance["stack"]) for job in jobs[:-1]]
    assert stacks == [4, 4, 4, 4, 1]


def test_a_defect_of_a_stack_is_every_cells_failure(toy, monkeypatch):
    def broken(*_: object, **__: object) -> None:
        raise RoarlineError("broken")

    monkeypatch.setattr(stacked_cells, "fit_stack", broken)
    jobs = grid(toy, **STACKED)
    with pytest.raises(RoarlineError, match="broken"):
        run_stack(jobs, toy.context)
    assert not any(toy.store.exists(job.stage, job.key) or toy.store.is_running(job.stage, job.key) for job in jobs)
