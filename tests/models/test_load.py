"""A classifier comes back from its artifact as it was."""

import pytest
import torch
from safetensors.torch import load_file

from roarline.artifacts.classifier import WEIGHTS_FILE, ClassifierCard
from roarline.artifacts.store import Store
from roarline.errors import ArtifactError, ModelError
from roarline.models.build import build
from roarline.models.load import check_classes, load_classifier
from roarline.stages.classifier_files import write_weights


def card(classes: int = 3) -> ClassifierCard:
    return ClassifierCard(
        arch="small_cnn", params={"width": 4}, class_names=[str(index) for index in range(classes)], multi_label=False,
        input_size=[8, 8], mean=[0.5] * 3, std=[0.2] * 3, best_epoch=1, epochs=1, validation_accuracy=None,
        test_accuracy=None, parameters_count=1,
    )  # fmt: skip


def publish(store: Store, model: torch.nn.Module, classes: int = 3):
    with store.writer("train-cls", 1, "k" * 64, "train", {}, {}) as writer:
        card(classes).write(writer.out)
        write_weights(writer.out / WEIGHTS_FILE, model)
    return store.open("train-cls", "k" * 64)


def test_round_trip_gives_the_same_logits_frozen_and_in_eval_mode(store):
    model = build("small_cnn", {"width": 4}, 3, input_size=None, seed=5)
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    model.train()(images)  # moves the running statistics
    loaded, read = load_classifier(publish(store, model))
    assert read == card()
    assert torch.equal(loaded(images), model.eval()(images))
    assert not any(module.training for module in loaded.modules())
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_a_flipped_byte_in_the_weights_is_found(store):
    artifact = publish(store, build("small_cnn", {"width": 4}, 3, input_size=None, seed=5))
    path = artifact.path / WEIGHTS_FILE
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"weights\.safetensors.*SHA-256"):
        load_classifier(artifact)


def test_a_tensor_with_two_names_is_written_under_both(store):
    shared = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    shared[1].weight = shared[0].weight
    with store.writer("train-cls", 1, "s" * 64, "train", {}, {}) as writer:
        write_weights(writer.out / WEIGHTS_FILE, shared)
        assert set(load_file(writer.out / WEIGHTS_FILE)) == {"0.weight", "0.bias", "1.weight", "1.bias"}


def test_other_class_counts_are_refused_naming_both():
    check_classes(card(3), ["a", "b", "c"], "animals")
    with pytest.raises(ModelError, match="has 3 classes, data set 'animals' has 2"):
        check_classes(card(3), ["a", "b"], "animals")
