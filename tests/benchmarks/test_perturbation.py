"""The benchmark of evaluate-perturbation measures what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.harness import Options, network
from benchmarks.perturbation import _SETTINGS, _Run, measure
from roarline.artifacts.tables import SCORES_FILE, read_parquet
from roarline.config.perturbation import EvaluatePerturbation

SMALL = Options(quick=True, threads=1, networks=("squeezenet1_1",), input_px=32)


def test_a_quick_run_gives_a_ratio_for_each_network() -> None:
    measurements = list(measure(SMALL))
    assert {(m.hot_path, m.network, m.pass_kind) for m in measurements} == {
        ("perturbation", "squeezenet1_1", "forward")
    }
    assert all(m.efficiency > 0 for m in measurements)
    assert [(m.setting, m.goal) for m in measurements] == [
        ("default metrics, 32 px", 0.9),
        ("pixel sets, perturbations, information, 32 px", 0.9),
        ("of it compression, timed apart", None),
        ("ROAD, IROF, patches, 32 px", 0.9),
        ("of it imputation, timed apart", None),
        ("of it superpixels, timed apart", None),
    ]


@pytest.mark.parametrize("settings", [{"steps": 4}, _SETTINGS["pixel sets, perturbations, information"]])
def test_passes_are_those_that_the_network_really_sees_and_scores_are_written(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    model = network("squeezenet1_1")
    seen: list[int] = []
    model.register_forward_pre_hook(lambda module, arguments: seen.append(len(arguments[0])))
    with _Run(tmp_path, model, "squeezenet1_1", 3, EvaluatePerturbation.model_validate(settings), SMALL) as run:
        for _ in range(2):  # nothing of the first run is used again in the second
            seen.clear()
            run()
            assert sum(seen) == 3 * run.passes_an_image
    table = read_parquet(tmp_path / SCORES_FILE)
    # An untrained network may say no more of a whole image of noise than of a blurred one.
    assert {s for m, s in zip(table["metric"], table["status"], strict=True) if m not in ("aic", "sic")} == {"ok"}
    assert torch.is_inference_mode_enabled() is False
