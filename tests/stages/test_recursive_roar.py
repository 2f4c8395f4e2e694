"""Recursive ROAR: a cell goes on where the former one ended, by maps of the network that was retrained in between."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from roarline.artifacts.keys import artifact_key
from roarline.artifacts.maps import MAPS_FILE, MapsFile
from roarline.artifacts.removed import REMOVED_FILE, RemovedFile
from roarline.artifacts.retraining import CELL_FILE, PREDICTIONS_FILE, RetrainedCell
from roarline.artifacts.store import Artifact
from roarline.artifacts.tables import read_parquet
from roarline.models.load import load_classifier
from roarline.stages import evaluate_roar
from roarline.stages.job import Job
from roarline.training import checkpoint
from tests.stages.toy_retraining import SIDE, TRAINING, Toy, new_toy, random_maps
from tests.stages.watching_network import MODEL, SEEN

PIXELS = SIDE**2
RECURSIVE = {"mode": "recursive_roar", "removed_fraction": 4 / PIXELS}


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    """Each test starts as a fresh worker process does."""
    monkeypatch.setattr(evaluate_roar, "_images", type(evaluate_roar._images)(2**20))
    monkeypatch.setattr(evaluate_roar, "_ranks", type(evaluate_roar._ranks)(2**20))
    SEEN.clear()


@pytest.fixture
def toy(tmp_path) -> Toy:
    return new_toy(tmp_path / "artifacts")


def reading(job: Job, **artifacts: Artifact) -> Job:
    """The job with more inputs."""
    inputs = job.inputs | {role: (a.manifest.stage, a.manifest.key) for role, a in artifacts.items()}
    key = artifact_key(job.stage, 1, job.parameters, {role: key for role, (_, key) in inputs.items()})
    return replace(job, inputs=inputs, key=key)


def maps_by(toy: Toy, cell: Artifact, *, fill: str = "mean", method: str = "input_x_gradient") -> dict[str, str]:
    """Maps of every split that a cell's network makes, as the plan asks for them; split to key."""
    keys = {}
    for split in ("train", "validation", "test"):
        parameters: dict[str, Any] = {
            "method": method, "params": {}, "batched": True, "channels": "sum", "split": split, "target": "predicted",
            "dtype": "float32", "precision": "float32", "seed": 0, "threads": 1, "removed_fill": fill,
        }  # fmt: skip
        inputs = {
            "dataset": ("prepare-data", toy.dataset_key),
            "classifier": (cell.manifest.stage, cell.manifest.key),
        }
        stage = "extract-attribution-maps"
        key = artifact_key(stage, 1, parameters, {role: key for role, (_, key) in inputs.items()})
        keys[split] = toy.run(Job(stage, 1, key, "toy maps", parameters, inputs)).manifest.key
    return keys


def removed_of(artifact: Artifact, ids: list[str]) -> np.ndarray:
    with RemovedFile(artifact.file(REMOVED_FILE)) as file:
        return file.masks(ids)


def test_the_first_cell_is_plain_roars_and_keeps_its_network_and_what_it_took(toy):
    maps = toy.publish_maps("patch")
    first, plain = toy.run(toy.cell(maps, **RECURSIVE)), toy.run(toy.cell(maps))
    assert read_parquet(first.file(PREDICTIONS_FILE)) == read_parquet(plain.file(PREDICTIONS_FILE))
    assert REMOVED_FILE not in plain.manifest.files
    ids, labels = toy.content.sample_ids, toy.content.labels
    expected = np.zeros((len(ids), SIDE, SIDE), dtype=bool)
    expected[labels == 0, :2, :2] = True
    expected[labels == 1, -2:, -2:] = True
    np.testing.assert_array_equal(removed_of(first, ids), expected)
    _, card = load_classifier(first)
    cell = RetrainedCell.read(first.file(CELL_FILE))
    assert (card.test_accuracy, card.best_epoch) == (cell.test_accuracy, cell.best_epoch)


def test_a_next_cell_removes_what_was_removed_and_then_by_its_own_maps(toy):
    first = toy.run(toy.cell(toy.publish_maps("patch"), **RECURSIVE))
    maps = toy.publish_maps("noise", random_maps)
    second = toy.run(reading(toy.cell(maps, **RECURSIVE | {"removed_fraction": 10 / PIXELS}), former=first))
    ids = toy.content.sample_ids
    before, after = removed_of(first, ids), removed_of(second, ids)
    assert not (before & ~after).any()
    assert (after.reshape(len(ids), -1).sum(1) == 10).all()
    order = np.argsort(-random_maps(toy.content, toy.rows("test")).reshape(-1, PIXELS), axis=1)
    for row, pixels in zip(toy.rows("test"), order, strict=True):
        left = [p for p in pixels if not before[row].flat[p]][:6]
        assert set(np.flatnonzero(after[row] & ~before[row])) == set(left)


@pytest.mark.parametrize("fill", ["mean", "zero", "blur"])
def test_maps_are_made_of_the_images_that_the_network_was_tested_on(toy, fill):
    """The logits in the maps' file are those of the test: it saw the same pixels."""
    cell = toy.run(
        toy.cell(toy.publish_maps("noise", random_maps), **RECURSIVE | {"removed_fraction": 0.5, "fill": fill})
    )
    with MapsFile(
        toy.store.open("extract-attribution-maps", maps_by(toy, cell, fill=fill)["test"]).file(MAPS_FILE)
    ) as maps:
        predicted = dict(zip(maps.sample_ids, maps.logits.argmax(1).tolist(), strict=True))
        values = dict(zip(maps.sample_ids, maps.maps(range(len(maps))), strict=True))
    rows = read_parquet(cell.file(PREDICTIONS_FILE))
    assert predicted == dict(zip(rows["sample_id"], rows["predicted"], strict=True))
    if fill == "mean":  # input × gradient is 0 where the normalised input is: exactly at the removed pixels
        ids = rows["sample_id"]
        np.testing.assert_array_equal(np.stack([values[i] for i in ids]) == 0, removed_of(cell, ids))


def test_training_sees_every_pixel_that_was_left_and_no_other(toy):
    black = {"fill": "zero", "model": MODEL, "training": {**TRAINING, "epochs": 1}}
    first = toy.run(toy.cell(toy.publish_maps("patch"), **RECURSIVE | black))
    SEEN.clear()
    maps = toy.publish_maps("noise", random_maps)
    second = toy.run(reading(toy.cell(maps, **RECURSIVE | black | {"removed_fraction": 0.5}), former=first))
    test = SEEN.evaluated_on[-1]
    mean, std = float(toy.content.mean[0]), float(toy.content.std[0])
    black_value = np.float32(-mean / std)
    ids = [toy.content.sample_ids[row] for row in toy.rows("test")]
    np.testing.assert_array_equal(np.isclose(test[:, 0].numpy(), black_value), removed_of(second, ids))


def test_the_probe_sees_the_masks_of_its_cell(toy):
    cell = toy.run(toy.cell(toy.publish_maps("patch"), **RECURSIVE))
    job = toy.cell(None, **RECURSIVE | {"probe": True, "model": MODEL, "compat": "corrected"})
    SEEN.clear()
    probe = toy.run(reading(job, cell=cell))
    masks = removed_of(cell, [toy.content.sample_ids[row] for row in toy.rows("test")])
    np.testing.assert_array_equal((SEEN.evaluated_on[-1][:, 0] > 0).numpy(), masks)
    assert REMOVED_FILE not in probe.manifest.files


def test_everything_removed_leaves_nothing_to_see(toy):
    job = toy.cell(None, mode="everything_removed", removed_fraction=1.0, fill="mean", model=MODEL)
    toy.run(job)
    assert not torch.cat(SEEN.evaluated_on[1:]).any()


def test_recursion_finds_the_second_of_two_equal_clues_where_plain_roar_does_not(tmp_path):
    """Both corners tell the class. Maps of a network that looks at one corner leave plain ROAR blind for the other."""
    toy = new_toy(tmp_path, counts={"train": 150, "validation": 50, "test": 100})
    labels = toy.content.labels
    images = np.random.default_rng(0).integers(60, 100, toy.content.images.shape).astype(np.uint8)
    images[labels == 0, :, :2, :2] = images[labels == 0, :, -2:, -2:] = 250
    images[labels == 1, :, :2, :2] = images[labels == 1, :, -2:, -2:] = 5
    toy = Toy(type(toy.store)(tmp_path / "two clues"), replace(toy.content, images=images))

    def one_corner(content: Any, rows: np.ndarray) -> np.ndarray:
        maps = np.random.default_rng(1).random((len(rows), SIDE, SIDE)).astype(np.float32)
        maps[:, :2, :2] += 2
        maps[:, -2:, -2:] -= 2  # in no case before any other pixel
        return maps

    training = {"training": {**TRAINING, "epochs": 8}}
    maps = toy.publish_maps("one corner", one_corner)
    first = toy.run(toy.cell(maps, **RECURSIVE | training))
    assert RetrainedCell.read(first.file(CELL_FILE)).test_accuracy > 0.95
    share = {"removed_fraction": 20 / PIXELS}
    absolute = {"sign": "absolute"}
    plain = toy.run(toy.cell(maps, **training | share))
    second = toy.run(reading(toy.cell(maps_by(toy, first), **RECURSIVE | training | share | absolute), former=first))
    accuracies = [RetrainedCell.read(a.file(CELL_FILE)).test_accuracy for a in (plain, second)]
    assert accuracies[0] > 0.95
    assert accuracies[1] < accuracies[0] - 0.1


def test_a_cell_killed_in_its_training_ends_with_the_digest_of_one_that_was_not(tmp_path, monkeypatch):
    undisturbed = new_toy(tmp_path / "undisturbed")
    expected = undisturbed.run(undisturbed.cell(undisturbed.publish_maps("patch"), **RECURSIVE)).digest
    monkeypatch.setattr(checkpoint.Checkpoint, "due", True)
    toy = new_toy(tmp_path / "killed")
    job = toy.cell(toy.publish_maps("patch"), **RECURSIVE)

    def kill(done: int, total: int, unit: str) -> None:
        if done >= 5:
            raise KeyboardInterrupt

    toy.context.progress = kill
    with pytest.raises(KeyboardInterrupt):
        toy.run(job)
    seen: list[int] = []
    toy.context.progress = lambda done, total, unit: seen.append(done)
    assert toy.run(job).digest == expected
    assert seen[0] > 4  # 4 steps an epoch: the first epoch was not trained again


@pytest.mark.parametrize("limit", [30_000, 2_000])
def test_data_that_does_not_fit_gives_the_same_digest(tmp_path, monkeypatch, limit):
    from roarline.stages import splits

    digests = []
    for name, bytes_ in (("resident", 2**30), ("not", limit)):
        monkeypatch.setattr(splits, "_RESIDENT_BYTES_CPU", bytes_)
        toy = new_toy(tmp_path / name, channels=3)
        first = toy.run(toy.cell(toy.publish_maps("patch"), **RECURSIVE))
        maps = toy.publish_maps("noise", random_maps)
        digests.append(toy.run(reading(toy.cell(maps, **RECURSIVE | {"removed_fraction": 0.5}), former=first)).digest)
    assert digests[0] == digests[1]
