"""The section evaluate-sanity: what it refuses, and which metrics need a training."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from roarline.config.load import load_experiment
from roarline.config.metrics import METRICS
from roarline.config.sanity import EvaluateSanity
from roarline.errors import UserInputError

LOADED = """\
name: loaded
data: {dataset: digits}
model: {arch: "torchvision:squeezenet1_1", weights: IMAGENET1K_V1}
attribution: {methods: [{name: gradient}]}
evaluate-sanity: {metrics: [data_randomisation]}
"""


def test_metrics_stand_in_the_order_of_the_table() -> None:
    section = EvaluateSanity(metrics=["random_logit", "cascading_randomisation"])
    assert section.table_metrics == ["cascading_randomisation", "random_logit"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"metrics": ["cascading"]}, "did you mean"),
        ({"metrics": ["morf"]}, "'morf' is computed by evaluate-perturbation"),
        ({"metrics": ["random_logit", "random_logit"]}, "twice"),
        ({"similarities": ["ssim", "ssim"]}, "twice"),
        ({"window_px": 8}, "odd number"),
        ({"depth": 0}, "greater than or equal to 1"),
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        EvaluateSanity(**changes)  # type: ignore[arg-type]


def test_shuffled_labels_need_a_training(tmp_path: Path) -> None:
    path = tmp_path / "loaded.yaml"
    path.write_text(LOADED)
    with pytest.raises(UserInputError, match=r"data_randomisation trains a network on shuffled labels"):
        load_experiment(path, ())
    path.write_text(LOADED.replace("[data_randomisation]", "[data_randomisation], training: {epochs: 2}"))
    assert load_experiment(path, ()).evaluate_sanity is not None


def test_less_similarity_is_better_and_more_entropy() -> None:
    directions = {
        name: metric.higher_is_better for name, metric in METRICS.items() if metric.stage == "evaluate-sanity"
    }
    assert {name for name, better in directions.items() if better} == {"efficient_randomisation"}
    assert len(directions) == 6
