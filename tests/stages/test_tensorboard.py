"""Curves for TensorBoard: asked for, named, and a clear word where the package is missing."""

import sys
import types

import pytest

from roarline.errors import UserInputError
from roarline.stages.tensorboard import told_to_tensorboard
from roarline.training.loop import told_nobody
from tests.stages.toy_retraining import new_toy


class Recorded:
    """Stands for torch's SummaryWriter."""

    made: list["Recorded"] = []  # noqa: RUF012

    def __init__(self, folder: str) -> None:
        self.folder, self.scalars, self.closed = folder, {}, False
        self.made.append(self)

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self.scalars[tag, step] = value

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def recorded(monkeypatch):
    Recorded.made.clear()
    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Recorded
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    return Recorded.made


def test_a_training_writes_each_number_of_each_epoch_and_the_artifact_stays_the_same(tmp_path, recorded):
    plain, watched = new_toy(tmp_path / "plain"), new_toy(tmp_path / "watched")
    first = plain.run(plain.classifier())
    assert not recorded
    second = watched.run(watched.classifier(local={"tensorboard": str(tmp_path / "curves")}))
    assert first.digest == second.digest
    (writer,) = recorded
    assert writer.closed
    assert writer.folder.startswith(str(tmp_path / "curves"))
    tags = {tag for tag, _ in writer.scalars}
    assert tags == {"learning_rate", "loss/train", "loss/validation", "accuracy/train", "accuracy/validation"}
    assert {step for _, step in writer.scalars} == {1, 2, 3}


def test_without_the_package_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    toy = new_toy(tmp_path)
    with pytest.raises(UserInputError, match=r"pip install 'roarline\[tensorboard\]'"):
        toy.run(toy.classifier(local={"tensorboard": str(tmp_path)}))


def test_nobody_is_told_where_nobody_asked(tmp_path):
    with told_to_tensorboard(new_toy(tmp_path).classifier()) as told:
        assert told is told_nobody
