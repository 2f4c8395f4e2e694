"""A small ``explainer`` artifact for tests of the stages that read one."""

from __future__ import annotations

from typing import Any

from safetensors.torch import save_file

from roarline.artifacts.explainer import EXPLAINER_WEIGHTS_FILE, ExplainedClassifier, ExplainerCard
from roarline.artifacts.store import Artifact, Store
from roarline.config.explainers import EXPLAINERS
from roarline.models.explainers import build_explainer
from roarline.models.load import load_classifier
from tests.stages.toy_classifier import make_artifact

PARAMS: dict[str, Any] = {"network": {"backbone": "light", "width": 4}}


def toy_explainer(
    store: Store, classifier: Artifact, *, explainer: str = "nn_explainer", seed: int = 3, **changes: Any
) -> Artifact:
    """Random weights, for a classifier's artifact; ``changes`` are of its card."""
    model, known = load_classifier(classifier)
    params = EXPLAINERS[explainer].params.model_validate(PARAMS).model_dump(mode="json")
    height, width = known.input_size or [16, 16]
    classes = len(known.class_names)
    network = build_explainer(
        explainer,
        model,
        params["network"],
        num_classes=classes,
        input_size=(height, width),
        seed=seed,
    )
    card = ExplainerCard(
        explainer=explainer, params=params, one_mask=False,
        classifier=ExplainedClassifier(key=classifier.manifest.key, digest=classifier.digest, arch=known.arch),
        class_names=known.class_names, multi_label=known.multi_label, input_size=[height, width], mean=known.mean,
        std=known.std, epochs=1, best_epoch=1, validation={}, training_images=8, images_per_class=None,
        parameters_count=1,
    ).model_copy(update=changes)  # fmt: skip

    def write(folder: Any) -> None:
        card.write(folder)
        save_file(network.state_dict(), folder / EXPLAINER_WEIGHTS_FILE)

    recipe = {"of": classifier.manifest.key, "card": card.model_dump(mode="json"), "seed": seed}
    return make_artifact(store, "train-explainer", recipe, write)
