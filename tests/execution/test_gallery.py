"""`roarline gallery`: maps of several experiments in one picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from roarline.cli import run_command
from roarline.config.methods import METHODS
from roarline.report.contact_sheet import Column, Sheet, draw_sheet

CONFIGS = Path(__file__).parents[2] / "configs/gallery"
TEXT = """\
name: {name}
data: {{dataset: digits, limit: {{train: 40, validation: 10, test: 12}}}}
model: {{arch: small_cnn, params: {{width: 4}}}}
train-cls: {{epochs: 1, threads: 1, batch_size: 8{more}}}
attribution: {{threads: 1, baselines: [random], limit: {limit}, methods: [{methods}]}}
runtime: {{artifacts: {artifacts}, workers: 1}}
"""


def write(folder: Path, name: str, methods: str, limit: str = "null", more: str = "") -> str:
    path = folder / f"{name}.yaml"
    path.write_text(TEXT.format(name=name, methods=methods, limit=limit, more=more, artifacts=folder / "artifacts"))
    return str(path)


def test_columns_of_both_experiments_stand_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fast = write(tmp_path, "fast", "{name: gradient}")
    slow = write(tmp_path, "slow", "{name: smooth, method: gradient, smooth: {samples: 3}}", limit="4")
    output = tmp_path / "new" / "sheet.png"
    assert run_command(["gallery", fast, slow, "-o", str(output), "--images", "9"]) == 0
    said = capsys.readouterr().out
    assert "4 images, 3 methods" in said  # gradient, random, smooth: what both have stands once
    with Image.open(output) as picture:
        assert picture.width > 5 * 128
        assert np.asarray(picture.convert("L")).std() > 10


@pytest.mark.parametrize("name", ["cifar10", "imagenet"])
def test_the_recipes_show_every_method_that_is_no_control(name: str) -> None:
    shown = set()
    for path in (CONFIGS / f"{name}-all.yaml", CONFIGS / f"{name}-16.yaml"):
        methods = yaml.safe_load(path.read_text())["attribution"]["methods"]
        shown |= {entry.get("method", entry["name"]) for entry in methods}
    to_train = {"explainer"}  # draws the masks of a network that must be trained first
    assert {method for method, component in METHODS.items() if not component.baseline} - to_train <= shown


def test_other_classifiers_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = write(tmp_path, "one", "{name: gradient}")
    other = write(tmp_path, "other", "{name: gradient}", more=", optimizer: {name: sgd, lr: 0.1}")
    assert run_command(["gallery", one, other, "-o", str(tmp_path / "sheet.png")]) == 2
    assert "train-cls differs" in capsys.readouterr().err


def test_tiles_stand_in_their_rows_and_columns(tmp_path: Path) -> None:
    """Each tile has a colour of its own, found again at its place; a missing map leaves its place white."""
    colours = {(row, place): (40 * row + 30, 60 * place + 20, 99) for row in range(2) for place in range(3)}
    tile = {at: np.full((8, 8, 3), colour, dtype=np.uint8) for at, colour in colours.items()}
    sheet = Sheet(
        "title", [tile[0, 0], tile[1, 0]], ["a", "b"],
        [Column("m", "p 1", [tile[0, 1], None]), Column("n", "", [tile[0, 2], tile[1, 2]])],
    )  # fmt: skip
    draw_sheet(sheet, tmp_path / "sheet.png")
    pixels = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB")).astype(int)

    def centre(colour: tuple[int, int, int]) -> np.ndarray:
        places = np.argwhere((pixels == colour).all(axis=2))
        return places.mean(axis=0) if len(places) else np.full(2, np.nan)

    found = {at: centre(colour) for at, colour in colours.items()}
    assert np.isnan(found[1, 1]).all()
    for row in range(2):
        assert found[row, 2][1] - found[row, 0][1] == pytest.approx(2 * 132, abs=2)
    assert found[1, 0][0] - found[0, 0][0] == pytest.approx(132, abs=2)
