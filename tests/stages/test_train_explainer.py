"""train-explainer: what it writes, how it goes on after a kill, which classifier it takes; and maps of what it made."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch

from roarline.artifacts.classifier import WEIGHTS_FILE
from roarline.artifacts.dataset import DATASET_FILE, DatasetFile
from roarline.artifacts.explainer import (
    EXPLAINER_CURVE_FILE,
    EXPLAINER_FILE,
    EXPLAINER_WEIGHTS_FILE,
    ExplainerCard,
)
from roarline.artifacts.maps import MAPS_FILE, MapsFile
from roarline.config.explainers import EXPLAINERS
from roarline.config.training import Training
from roarline.data.loading import normalise
from roarline.errors import DataError, ModelError
from roarline.execution.run_job import run_job
from roarline.models.build import read_state
from roarline.models.load import load_classifier
from roarline.models.load_explainer import load_explainer
from roarline.stages import extract_attribution_maps, train_explainer
from roarline.stages.job import Context
from roarline.stages.splits import shuffled_order
from roarline.training.checkpoint import Checkpoint
from roarline.training.loop import Trained
from tests.stages.test_extract_attribution_maps import PARAMETERS as EXTRACTION
from tests.stages.toy_classifier import job_for, toy_classifier, toy_dataset
from tests.stages.toy_explainer import PARAMS, toy_explainer

SPLIT = np.array([0] * 12 + [1] * 4 + [2] * 4)


def multi_hot(count=20, classes=4):
    generator = np.random.default_rng(3)
    labels = np.zeros((count, classes), dtype=np.uint8)
    for row in labels:
        row[generator.choice(classes, size=generator.integers(1, 3), replace=False)] = 1
    return labels


@pytest.fixture
def inputs(store):
    return {
        "dataset": toy_dataset(store, count=20, split=SPLIT, labels=multi_hot()),
        "classifier": toy_classifier(store, multi_label=True),
    }


def parameters(explainer="nn_explainer", **training):
    settings = Training.model_validate({"epochs": 2, "batch_size": 4, **training})
    return {
        "explainer": explainer,
        "params": EXPLAINERS[explainer].params.model_validate(PARAMS).model_dump(mode="json"),
        "training": settings.model_dump(mode="json"),
        "seed": 0,
        "threads": 1,
    }


def make(store, inputs, context=None, **changes):
    job = job_for(train_explainer.STAGE, {**parameters(), **changes}, inputs)
    run_job(job, context or Context(store))
    return store.open(job.stage, job.key)


def maps_of(store, inputs, explainer, **changes):
    settings = {**EXTRACTION, "method": "explainer", "channels": "sum", "target": "every-label", **changes}
    job = job_for(extract_attribution_maps.STAGE, settings, {**inputs, "explainer": explainer})
    run_job(job, Context(store))
    return store.open(job.stage, job.key)


def test_the_artifact_tells_all_that_is_needed_to_use_it(store, inputs):
    artifact = make(store, inputs)
    card = ExplainerCard.read(artifact.file(EXPLAINER_FILE))
    classifier = inputs["classifier"]
    assert (card.explainer, card.one_mask) == ("nn_explainer", False)
    assert (card.classifier.key, card.classifier.digest) == (classifier.manifest.key, classifier.digest)
    assert (card.input_size, card.mean, card.std) == ([16, 16], [0.5] * 3, [0.25] * 3)
    assert len(card.class_names) == 4
    assert card.training_images == 12
    assert card.params["network"]["backbone"] == "light"
    assert card.validation["loss"] > 0
    state = read_state(artifact.file(EXPLAINER_WEIGHTS_FILE))
    assert all(name.startswith("network.") for name in state)  # nothing of the classifier
    with artifact.file(EXPLAINER_CURVE_FILE).open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    terms = {"classification", "entropy", "variation", "area_bound", "target_area", "other_area"}
    assert {f"{side}_{name}" for side in ("train", "validation") for name in (*terms, "loss")} <= rows[0].keys()
    for row in rows:
        assert float(row["train_loss"]) == pytest.approx(sum(float(row[f"train_{name}"]) for name in terms))


@pytest.mark.parametrize("name", [name for name, explainer in EXPLAINERS.items() if explainer.one_mask])
def test_every_masker_of_the_table_trains_and_draws_maps(store, name):
    inputs = {"dataset": toy_dataset(store, count=20, split=SPLIT), "classifier": toy_classifier(store)}
    params = EXPLAINERS[name].params().model_dump(mode="json")
    artifact = make(store, inputs, **{**parameters(epochs=1), "explainer": name, "params": params})
    assert ExplainerCard.read(artifact.file(EXPLAINER_FILE)).one_mask
    seen = []
    for target in ("label", "predicted"):
        with MapsFile(maps_of(store, inputs, artifact, target=target).file(MAPS_FILE)) as maps:
            seen.append((maps.targets, maps.maps(range(len(maps.sample_ids)))))
    (labels, of_labels), (predicted, of_predicted) = seen
    assert list(labels) != list(predicted)
    assert np.array_equal(of_labels, of_predicted)
    assert of_labels.shape == (4, 16, 16)
    assert 0 <= of_labels.min() < of_labels.max() <= 1


@pytest.mark.parametrize("name", [name for name, explainer in EXPLAINERS.items() if not explainer.one_mask])
def test_every_explainer_of_the_table_trains_and_draws_maps(store, inputs, name):
    component = EXPLAINERS[name]
    network = PARAMS if "backbone" in component.params.model_fields["network"].annotation.model_fields else {}
    params = component.params.model_validate(network).model_dump(mode="json")
    artifact = make(store, inputs, **{**parameters(epochs=1), "explainer": name, "params": params})
    with MapsFile(maps_of(store, inputs, artifact).file(MAPS_FILE)) as maps:
        values = maps.maps(range(len(maps.sample_ids)))
        assert values.shape == (int(multi_hot()[16:].sum()), 16, 16)
        assert values.min() >= 0
        assert values.max() <= 1
        assert maps.attributes["explainer_digest"] == artifact.digest
        same = [np.array_equal(values[a], values[b]) for a, b in pairs_of_one_image(maps.sample_ids)]
        assert same
        assert all(same) == component.one_mask


def pairs_of_one_image(ids):
    return [(a, a + 1) for a in range(len(ids) - 1) if ids[a] == ids[a + 1]]


def test_maps_are_the_networks_masks_of_each_target(store, inputs):
    explainer = toy_explainer(store, inputs["classifier"])
    artifact = maps_of(store, inputs, explainer)
    model, known = load_classifier(inputs["classifier"])
    network, _ = load_explainer(
        explainer, model, classifier_artifact=inputs["classifier"], class_names=known.class_names, input_size=(16, 16)
    )
    with DatasetFile(inputs["dataset"].file(DATASET_FILE)) as dataset, MapsFile(artifact.file(MAPS_FILE)) as maps:
        images = normalise(torch.from_numpy(dataset.pixels(range(16, 20))), known.mean, known.std)
        with torch.no_grad():
            masks = network.masks(model, images).numpy()
        rows = [dataset.sample_ids.index(name) - 16 for name in maps.sample_ids]
        expected = masks[rows, maps.targets]
        # float32 in another memory format
        np.testing.assert_allclose(maps.maps(range(len(rows))), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("target", ["predicted", "label"])
def test_targets_of_one_class_an_image(store, target):
    inputs = {"dataset": toy_dataset(store, count=20, split=SPLIT), "classifier": toy_classifier(store)}
    artifact = maps_of(store, inputs, make(store, inputs), target=target)
    with MapsFile(artifact.file(MAPS_FILE)) as maps:
        assert len(maps.sample_ids) == 4
        if target == "predicted":
            assert maps.targets.tolist() == maps.logits.argmax(axis=1).tolist()


def test_a_killed_training_goes_on_and_ends_with_the_same_bits(store, inputs, tmp_path, monkeypatch):
    whole = make(store, inputs)
    other = type(store)(tmp_path / "other")
    again = {
        "dataset": toy_dataset(other, count=20, split=SPLIT, labels=multi_hot()),
        "classifier": toy_classifier(other, multi_label=True),
    }
    monkeypatch.setattr(Checkpoint, "due", property(lambda self: True))

    def stop(done, total, unit):
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(other, again, Context(other, progress=stop))
    assert list(other.root.glob(".work/train-explainer/*/parts/*"))
    assert make(other, again).digest == whole.digest


def test_few_images_of_each_class(store):
    inputs = {"dataset": toy_dataset(store, count=20, split=SPLIT), "classifier": toy_classifier(store)}
    card = ExplainerCard.read(make(store, inputs, images_per_class=1).file(EXPLAINER_FILE))
    with DatasetFile(inputs["dataset"].file(DATASET_FILE)) as dataset:
        assert card.training_images == len(np.unique(dataset.labels[:12]))
    assert card.images_per_class == 1


def test_labels_are_shuffled_as_the_classifiers_were(store, monkeypatch):
    """The data-randomised explainer: the labels that its classifier learned, also of the few images that are drawn."""
    inputs = {"dataset": toy_dataset(store, count=20, split=SPLIT), "classifier": toy_classifier(store)}
    seen = []
    monkeypatch.setattr(train_explainer, "fit", lambda objective, split, validation, *args, **kwargs: seen.append(
        (split, validation)) or Trained(1, {}, [{"epoch": 1}]))  # fmt: skip
    make(store, inputs, shuffle_labels=True)
    make(store, inputs, shuffle_labels=True, images_per_class=1)
    with DatasetFile(inputs["dataset"].file(DATASET_FILE)) as dataset:
        labels = torch.from_numpy(dataset.labels[:12])
    shuffled = labels[shuffled_order(12, 0)]
    (whole, validation), (few, _) = seen
    assert validation is None
    assert not torch.equal(shuffled, labels)
    assert torch.equal(whole.labels, shuffled)
    assert sorted(few.labels.tolist()) == sorted(set(labels.tolist()))
    for image, label in zip(few.images, few.labels, strict=True):
        assert label == shuffled[[torch.equal(image, other) for other in whole.images].index(True)]


def test_weights_to_start_from_must_be_those_that_were_planned(store, inputs, tmp_path):
    path = tmp_path / "start.pth"
    torch.save({"conv1.weight": torch.zeros(1)}, path)
    settings = parameters()
    settings["params"]["network"] |= {"backbone": "deeplabv3_resnet50", "weights": "sha256:0"}
    job = job_for(train_explainer.STAGE, settings, inputs)
    job.local["weights"] = str(path)
    with pytest.raises(ModelError, match=r"start\.pth changed since this run was planned"):
        run_job(job, Context(store))


class TestRefused:
    """An explainer that was made for something else; both sides are named."""

    def test_another_classifier(self, store, inputs):
        other = toy_classifier(store, multi_label=True, params={"width": 8})
        explainer = toy_explainer(store, other)
        of_other, of_this = other.digest[:16], inputs["classifier"].digest[:16]
        with pytest.raises(ModelError, match=rf"trained for classifier .*{of_other}.*this is .*{of_this}"):
            maps_of(store, inputs, explainer)

    def test_another_class_count(self, store, inputs):
        explainer = toy_explainer(store, inputs["classifier"], class_names=["a", "b"])
        with pytest.raises(ModelError, match="draws masks of 2 classes, the data set has 4"):
            maps_of(store, inputs, explainer)

    def test_another_input_size(self, store, inputs):
        explainer = toy_explainer(store, inputs["classifier"], input_size=[20, 24])
        with pytest.raises(ModelError, match="trained on images of 20×24 px, these have 16×16 px"):
            maps_of(store, inputs, explainer)

    def test_a_classifier_of_other_images(self, store, inputs):
        inputs["classifier"] = toy_classifier(store, side=20, multi_label=True)
        with pytest.raises(ModelError, match="takes images of 20×20 px, those of 'toy' are 16×16 px"):
            make(store, inputs)

    def test_no_training_images(self, store, inputs):
        inputs["dataset"] = toy_dataset(store, count=20, labels=multi_hot())
        with pytest.raises(DataError, match="'toy' has no training images to train an explainer on"):
            make(store, inputs)

    def test_weights_that_dont_fit_their_card(self, store, inputs):
        params = {"network": {**PARAMS["network"], "width": 8}, "losses": {}}
        explainer = toy_explainer(store, inputs["classifier"], params=params)
        with pytest.raises(ModelError, match="its weights don't fit its card"):
            maps_of(store, inputs, explainer)


def test_the_classifiers_file_is_only_read(store, inputs):
    path = inputs["classifier"].path / WEIGHTS_FILE
    before = path.read_bytes()
    make(store, inputs)
    assert path.read_bytes() == before
