"""What metrics declare against what the plan gives their jobs: who calls the method again, and takes its gradients."""

from __future__ import annotations

from pathlib import Path

import pytest

from roarline.config.load import load_experiment
from roarline.config.metrics import METRICS
from roarline.execution.plan import build_plan
from roarline.execution.planned import Plan

TEXT = """\
name: one
data: {dataset: shapes}
model: {arch: small_cnn}
train-cls: {epochs: 1, loss: binary_cross_entropy}
attribution: {target: every-label, baselines: [], methods: [{name: gradient}, {name: random}]}
"""


def plan_of(metric: str, folder: Path) -> Plan:
    """An experiment that asks for nothing but one metric."""
    stage = METRICS[metric].stage
    if stage == "evaluate-roar":
        mode = "recursive_roar" if metric.startswith("recursive") else metric.split("_")[0]
        section = f"{{modes: [{mode}], fractions: [0.3, 0.6]}}"
    else:
        section = "{}" if stage in ("evaluate-f-fidelity", "evaluate-idsds") else f"{{metrics: [{metric}]}}"
    path = folder / "one.yaml"
    others = {component.stage for component in METRICS.values()} - {stage}
    path.write_text(f"{TEXT}{stage}: {section}\n" + "".join(f"{other}: null\n" for other in sorted(others)))
    return build_plan(load_experiment(path, []))


@pytest.mark.parametrize("metric", METRICS)
def test_who_calls_the_method_again_needs_its_gradients(metric: str, tmp_path: Path) -> None:
    """A job of an evaluation that is told a method, or maps of another network than the experiment's."""
    plan = plan_of(metric, tmp_path)
    (classifier,) = plan.of("train-cls")
    jobs = [job for job in plan.jobs if job.stage == METRICS[metric].stage]
    assert jobs
    called = any({"method", "attribution"} & {*job.parameters} for job in jobs) or any(
        job.stage == "extract-attribution-maps" and job.inputs["classifier"][1] != classifier.key for job in plan.jobs
    )
    assert called == ("gradients" in METRICS[metric].needs)
