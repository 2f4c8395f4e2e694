"""A learned explainer through everything that a method goes through, in the program; stages/test_explainer_stages.py
has the stages alone."""

from __future__ import annotations

import pytest

from roarline.artifacts.tables import read_csv
from tests.end_to_end.conftest import Program

LEARNED = """\
name: learned
data: {dataset: shapes, params: {size_px: 16, train: 40, test: 30, max_shapes: 2}, validation_fraction: 0.2}
model: {arch: small_cnn, params: {width: 4}}
train-cls: &training {epochs: 1, batch_size: 16, loss: binary_cross_entropy, threads: 1}
train-explainer:
  - name: masks
    explainer: nn_explainer
    params: {network: {backbone: light, width: 4}}
    training: {epochs: 1, batch_size: 16}
    threads: 1
attribution:
  threads: 1
  target: every-label
  baselines: []
  methods:
    - {name: learned, explainer: masks}
    - {name: random}
evaluate-roar: {fractions: [0.5], modes: [roar], repeats: 1}
evaluate-perturbation: {threads: 1, metrics: [morf, max_sensitivity], map_sensitivity: {samples: 2}}
evaluate-localization:
  threads: 1
  metrics: [content_heatmap, continuous_iou, class_specificity, grid_pointing_game]
  grid: {count: 1, confidence: 0.0}
  class_matrix: {images: 4}
evaluate-f-fidelity: {threads: 1, samples: 2, maps_of: fine_tuned}
evaluate-sanity: {threads: 1, metrics: [cascading_randomisation, data_randomisation], window_px: 5}
aggregate-scores: {resamples: 200}
report: {gallery_images: 2}
runtime: {device: cpu, workers: 1}
"""


@pytest.mark.slow
def test_an_explainer_goes_through_every_evaluation_and_into_the_report(program: Program) -> None:
    config = program.config(LEARNED, "learned.yaml")
    said = program("run", config)
    assert "report: artifacts/experiments/learned/report/index.html" in said
    scores = read_csv(program.folder / "artifacts" / "experiments" / "learned" / "scores.csv")
    of_learned = [row for row, method in enumerate(scores["method"]) if method == "learned"]
    metrics = {scores["metric"][row] for row in of_learned}
    assert {
        "roar_accuracy", "morf", "max_sensitivity", "content_heatmap", "continuous_iou",
        "class_specificity", "grid_pointing_game", "ffid_plus", "cascading_randomisation",
        "data_randomisation",
    } <= metrics  # fmt: skip
    assert not any(int(scores["failed"][row]) for row in of_learned)
    # one for the classifier, one for its fine-tuned copy, one for the network of shuffled labels
    labels = {artifact.manifest.label for artifact in program.store.artifacts()}
    assert {label for label in labels if label.startswith("train-explainer")} == {
        "train-explainer masks", "train-explainer masks, fine-tuned for evaluate-f-fidelity",
        "train-explainer masks, shuffled labels",
    }  # fmt: skip
    assert "cached (100%), 0 made" in program("run", config)
