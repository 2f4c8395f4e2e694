"""A trained explainer from its artifact, for the classifier and the images that it was trained for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from roarline.artifacts.explainer import EXPLAINER_FILE, EXPLAINER_WEIGHTS_FILE, ExplainerCard
from roarline.artifacts.store import Artifact
from roarline.errors import ModelError
from roarline.models.build import read_state
from roarline.models.explainers import build_explainer


def load_explainer(
    artifact: Artifact,
    classifier: nn.Module,
    *,
    classifier_artifact: Artifact,
    class_names: Sequence[str],
    input_size: tuple[int, int],
) -> tuple[nn.Module, ExplainerCard]:
    """The network of an ``explainer`` artifact, on the CPU, in eval mode, its parameters frozen; and its card.

    Args:
        artifact: Of train-explainer.
        classifier: The one to be explained, on the CPU.
        classifier_artifact: Where that comes from.
        class_names: Of the data set.
        input_size: (H, W) of its images, px.

    Raises:
        ArtifactError: A file is damaged.
        ModelError: It was trained for another classifier, class count or input size, or its weights don't fit.
    """
    card = ExplainerCard.read(artifact.file(EXPLAINER_FILE))
    _check(card, artifact, classifier_artifact, class_names, input_size)
    network = build_explainer(
        card.explainer,
        classifier,
        without_start(card.params["network"]),
        num_classes=len(card.class_names),
        input_size=input_size,
        seed=0,
    )
    try:
        network.load_state_dict(read_state(artifact.file(EXPLAINER_WEIGHTS_FILE)))
    except RuntimeError as error:
        raise ModelError(
            f"explainer {artifact.path}: its weights don't fit its card: {str(error).splitlines()[0]}"
        ) from error
    return network.eval().requires_grad_(False), card


def without_start(network_params: dict[str, Any]) -> dict[str, Any]:
    """The parameters of a network that is about to get trained weights: those that it started from aren't wanted."""
    return {**network_params, "weights": None} if "weights" in network_params else network_params


def _check(
    card: ExplainerCard,
    artifact: Artifact,
    classifier_artifact: Artifact,
    class_names: Sequence[str],
    input_size: tuple[int, int],
) -> None:
    who, known = f"explainer {artifact.path} ({card.explainer})", card.classifier
    if len(card.class_names) != len(class_names):
        raise ModelError(
            f"{who} draws masks of {len(card.class_names)} classes, the data set has {len(class_names)}; train one for "
            "these classes"
        )
    if tuple(card.input_size) != input_size:
        raise ModelError(
            f"{who} was trained on images of {card.input_size[0]}×{card.input_size[1]} px, these have "
            f"{input_size[0]}×{input_size[1]} px; set data.resize_px and data.crop_px to its size, or train another"
        )
    if known.digest != classifier_artifact.digest:
        raise ModelError(
            f"{who} was trained for classifier {known.key[:16]} ({known.arch}, digest {known.digest[:16]}), this is "
            f"{classifier_artifact.path} (digest {classifier_artifact.digest[:16]}); train an explainer for this one"
        )
