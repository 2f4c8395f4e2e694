"""`roarline cases`: the best and the worst test images of a method, in one picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from roarline.cli import run_command

TEXT = """\
name: shapes-cases
data: {{dataset: shapes, params: {{size_px: 16, train: 40, test: 12, max_shapes: 1}}}}
model: {{arch: small_cnn, params: {{width: 4}}}}
train-cls: {{epochs: 1, threads: 1, batch_size: 8}}
attribution: {{threads: 1, target: label, baselines: [random, ground_truth], methods: [{{name: gradient}}]}}
evaluate-localization: {{threads: 1, metrics: [relevance_rank_accuracy, le, f1_curve, max_box_acc]}}
runtime: {{artifacts: {artifacts}, workers: 1}}
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("cases")
    (folder / "config.yaml").write_text(TEXT.format(artifacts=folder / "artifacts"))
    return str(folder / "config.yaml")


def test_the_best_and_the_worst_are_drawn_and_what_is_missing_is_made(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new" / "cases.png"
    words = ["cases", config, "--method", "gradient", "--metric", "relevance_rank_accuracy", "-o", str(output)]
    assert run_command([*words, "--count", "4"]) == 0
    assert "4 best and 4 worst" in capsys.readouterr().out
    with Image.open(output) as picture:
        four = np.asarray(picture.convert("L"))
    assert four.std() > 10
    assert run_command([*words, "--count", "20"]) == 0  # 12 images: none is both
    assert "6 best and 6 worst" in capsys.readouterr().out
    with Image.open(output) as picture:
        assert picture.height > four.shape[0]  # more than five cases take another line


@pytest.mark.parametrize(
    ("metric", "more", "said"),
    [
        ("max_box_acc", ["--method", "random"], "max_box_acc has no score for each row"),
        ("f1_curve", ["--method", "random", "--setting", "threshold=0.35"], "no setting 'threshold=0.35'"),
        ("le", ["--method", "randon"], "did you mean 'random'"),
        ("lee", ["--method", "random"], "no metric is 'lee'"),
        ("morf", ["--method", "random"], "morf is computed by evaluate-perturbation"),
        ("le", ["--method", "random", "-o", "cases.gif"], "cases.gif"),
    ],
)
def test_what_can_not_be_drawn_says_why(
    config: str, metric: str, more: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["cases", config, "--metric", metric, *more]) == 2
    assert said in capsys.readouterr().err
