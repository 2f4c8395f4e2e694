"""A trained classifier from its artifact."""

from __future__ import annotations

from torch import nn

from roarline.artifacts.classifier import CARD_FILE, WEIGHTS_FILE, ClassifierCard
from roarline.artifacts.store import Artifact
from roarline.errors import ModelError
from roarline.models.build import build


def load_classifier(artifact: Artifact) -> tuple[nn.Module, ClassifierCard]:
    """The network of a ``classifier`` artifact, on the CPU, in eval mode, its parameters frozen; and its card.

    Raises:
        ArtifactError: A file is damaged.
        ModelError: The architecture can't be built, or the weights don't fit it.
    """
    card = ClassifierCard.read(artifact.file(CARD_FILE))
    weights_file = artifact.file(WEIGHTS_FILE)
    model = build(card.arch, card.params, len(card.class_names), input_size=None, weights_file=weights_file, seed=0)
    return model.eval().requires_grad_(False), card


def check_classes(card: ClassifierCard, class_names: list[str], data_name: str) -> None:
    """Refuse a classifier and a data set of different class counts.

    Raises:
        ModelError: Names both numbers and what to do.
    """
    if len(card.class_names) != len(class_names):
        raise ModelError(
            f"the classifier ({card.arch}) has {len(card.class_names)} classes, data set {data_name!r} has "
            f"{len(class_names)}; train or load a classifier for these classes"
        )
