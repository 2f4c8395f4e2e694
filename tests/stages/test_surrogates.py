"""Fine-tuned copies of the classifier, and what evaluate-f-fidelity and evaluate-idsds read off them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from roarline.artifacts.classifier import CURVE_FILE
from roarline.artifacts.dataset import DATASET_FILE, DatasetFile
from roarline.artifacts.keys import artifact_key
from roarline.artifacts.maps import MAPS_FILE, MapsFile
from roarline.artifacts.score_table import read_scores
from roarline.artifacts.store import Artifact, Store
from roarline.artifacts.tables import SCORES_FILE, read_csv
from roarline.errors import UserInputError
from roarline.evaluation.single_deletion import SAME_SUMS
from roarline.execution.run_job import run_job
from roarline.models.load import load_classifier
from roarline.stages import scored_rows, surrogate_scores
from roarline.stages.job import Context, Job
from roarline.training import checkpoint
from tests.stages.toy_classifier import job_for, toy_classifier, toy_dataset
from tests.stages.toy_maps import toy_maps
from tests.stages.toy_retraining import TRAINING, Toy, new_toy
from tests.stages.watching_network import MODEL, SEEN

PATCHES = {"kind": "patch", "grid": 3, "share": 0.5, "fill": "mean"}
PIXELS = {"kind": "pixels", "most": 0.25, "fill": "zero"}
F_FIDELITY = {
    "beta": 0.2, "alpha_plus": 0.5, "alpha_minus": 0.5, "sizes": [0.2, 0.6], "samples": 3, "score": "probability",
    "ties": "random", "fill": "mean", "limit": None, "precision": "float32", "threads": 1, "sign": "signed", "seed": 0,
}  # fmt: skip
IDSDS = {
    "grid": 4, "deleted_share": 0.5, "score": "logit", "fill": "mean", "limit": None, "precision": "float32",
    "threads": 1, "sign": "signed", "seed": 0,
}  # fmt: skip


def fine_tuning(toy: Toy, classifier: Artifact, **changes: Any) -> Job:
    """A job as the plan makes them."""
    parameters = {
        "model": {"arch": "small_cnn", "params": {"width": 4}}, "training": TRAINING, "alteration": PIXELS, "seed": 0,
        "threads": 1, **changes,
    }  # fmt: skip
    inputs = {
        "dataset": ("prepare-data", toy.dataset_key),
        "classifier": ("train-cls", classifier.manifest.key),
    }
    key = artifact_key("train-cls", 1, parameters, {role: key for role, (_, key) in inputs.items()})
    return Job("train-cls", 1, key, "fine-tuning", parameters, inputs)


@pytest.fixture
def toy(tmp_path) -> Toy:
    return new_toy(tmp_path / "artifacts")


def test_fine_tuning_begins_where_the_classifier_ended_and_keeps_its_normalisation(toy):
    before = toy.run(toy.classifier(normalization={"mean": [0.4], "std": [0.3]}, training={**TRAINING, "epochs": 8}))
    still = {**TRAINING, "epochs": 1, "optimizer": {"name": "sgd", "lr": 1e-12, "momentum": 0.0}}
    after = toy.run(fine_tuning(toy, before, training=still))
    (old, old_card), (new, new_card) = load_classifier(before), load_classifier(after)
    assert (new_card.mean, new_card.std) == (old_card.mean, old_card.std)
    for name, value in old.state_dict().items():
        if "running" not in name and "tracked" not in name:  # batch norm's statistics follow what it sees
            torch.testing.assert_close(new.state_dict()[name], value, rtol=0, atol=1e-9)
    learned = toy.run(fine_tuning(toy, before))
    assert any(not torch.equal(v, old.state_dict()[n]) for n, v in load_classifier(learned)[0].named_parameters())
    assert load_classifier(learned)[1].test_accuracy > 0.9


@pytest.mark.parametrize("alteration", [PIXELS, PATCHES])
def test_training_images_lose_something_else_in_each_epoch_validation_the_same_and_test_nothing(toy, alteration):
    model = {**MODEL, "weights": None}
    before = toy.run(toy.classifier(model=model, training={**TRAINING, "epochs": 1}))
    whole = {image.numpy().tobytes() for images in SEEN.trained_on for image in images}
    validated, tested = SEEN.evaluated_on[-2:]
    SEEN.clear()
    toy.run(fine_tuning(toy, before, model=MODEL, alteration=alteration, training={**TRAINING, "epochs": 2}))
    epochs = torch.cat(SEEN.trained_on).chunk(2)
    assert torch.equal(SEEN.evaluated_on[-1], tested)
    first_look, second_look, _ = SEEN.evaluated_on
    assert torch.equal(first_look, second_look)
    assert not torch.equal(first_look, validated)
    untouched = [sum(image.numpy().tobytes() in whole for image in epoch) for epoch in epochs]
    if alteration["kind"] == "patch":  # half of 60; 5 standard deviations are 19
        assert all(11 < count < 49 for count in untouched)
    else:  # 0 to 9 of 36 pixels: one in ten keeps all
        assert all(count < 20 for count in untouched)
    first, second = ({image.numpy().tobytes() for image in epoch} for epoch in epochs)
    assert len((first | second) - whole) > len(first - whole)


def test_a_fine_tuning_killed_ends_with_the_digest_of_one_that_was_not(tmp_path, monkeypatch):
    undisturbed = new_toy(tmp_path / "undisturbed")
    expected = undisturbed.run(fine_tuning(undisturbed, undisturbed.run(undisturbed.classifier()))).digest
    toy = new_toy(tmp_path / "killed")
    job = fine_tuning(toy, toy.run(toy.classifier()))
    monkeypatch.setattr(checkpoint.Checkpoint, "due", True)

    def kill(done: int, total: int, unit: str) -> None:
        if done >= 5:
            raise KeyboardInterrupt

    toy.context.progress = kill
    with pytest.raises(KeyboardInterrupt):
        toy.run(job)
    seen: list[int] = []
    toy.context.progress = lambda done, total, unit: seen.append(done)
    again = toy.run(job)
    assert again.digest == expected
    assert seen[0] > 4
    assert len(read_csv(again.file(CURVE_FILE))["epoch"]) == TRAINING["epochs"]


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path)


def scores_of(store: Store, stage: str, parameters: dict[str, Any], **inputs: Artifact):
    job = job_for(stage, parameters, inputs)
    run_job(job, Context(store))
    return read_scores(store.open(stage, job.key).file(SCORES_FILE))


def linear_case(store: Store, *, scale: float = 1.0):
    """A linear network, random images, and maps that are its input × gradient for class 0, times ``scale``."""
    arch = "tests.stages.sum_network.build"
    dataset = toy_dataset(store, count=8, side=8)
    classifier = toy_classifier(store, side=8, arch=arch, params={"side": 8})
    model, _ = load_classifier(classifier)
    with DatasetFile(dataset.file(DATASET_FILE)) as file:
        pixels = torch.from_numpy(file.pixels(file.rows("test"))).float() / 255
    inputs = (pixels - 0.5) / 0.25
    weights = model.sum.weight[0].reshape(3, 8, 8)
    maps = (inputs * weights).sum(1).detach().numpy() * scale
    return dataset, classifier, toy_maps(store, dataset, maps.astype(np.float32))


def test_idsds_of_a_linear_networks_input_times_gradient_is_1(store):
    """The fill is the training mean, 0 in normalised space: the baseline to which input × gradient refers."""
    dataset, classifier, maps = linear_case(store)
    table = scores_of(store, "evaluate-idsds", IDSDS, dataset=dataset, classifier=classifier, maps=maps)
    column = table.columns["idsds", ""]
    assert column.values == pytest.approx([1.0] * 8)
    assert not column.reasons


def test_idsds_reads_maps_with_their_sign_and_says_where_there_is_no_order(store):
    dataset, classifier, maps = linear_case(store, scale=-1.0)
    values = scores_of(store, "evaluate-idsds", IDSDS, dataset=dataset, classifier=classifier, maps=maps).columns
    assert values["idsds", ""].values == pytest.approx([-1.0] * 8)
    positive = {**IDSDS, "sign": "absolute"}
    flat = toy_maps(store, dataset, np.full((8, 8, 8), -0.1, dtype=np.float32))
    for grid in (4, 3):  # patches of 2 × 2 px; of 2 or 3 px a side
        parameters = {**positive, "grid": grid}
        table = scores_of(store, "evaluate-idsds", parameters, dataset=dataset, classifier=classifier, maps=flat)
        assert np.isnan(table.columns["idsds", ""].values).all()
        assert dict(table.columns["idsds", ""].reasons) == {SAME_SUMS: 8}


def test_a_grid_finer_than_the_image_is_refused(store):
    dataset, classifier, maps = linear_case(store)
    with pytest.raises(UserInputError, match="grid is 9"):
        scores_of(store, "evaluate-idsds", {**IDSDS, "grid": 9}, dataset=dataset, classifier=classifier, maps=maps)


def test_f_fidelity_has_a_row_for_each_size_and_their_mean(store):
    dataset, classifier, maps = linear_case(store)
    inputs = {"dataset": dataset, "classifier": classifier, "maps": maps}
    table = scores_of(store, "evaluate-f-fidelity", F_FIDELITY, **inputs)
    for metric in ("ffid_plus", "ffid_minus"):
        of = {setting: column.values for (name, setting), column in table.columns.items() if name == metric}
        assert list(of) == ["explanation_size=0.2", "explanation_size=0.6", "mean over explanation sizes"]
        small, large, mean = of.values()
        np.testing.assert_allclose(mean, (small + large) / 2)
        assert (np.abs(mean) <= 1).all()
    opposite = toy_maps(store, dataset, -_values(maps))
    turned = scores_of(store, "evaluate-f-fidelity", F_FIDELITY, **inputs | {"maps": opposite})
    setting = "mean over explanation sizes"
    plus, minus = (table.columns[m, setting].values.mean() for m in ("ffid_plus", "ffid_minus"))
    wrong_plus, wrong_minus = (turned.columns[m, setting].values.mean() for m in ("ffid_plus", "ffid_minus"))
    assert plus > wrong_plus
    assert minus < wrong_minus


def _values(maps: Artifact) -> np.ndarray:
    with MapsFile(maps.file(MAPS_FILE)) as file:
        return file.maps(range(len(file)))


def test_gaps_of_less_than_a_pixel_are_refused(store):
    dataset, classifier, maps = linear_case(store)
    inputs = {"dataset": dataset, "classifier": classifier, "maps": maps}
    with pytest.raises(UserInputError, match="less than one pixel"):
        scores_of(store, "evaluate-f-fidelity", {**F_FIDELITY, "beta": 0.01}, **inputs)


@pytest.mark.parametrize(("stage", "parameters"), [("evaluate-f-fidelity", F_FIDELITY), ("evaluate-idsds", IDSDS)])
def test_parts_batches_and_interruptions_change_nothing(tmp_path: Path, monkeypatch, stage, parameters):
    digests = []
    for name, at_once, rows in (("whole", 64, 64), ("cut", 2, 3)):
        store = Store(tmp_path / name)
        dataset, classifier, maps = linear_case(store)
        monkeypatch.setattr(surrogate_scores, "pass_size", lambda *_, at_once=at_once: at_once)
        monkeypatch.setattr(surrogate_scores, "rows_per_part", lambda *_, rows=rows: rows)
        job = job_for(stage, parameters, {"dataset": dataset, "classifier": classifier, "maps": maps})
        context = Context(store)
        if name == "cut":

            def kill(done: int, total: int, unit: str) -> None:
                if done >= 3:
                    raise KeyboardInterrupt

            with pytest.raises(KeyboardInterrupt):
                run_job(job, replace(context, progress=kill))
            assert list(store.work(stage, job.key).glob("parts/*.npz"))
        run_job(job, context)
        digests.append(read_scores(store.open(stage, job.key).file(SCORES_FILE)))
    assert scored_rows.rows_per_part(8, 8) == 1024  # what was replaced
    for name, column in digests[0].columns.items():
        # other batches, other blocking of sums
        np.testing.assert_allclose(column.values, digests[1].columns[name].values, atol=1e-6)


def test_several_labels_an_image_are_scored_by_their_own_outputs(store):
    labels = np.random.default_rng(0).integers(0, 2, (6, 4)).astype(np.uint8)
    dataset = toy_dataset(store, count=6, side=8, labels=labels)
    classifier = toy_classifier(store, side=8, multi_label=True)
    rows = [(f"image/{index:04d}", target) for index in range(6) for target in (0, 2)]
    maps = toy_maps(store, dataset, np.random.default_rng(1).normal(size=(12, 8, 8)).astype(np.float32), rows=rows)
    inputs = {"dataset": dataset, "classifier": classifier, "maps": maps}
    for stage, parameters in (
        ("evaluate-f-fidelity", F_FIDELITY),
        ("evaluate-idsds", IDSDS | {"score": "probability"}),
    ):
        table = scores_of(store, stage, parameters, **inputs)
        assert list(zip(table.sample_ids, table.targets.tolist(), strict=True)) == rows
        for column in table.columns.values():
            assert np.isfinite(column.values).all()
            assert (np.abs(column.values) <= 1).all()
