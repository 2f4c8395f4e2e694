"""Damaged artifacts, full disks, broken methods and images: a message that names it, and nothing finished is lost."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from roarline.artifacts.maps import MapsFile
from tests.end_to_end.conftest import TINY, Program


@pytest.fixture
def finished(program: Program, undisturbed: Program) -> Program:
    """A finished run that may be damaged."""
    shutil.copytree(undisturbed.folder, program.folder, dirs_exist_ok=True)
    return program


def flip(path: Path, where: int) -> None:
    data = bytearray(path.read_bytes())
    data[where % len(data)] ^= 0x10
    path.write_bytes(data)


def test_flipped_byte_in_any_file_of_any_artifact_is_found_by_verify(finished: Program) -> None:
    victims = {}
    for artifact in finished.store.artifacts():
        for name in artifact.manifest.files:
            victims.setdefault((artifact.manifest.stage, name), artifact.path / name)
    for index, path in enumerate(victims.values()):
        flip(path, 7919 * (index + 1))
    said = finished("verify", code=1)
    for path in victims.values():
        assert str(path.relative_to(finished.folder)) in said
    assert f"{len(victims)} problems" in said


@pytest.mark.parametrize(
    ("stage", "name", "reader"),
    [
        ("prepare-data", "dataset.h5", "train-cls"),
        ("train-cls", "weights.safetensors", "extract-attribution-maps"),
        ("extract-attribution-maps", "maps.h5", "evaluate-perturbation"),
        ("evaluate-perturbation", "scores.parquet", "aggregate-scores"),
        ("evaluate-roar", "predictions.parquet", "aggregate-scores"),
        ("aggregate-scores", "scores.parquet", "report"),
    ],
)
def test_flipped_byte_is_found_by_the_stage_that_reads_it(
    finished: Program, stage: str, name: str, reader: str
) -> None:
    for artifact in list(finished.store.artifacts()):
        if artifact.manifest.stage in (reader, "report"):
            shutil.rmtree(artifact.path)
        elif artifact.manifest.stage == stage:
            flip(artifact.path / name, 100)
    before = finished.digests()
    said = finished(reader, "tiny.yaml", code=1)
    assert name in said
    assert "SHA-256" in said
    assert "run again" in said
    assert before.items() <= finished.digests().items()


@pytest.mark.parametrize(("stage", "name"), [("aggregate-scores", "scores.csv"), ("report", "index.html")])
def test_a_damaged_result_is_not_shown_again(finished: Program, stage: str, name: str) -> None:
    artifact = next(a for a in finished.store.artifacts() if a.manifest.stage == stage)
    view = next((finished.folder / "artifacts" / "experiments").glob(f"*/**/{name}"))
    shown = view.read_bytes()
    flip(artifact.path / name, 100)
    said = finished("run", "tiny.yaml", code=1)
    assert name in said
    assert "SHA-256" in said
    assert view.read_bytes() == shown


def test_truncated_hdf5_file_is_named(finished: Program) -> None:
    for artifact in list(finished.store.artifacts()):
        if artifact.manifest.stage in ("evaluate-perturbation", "evaluate-roar", "aggregate-scores", "report"):
            shutil.rmtree(artifact.path)
        elif artifact.manifest.stage == "extract-attribution-maps":
            path = artifact.path / "maps.h5"
            path.write_bytes(path.read_bytes()[:-100])
    said = finished("run", "tiny.yaml", code=1)
    assert "maps.h5" in said
    assert "truncated" in said


def failing_method(program: Program, body: str, code: int = 2) -> str:
    (program.folder / "failing.py").write_text(f"import torch\ndef method(model, images, targets):\n    {body}\n")
    text = TINY.replace("    - {name: random}\n", "    - {name: random}\n    - {name: mine, method: failing.method}\n")
    said = program("run", program.config(text), code=code)
    stages = [a.manifest.stage for a in program.store.artifacts()]
    assert stages.count("extract-attribution-maps") == 9, "the other methods' maps are kept"
    assert stages.count("evaluate-perturbation") == 3
    return said


def test_nan_map_names_the_sample(program: Program) -> None:
    said = failing_method(program, "m = images.sum(1); m[0, 0, 0] = float('nan'); return m")
    assert "NaN" in said
    assert "sample" in said
    assert "Traceback" not in said


def test_wrong_shape_says_what_was_expected_and_what_came(program: Program) -> None:
    said = failing_method(program, "return images[:, :, :4, :4]")
    assert "8" in said
    assert "4" in said
    assert "mine" in said or "failing.method" in said
    assert "Traceback" not in said


def test_a_method_that_raises_is_named(program: Program) -> None:
    assert "ZeroDivisionError" in failing_method(program, "return 1 / 0")


def test_a_method_that_kills_its_worker_is_tried_again_and_then_reported(program: Program) -> None:
    said = failing_method(program, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)", code=1)
    assert "SIGKILL" in said
    assert "3 times" in said


def test_status_shows_what_failed_and_why(program: Program) -> None:
    failing_method(program, "return 1 / 0")
    said = program("status", "tiny.yaml")
    assert "failed: extract-attribution-maps mine" in said
    assert "ZeroDivisionError" in said


def folder_of_images(root: Path, classes: int = 3) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("test", 3)):
        for name in range(classes):
            folder = root / split / f"class{name}"
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.jpg")


FOLDER = TINY.replace(
    "dataset: digits, limit: {train: 200, validation: 60, test: 60}", "dataset: image_folder, root: images"
)


def test_unreadable_jpeg_is_named(program: Program) -> None:
    folder_of_images(program.folder / "images")
    victim = program.folder / "images" / "train" / "class1" / "5.jpg"
    victim.write_bytes(victim.read_bytes()[:200])
    said = program("prepare-data", program.config(FOLDER), code=2)
    assert "train/class1/5.jpg" in said
    assert "Traceback" not in said


def test_class_counts_that_differ_between_classifier_and_data(program: Program) -> None:
    config = program.config()
    program("train-cls", config)
    weights = next(a for a in program.store.artifacts() if a.manifest.stage == "train-cls").path / "weights.safetensors"
    shutil.copy(weights, program.folder / "ten_classes.safetensors")
    folder_of_images(program.folder / "images")
    text = FOLDER.replace("params: {width: 8}}", "params: {width: 8}, weights: ./ten_classes.safetensors}")
    text = text.replace("train-cls:", "anchors:").replace("evaluate-roar:", "anchors2:")
    lines = [line for line in text.splitlines() if not line.startswith(("anchors2", "anchors"))]
    said = program("train-cls", program.config("\n".join(lines), "three.yaml"), code=2)
    assert "10" in said
    assert "3" in said
    assert "class" in said


def needs_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    done = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"can't mount here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_full_disk_is_said_and_what_was_finished_is_kept(program: Program, undisturbed: Program) -> None:
    needs_root()
    artifacts = program.folder / "artifacts"
    artifacts.mkdir()
    with mounted(artifacts, "-t", "tmpfs", "-o", "size=700k", "tmpfs"):
        said = program("run", program.config(), code=1)
        assert "disk is full" in said
        assert "Traceback" not in said
        kept = program.digests()
        assert kept
        assert kept.items() <= undisturbed.digests().items()
        subprocess.run(["mount", "-o", "remount,size=100m", str(artifacts)], check=True)
        program("run", "tiny.yaml")
        assert program.digests() == undisturbed.digests()


def test_read_only_artifact_folder(finished: Program) -> None:
    needs_root()
    artifacts = finished.folder / "artifacts"
    with mounted(artifacts, "--bind", str(artifacts)):
        subprocess.run(["mount", "-o", "remount,ro,bind", str(artifacts)], check=True)
        assert "cached (100%)" in finished("run", "tiny.yaml")
        said = finished("run", "tiny.yaml", "--set", "train-cls.epochs=1", code=1)
        assert "can't write here" in said
        assert "runtime.artifacts" in said
        assert "Traceback" not in said


def test_retraining_on_images_that_are_files_not_packed(program: Program) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 4)):
        for name in range(2):
            folder = program.folder / "images" / split / f"class{name}"
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 256, (128, 128, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
    text = FOLDER.replace("root: images", "root: images, pack_limit_mb: 1").replace("repeats: 2", "repeats: 1")
    program("run", program.config(text))
    dataset = next(a for a in program.store.artifacts() if a.manifest.stage == "prepare-data")
    assert (dataset.path / "dataset.h5").stat().st_size < 2**19


def test_gc_keeps_what_a_failed_run_has_finished(program: Program) -> None:
    failing_method(program, "return 1 / 0")
    before = program.digests()
    program("gc", "--yes")
    assert program.digests() == before


def test_a_method_that_changes_its_targets_or_the_process_spoils_nothing(program: Program) -> None:
    (program.folder / "rude.py").write_text(
        "import torch\n"
        "def method(model, images, targets):\n"
        "    targets.zero_(); torch.set_default_dtype(torch.float64); return images.sum(1).float()\n"
    )
    text = TINY.replace("  methods:\n", "  methods:\n    - {name: mine, method: rude.method}\n")
    text = "\n".join(line for line in text.splitlines() if not line.startswith("evaluate-roar"))
    program("run", program.config(text))
    targets = []
    for artifact in program.store.artifacts():
        if artifact.manifest.stage == "extract-attribution-maps":
            with MapsFile(artifact.file("maps.h5")) as maps:
                targets.append(maps.targets.tolist())
    assert len(targets) == 4
    assert all(found == targets[0] for found in targets)


def test_a_damaged_view_is_written_anew(finished: Program) -> None:
    view = finished.folder / "artifacts" / "experiments" / "tiny" / "experiment.json"
    for text in ("{", '{"x": 1}'):
        view.write_text(text)
        assert "experiment.json" in finished("gc", "--yes", code=1)
        finished("run", "tiny.yaml")
        assert '"jobs"' in view.read_text()
