"""The grid on a GPU: cells as the project asks for them, images a second of each layout, the default beside others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import grid_on_gpu
from benchmarks.cells import Layout
from benchmarks.grid_on_gpu import GRID, LAYOUTS, QUICK_GRID, Grid, lines_of, measure, measure_grid
from benchmarks.harness import Options
from roarline.artifacts.store import Store
from roarline.config.experiment import Experiment
from roarline.execution.engines import engine_of
from roarline.execution.plan import build_plan
from roarline.execution.run_job import run_job
from roarline.stages.job import Context

TINY = Grid("small_cnn", 16, batch_size=16, images=32, others=8, epochs=2, fractions=(0.5,))
SECONDS = {
    "single, one process": [2.0, 1.0, 9.0],
    "stacked, one process": [4.0] * 3,
    "single, two processes": [1.0] * 3,
}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("grid", [GRID, QUICK_GRID])
def test_cells_are_the_originals_network_in_the_fast_form(grid: Grid, name: str) -> None:
    experiment = Experiment.model_validate(grid.experiment(LAYOUTS[name], "cuda:0"))
    cells = [job for job in build_plan(experiment).of("evaluate-roar") if job.parameters["mode"] != "reference"]
    assert len(cells) == 2 * len(grid.fractions)
    for cell in cells:
        training = cell.parameters["training"]
        assert (training["batch_size"], training["precision"], training["channels_last"]) == (256, "bfloat16", True)
        assert training["augmentation"] == {"crop_padding_px": 4, "horizontal_flip": True}
        assert training["epochs"] == grid.epochs
        assert (cell.parameters["model"]["arch"], cell.parameters["engine"]) == ("resnet8", LAYOUTS[name].engine)


def test_the_first_layout_is_what_auto_takes() -> None:
    words = GRID.experiment(LAYOUTS["single, one process"], "cuda:0")
    words["evaluate-roar"]["engine"] = "auto"
    assert engine_of(Experiment.model_validate(words)) == "single"
    assert next(iter(LAYOUTS.values())) == Layout("single", 1)


def test_rates_are_those_of_median_turns_and_asked_of_the_fastest_layout() -> None:
    lines = list(lines_of(GRID, SECONDS, cells=8, images=20_000, asked=True))
    rates, others = lines[:3], lines[3:]
    trained = 8 * 20_000 * 10
    assert all(line.passes == trained for line in lines)
    assert [line.efficiency for line in rates] == [trained / 200_000 / median for median in (2, 4, 1)]
    assert f"{trained / 2:,.0f} training images a second" in rates[0].note
    assert [line.goal for line in rates] == [None, None, 1.0]
    assert [(line.bare_choice, line.efficiency, line.goal) for line in others] == [
        ("stacked, one process", 2.0, 0.95),
        ("single, two processes", 0.5, None),
    ]


def test_of_a_smaller_gpu_no_rate_is_asked() -> None:
    lines = list(lines_of(GRID, SECONDS, cells=8, images=20_000, asked=False))
    assert [line.goal for line in lines] == [None, None, None, 0.95, None]


def test_training_images_are_those_of_the_training_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    monkeypatch.setattr(grid_on_gpu, "make_what_is_read", lambda store, jobs, cells, device: None)
    cells = grid_on_gpu.cells_of(TINY, Layout("single", 1), "cpu", store)
    monkeypatch.undo()
    assert {job.parameters["mode"] for job in cells} == {"roar", "kar"}
    plan = build_plan(Experiment.model_validate(TINY.experiment(Layout("single", 1), "cpu")))
    run_job(plan.of("prepare-data")[0], Context(store))
    assert grid_on_gpu._training_images(store, cells[0]) == 32


@pytest.mark.slow
def test_a_tiny_grid_is_made_by_each_layout(capsys: pytest.CaptureFixture[str]) -> None:
    layouts = {"single": Layout("single", 1), "stacked": Layout("stacked", 1)}
    found = list(measure_grid(TINY, layouts, Options(quick=True, threads=1, profile=True)))
    assert [line.setting.rpartition(", ")[2] for line in found[:2]] == ["single", "stacked"]
    assert all(line.efficiency > 0 and line.passes == 2 * 32 * 2 for line in found)
    assert len(found) == 3
    assert "a cell by itself" in capsys.readouterr().err


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_quick_run_on_a_gpu() -> None:
    found = list(measure(Options(device="cuda", quick=True)))
    assert len(found) == 2 * len(LAYOUTS) - 1
    assert all("TFLOP/s" in line.note for line in found[: len(LAYOUTS)])
