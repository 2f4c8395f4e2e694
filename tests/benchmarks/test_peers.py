"""The comparison with peers: the plain ROAR loop does what it says, a missing peer is said, ratios are of times."""

from __future__ import annotations

import contextlib
import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.harness import Options
from benchmarks.peers import environment, retraining
from benchmarks.peers.__main__ import Line, main, save, table
from benchmarks.peers.comparisons import comparisons, opened
from benchmarks.peers.environment import Peer, peers_python
from benchmarks.peers.plain_roar import FILES, LOADER, NOTHING, SORTING, PlainCell, Removed, ResidentBatches
from benchmarks.peers.retraining import Retraining, _plan, compare
from benchmarks.peers.worker import CASES

SIDE = 6


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    """Random pictures and maps as files."""
    generator, labels = np.random.default_rng(0), {}
    for split, count in (("train", 20), ("validation", 8), ("test", 8)):
        labels[split] = generator.integers(0, 3, count).tolist()
        for index, kind in itertools.product(range(count), ("images", "gradcam")):
            path = tmp_path / split / kind / f"{index:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(generator.permutation(SIDE * SIDE).reshape(SIDE, SIDE).astype(np.uint8)).save(path)
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    return {
        "folder": str(tmp_path), "method": "gradcam", "mode": "roar", "fraction": 0.25, "mean": [0.25] * 3,
        "std": [0.5] * 3, "epochs": 2, "batch_size": 8, "lr": 0.01, "weight_decay": 0.0, "width": 4, "classes": 3,
        "threads": 1, "workers": 0, "way": FILES,
    }  # fmt: skip


@pytest.mark.parametrize("mode", ["roar", "kar"])
@pytest.mark.parametrize("way", [FILES, SORTING, LOADER])
def test_the_plain_loop_removes_the_highest_or_lowest_quarter(settings: dict[str, Any], way: str, mode: str) -> None:
    split = Removed(Path(settings["folder"]), "test", settings | {"mode": mode}, way)
    pixels, label = split[3]
    values = np.asarray(Image.open(split.images[3])) / np.float32(255)
    scores = np.asarray(Image.open(split.maps[3]))
    gone = scores >= 27 if mode == "roar" else scores < 9  # 9 of the 36 values 0 to 35
    expected = np.where(gone, 0, (values - 0.25) / 0.5)  # the mean is 0 once it is normalised
    np.testing.assert_allclose(pixels.numpy(), np.broadcast_to(expected, (3, SIDE, SIDE)), atol=1e-6)  # float32
    assert label == split.labels[3]
    assert len(split) == 8


def test_every_way_trains_as_many_images_and_gives_an_accuracy(settings: dict[str, Any]) -> None:
    for way in (FILES, SORTING, LOADER, NOTHING):
        cell = PlainCell(settings | {"way": way})
        assert 0 <= cell() <= 1
        assert cell.images_trained == 2 * 20


def test_resident_batches_hold_every_image_once(settings: dict[str, Any]) -> None:
    batches = ResidentBatches(Removed(Path(settings["folder"]), "train", settings, NOTHING), 8, shuffle=True)
    images = torch.cat([images for images, _ in batches])
    assert len(batches) == 3
    assert sorted(images.sum((1, 2, 3)).tolist()) == sorted(batches.images.sum((1, 2, 3)).tolist())


def test_the_peers_environment_has_roarline_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = environment._command
    monkeypatch.setattr(environment, "_command", lambda *words: "" if "pip" in words else run(*words))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    python, problem = peers_python(tmp_path / ".bench-peers")
    assert problem == ""
    found = subprocess.run(
        [python, "-c", "import roarline, sys; print(sys.prefix)"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == str(tmp_path / ".bench-peers")


def test_a_missing_peer_is_said_and_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*words: str) -> str:
        return "no index in reach"

    monkeypatch.setattr(environment, "_command", fail)
    python, problem = peers_python(tmp_path / ".bench-peers")
    assert python == sys.executable
    assert problem == ".bench-peers/ can't be made: no index in reach"
    line = Line("pixel flipping", "quantus", 4, problem="quantus is not installed")
    assert "| pixel flipping | quantus | 4 |  |  |  | quantus is not installed |  |" in table([line])


def test_a_peer_in_its_process_says_how_long_it_took_and_what_fails(settings: dict[str, Any]) -> None:
    with Peer(sys.executable, "plain roar", settings) as peer:
        assert peer.run() > 0
        assert (peer.problem, peer.passes, set(peer.versions)) == ("", 40, {"torch", "pillow"})
        (Path(settings["folder"]) / "labels.json").unlink()
        assert peer.run() == 0
        assert peer.problem.startswith("FileNotFoundError")
        assert peer.run() == 0


def test_each_comparison_is_the_same_work_on_both_sides() -> None:
    """A small network; the peers' halves that this environment has no package for are not run."""
    options = Options(quick=True, threads=1, networks=("mobilenet_v2",), input_px=64)
    for comparison in comparisons(options):
        assert comparison.case in CASES
        if comparison.case in ("captum gradient", "grad-cam"):
            run, passes, _ = CASES[comparison.case](comparison.settings)
            run()
            assert passes() == 2 * comparison.settings["images"]  # one for the predicted class, one for the map
            with opened(comparison) as ours:
                ours()


def test_ratios_are_medians_of_turns(tmp_path: Path) -> None:
    line = Line("gradient", "captum 1", 4, 8, ours_s=[1.0, 1.0, 2.0], peer_s=[3.0, 9.0, 2.0])
    assert line.ratio == 3
    plain = {way: [4.0, 5.0, 4.0] for way in (FILES, SORTING, LOADER, NOTHING)}
    found = Retraining(150, grid_s=[200.0, 50.0, 300.0], plain_s=plain)
    assert found.ratio == 150 * 4 / 200
    assert "3.0 times faster" in "\n".join(found.lines())
    path = save([line], found, Options(), tmp_path)
    save([Line("other", "captum 1", 4, problem="fails")], None, Options(), tmp_path)
    saved = json.loads(path.read_text())
    assert [(one["what"], one["ratio"]) for one in saved["lines"]] == [("gradient", 3), ("other", None)]
    assert saved["retraining"]["ratio"] == 3


@pytest.mark.parametrize(("options", "turns"), [(Options(), 5), (Options(quick=True), 1)])
def test_the_plain_loop_and_the_grid_take_as_many_turns_as_asked_for(
    monkeypatch: pytest.MonkeyPatch, options: Options, turns: int
) -> None:
    class Loop:
        def run(self) -> float:
            return 1.0

    @contextlib.contextmanager
    def loops(*_: object) -> Iterator[dict[str, Loop]]:
        yield {way: Loop() for way in (FILES, SORTING, LOADER, NOTHING)}

    monkeypatch.setattr(retraining, "run_plan", lambda *_: None)
    monkeypatch.setattr(retraining, "_write_pngs", lambda *_: {})
    monkeypatch.setattr(retraining, "_plain_loops", loops)
    monkeypatch.setattr(retraining, "_grid", lambda *_: 2.0)
    found = compare(options, sys.executable)
    assert found.grid_s == [2.0] * turns
    assert set(map(len, found.plain_s.values())) == {turns}


@pytest.mark.parametrize(("quick", "cells"), [(False, 5 * 5 * 2 * 3), (True, 2)])
def test_the_grid_is_that_of_the_demo(tmp_path: Path, quick: bool, cells: int) -> None:
    jobs = _plan(tmp_path, Options(quick=quick)).of("evaluate-roar")
    modes = [job.parameters["mode"] for job in jobs]
    assert len([mode for mode in modes if mode in ("roar", "kar")]) == cells
    assert not any(job.parameters["probe"] for job in jobs)
    assert len(jobs) <= cells + 6  # nothing and everything removed, once a repeat


def test_an_unknown_peer_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["captn"])
    assert "there are captum, grad-cam, quantus, retraining" in capsys.readouterr().err
