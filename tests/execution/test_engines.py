"""The rule behind `engine: auto`: by device and size of a step, from the configuration alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from roarline.config.load import load_experiment
from roarline.execution import devices
from roarline.execution.engines import engine_of, known_side_px, stack_size
from roarline.execution.plan import build_plan

TEXT = """\
name: t
data: {dataset: digits}
model: {arch: small_cnn, params: {width: 16}}
train-cls: {epochs: 3, batch_size: 64}
attribution: {baselines: [], methods: [{name: random}]}
evaluate-roar: {fractions: [0.2], repeats: 1}
runtime: {device: cpu}
"""
CIFAR = "data={dataset: cifar10, root: nowhere}"
RESNET8 = "model={arch: resnet8}"


def engine(folder: Path, *overrides: str) -> str:
    return engine_of(experiment(folder, *overrides))


def experiment(folder: Path, *overrides: str):
    path = folder / "config.yaml"
    path.write_text(TEXT)
    return load_experiment(path, list(overrides))


@pytest.mark.parametrize(
    ("expected", "overrides"),
    [
        ("stacked", []),  # 0.5 million operations an image, 64 images
        ("single", ["train-cls.batch_size=256"]),
        ("single", ["evaluate-roar.training={batch_size: 256}"]),
        ("stacked", ["train-cls.batch_size=256", "evaluate-roar.training={batch_size: 64}"]),
        ("single", ["data.resize_px=32"]),
        ("single", [CIFAR, RESNET8]),
        ("single", ["runtime.device=cuda", CIFAR, RESNET8]),
        ("stacked", ["runtime.device=cuda:1", "train-cls.batch_size=1024"]),
        ("single", ["model={arch: 'torchvision:resnet18'}"]),  # its size is not known without torch
        ("single", ["train-cls.precision=float16"]),
        ("single", ["train-cls.gradient_accumulation=2"]),
        ("single", ["evaluate-roar.engine=single"]),
        ("stacked", ["evaluate-roar.engine=stacked", CIFAR, RESNET8]),
    ],
)
def test_the_rule(tmp_path: Path, expected: str, overrides: list[str]) -> None:
    assert engine(tmp_path, *overrides) == expected


def test_where_the_device_is_left_open_a_driver_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("runtime.device=auto", "train-cls.batch_size=1024")
    for there, expected, size in ((False, "single", 5), (True, "stacked", 32)):
        monkeypatch.setattr(devices, "_may_have_gpu", lambda there=there: there)
        assert engine(tmp_path, *words) == expected
        assert stack_size(experiment(tmp_path, *words)) == size


@pytest.mark.parametrize(
    ("overrides", "side"),
    [
        ([], 8),
        ([CIFAR], 32),
        (["data={dataset: shapes, params: {size_px: 48}}"], 48),
        (["data={dataset: image_folder, root: nowhere}"], None),
        (["data={dataset: image_folder, root: nowhere, resize_px: 40, crop_px: 36}"], 36),
    ],
)
def test_the_side_of_the_images_where_the_configuration_tells_it(tmp_path, overrides, side) -> None:
    assert known_side_px(experiment(tmp_path, *overrides).data) == side


def test_the_plan_holds_the_engine_as_resolved(tmp_path: Path) -> None:
    cells = [job for job in build_plan(experiment(tmp_path)).jobs if job.stage == "evaluate-roar"]
    assert {job.parameters["engine"] for job in cells} == {"stacked"}
    assert {job.local["stack"] for job in cells} == {5}
    alone = build_plan(experiment(tmp_path, "evaluate-roar.engine=single")).jobs
    assert not any("stack" in job.local for job in alone)


def test_planning_needs_no_torch(tmp_path: Path) -> None:
    experiment(tmp_path)
    code = (
        "import sys; from pathlib import Path; from roarline.config.load import load_experiment; "
        "from roarline.execution.plan import build_plan; import roarline.execution.stacks; "
        f"build_plan(load_experiment(Path({str(tmp_path / 'config.yaml')!r}), [])); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
