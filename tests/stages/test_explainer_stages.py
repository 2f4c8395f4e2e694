"""Every stage that calls a method itself calls an explainer, too."""

from __future__ import annotations

import pytest

from roarline.artifacts.manifest import MANIFEST
from roarline.artifacts.tables import SCORES_FILE, read_parquet
from roarline.config.load import load_experiment
from roarline.execution.plan import build_plan
from roarline.execution.run_job import run_job
from roarline.stages.job import Context

TEXT = """\
name: learned
data: {dataset: shapes, params: {size_px: 16, train: 24, test: 30, max_shapes: 2}, validation_fraction: 0.25}
model: {arch: small_cnn, params: {width: 4}}
train-cls: {epochs: 1, batch_size: 16, loss: binary_cross_entropy, threads: 1}
train-explainer:
  - name: masks
    explainer: nn_explainer
    params: {network: {backbone: light, width: 4}}
    training: {epochs: 1, batch_size: 16}
    threads: 1
attribution: {threads: 1, target: every-label, baselines: [], methods: [{name: learned, explainer: masks}]}
evaluate-perturbation: {threads: 1, limit: 4, metrics: [max_sensitivity], map_sensitivity: {samples: 2}}
evaluate-localization:
  threads: 1
  metrics: [continuous_iou, class_specificity, grid_pointing_game]
  grid: {count: 1, confidence: 0.0}
  class_matrix: {images: 4}
evaluate-sanity: {threads: 1, limit: 4, metrics: [cascading_randomisation, data_randomisation], window_px: 5}
"""


def test_maps_of_noisy_images_grids_other_classes_and_random_networks(store, tmp_path):
    path = tmp_path / "learned.yaml"
    path.write_text(TEXT)
    plan = build_plan(load_experiment(path, []))
    for job in plan.jobs:
        if job.stage not in ("aggregate-scores", "report"):
            run_job(job, Context(store))
    found = {}
    for job in plan.jobs:
        if job.stage.startswith("evaluate-"):
            table = read_parquet(store.open(job.stage, job.key).file(SCORES_FILE))
            for metric, setting, value in zip(table["metric"], table["setting"], table["value"], strict=True):
                found.setdefault(metric, []).append((setting, value))
            assert set(table["status"]) == {"ok"}
    assert {
        "max_sensitivity", "continuous_iou", "class_specificity", "grid_pointing_game", "cascading_randomisation",
        "data_randomisation",
    } <= found.keys()  # fmt: skip
    # its masks don't ask the classifier, so that random weights change nothing
    randomised = [value for setting, value in found["cascading_randomisation"] if setting.startswith("all randomised")]
    assert randomised == pytest.approx([1] * len(randomised))
    assert any(value < 0.99 for _, value in found["data_randomisation"])
    assert (store.path("train-explainer", plan.of("train-explainer")[0].key) / MANIFEST).is_file()
