"""A checkpoint is whole or not there, and opens without running anything."""

import pickle
from pathlib import Path

import pytest
import torch

from roarline.errors import ArtifactError
from roarline.training.checkpoint import Checkpoint

CPU = torch.device("cpu")


def test_round_trip(tmp_path):
    state = {"epoch": 3, "model": {"w": torch.arange(3.0)}, "curve": [{"loss": 0.1, "rate": None}]}
    Checkpoint(tmp_path).save(state)
    loaded = Checkpoint(tmp_path).load(CPU)
    assert loaded["epoch"] == 3
    assert torch.equal(loaded["model"]["w"], state["model"]["w"])
    assert loaded["curve"] == state["curve"]


def test_nothing_saved_is_none(tmp_path):
    assert Checkpoint(tmp_path).load(CPU) is None


def test_a_half_written_file_is_not_taken_for_one(tmp_path):
    (tmp_path / ".training.pt.abc.partial").write_bytes(b"half")
    assert Checkpoint(tmp_path).load(CPU) is None


def test_saves_are_due_by_the_clock(tmp_path):
    assert Checkpoint(tmp_path, every_s=0).due
    assert not Checkpoint(tmp_path, every_s=60).due


@pytest.mark.parametrize("damage", ["truncated", "pickled code", "another schema"])
def test_damage_is_named_with_the_file(tmp_path, damage):
    checkpoint = Checkpoint(tmp_path)
    checkpoint.save({"epoch": 1, "model": torch.zeros(1000)})
    if damage == "truncated":
        checkpoint.path.write_bytes(checkpoint.path.read_bytes()[:200])
    elif damage == "pickled code":
        torch.save({"schema_version": 2, "run": Path("/")}, checkpoint.path, pickle_module=pickle)
    else:
        torch.save({"schema_version": 99}, checkpoint.path)
    with pytest.raises(ArtifactError, match=r"training\.pt.*delete it and run again"):
        checkpoint.load(CPU)
