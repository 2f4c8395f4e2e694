"""Sanity checks from a config to the page, shuffled labels included, job after job in this process."""

from __future__ import annotations

import json
from pathlib import Path

from roarline.artifacts.store import Store
from roarline.artifacts.tables import SCORES_FILE, read_parquet
from roarline.config.load import load_experiment
from roarline.execution.plan import build_plan
from roarline.execution.run_job import run_job
from roarline.stages.job import Context

TEXT = """\
name: tiny-sanity
data: {dataset: digits, limit: {train: 60, validation: 20, test: 16}, validation_fraction: 0.2}
model: {arch: small_cnn, params: {width: 4}}
train-cls: {epochs: 1, batch_size: 32, threads: 1}
attribution:
  threads: 1
  baselines: [random]
  methods: [{name: gradient}]
evaluate-sanity:
  metrics: [cascading_randomisation, efficient_randomisation, random_logit, data_randomisation]
  limit: 8
  threads: 1
aggregate-scores: {resamples: 100}
report: {gallery_images: 1}
"""


def test_from_a_config_to_the_page(tmp_path: Path) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(TEXT)
    plan, store = build_plan(load_experiment(path, ())), Store(tmp_path / "artifacts")
    for job in plan.jobs:
        run_job(job, Context(store))
    (summary,), (report,) = plan.of("aggregate-scores"), plan.of("report")
    table = read_parquet(store.open(summary.stage, summary.key).file(SCORES_FILE))
    columns = (table[name] for name in ("method", "metric", "setting", "value", "n"))
    found = {(method, metric, setting): (value, n) for method, metric, setting, value, n in zip(*columns, strict=True)}
    metrics = ("cascading_randomisation", "random_logit", "data_randomisation")
    for (method, metric, setting), (value, n) in found.items():
        assert n == 8
        if method == "random" and metric in metrics and not setting.startswith("above"):
            assert value == 1
    assert found["gradient", "cascading_randomisation", "all randomised, ssim"][0] < 1
    assert found["gradient", "data_randomisation", "spearman"][0] < 1
    folder = store.open(report.stage, report.key).path
    page, content = (folder / "index.html").read_text(), json.loads((folder / "report.json").read_text())
    assert '<section id="sanity">' in page
    blind = next(row for row in content["sanity"]["rows"] if row["method"] == "random")
    assert [cell["reading"] for cell in blind["cells"]] == ["fails"] * len(content["sanity"]["columns"])
    assert [column["metric"] for column in content["leaderboard"]["columns"]] == []
    before = {artifact.digest for artifact in store.artifacts()}
    for job in plan.jobs:  # everything is there: nothing is made again
        run_job(job, Context(store))
    assert {artifact.digest for artifact in store.artifacts()} == before
