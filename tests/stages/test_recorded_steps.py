"""Whose steps may be recorded: networks that are known to be the same at each step, where nobody switched it off."""

import pytest

from roarline.execution.run_job import run_job, run_stack
from roarline.stages import evaluate_roar
from roarline.stages.job import Context, Job
from roarline.stages.recorded_steps import may_record
from roarline.training import loop, stacked
from roarline.training.choice_of_steps import make_steps
from tests.stages.test_train_explainer import SPLIT, multi_hot, parameters
from tests.stages.toy_classifier import job_for, toy_classifier, toy_dataset
from tests.stages.toy_retraining import Toy, new_toy
from tests.stages.watching_network import MODEL as USERS_OWN

OURS = {"arch": "small_cnn", "params": {"width": 4}}
OFF = {"record_steps": False}


@pytest.fixture
def toy(tmp_path, monkeypatch) -> Toy:
    for name in ("_images", "_ranks"):
        monkeypatch.setattr(evaluate_roar, name, type(getattr(evaluate_roar, name))(2**20))
    return new_toy(tmp_path / "artifacts")


@pytest.fixture
def asked(monkeypatch) -> list[bool]:
    """Whether each training could have recorded its steps."""
    found: list[bool] = []

    def noted(*given, record):
        found.append(record)
        return make_steps(*given, record=record)

    for module in (loop, stacked):
        monkeypatch.setattr(module, "make_steps", noted)
    return found


@pytest.mark.parametrize(
    ("expected", "arch", "local"),
    [
        (True, "small_cnn", {}),
        (True, "torchvision:resnet18", {"record_steps": True}),
        (True, "timm:resnet18", {}),
        (False, "small_cnn", OFF),
        (False, "my.own.network", {}),
        (False, "my.own.network", {"record_steps": True}),
    ],
)
def test_the_switch_and_whose_network_it_is(expected, arch, local):
    assert may_record(Job("train-cls", 1, "key", "label", {}, {}, local), arch) is expected


CASES = [(True, OURS, {}), (False, OURS, OFF), (False, USERS_OWN, {})]


@pytest.mark.parametrize(("expected", "model", "local"), CASES)
def test_trained_classifiers(toy, asked, expected, model, local):
    toy.run(toy.classifier(model={**model, "weights": None}, local=local))
    assert asked == [expected]


@pytest.mark.parametrize("engine", ["single", "stacked"])
@pytest.mark.parametrize(("expected", "model", "local"), CASES)
def test_cells(toy, asked, expected, model, local, engine):
    job = toy.cell(model=model, engine=engine)
    job.local.update(local)
    if engine == "single":
        toy.run(job)
    else:
        assert run_stack([job], toy.context) == {job.key: True}
    assert asked == [expected]


@pytest.mark.parametrize(("expected", "local"), [(True, {}), (False, OFF)])
def test_explainers(store, asked, expected, local):
    inputs = {
        "dataset": toy_dataset(store, count=20, split=SPLIT, labels=multi_hot()),
        "classifier": toy_classifier(store, multi_label=True),
    }
    job = job_for("train-explainer", parameters(epochs=1), inputs)
    job.local.update(local)
    run_job(job, Context(store))
    assert asked == [expected]
