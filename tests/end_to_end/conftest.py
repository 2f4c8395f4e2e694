"""Runs of the true program in a process of its own, on a tiny config of the demo's shape."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from roarline.artifacts.store import Store

TINY = """\
name: tiny
seed: 3
data: {dataset: digits, limit: {train: 200, validation: 60, test: 60}, validation_fraction: 0.2}
model: {arch: small_cnn, params: {width: 8}}
train-cls: {epochs: 2, batch_size: 32, threads: 1, optimizer: {name: adam, lr: 5.0e-3}, scheduler: {name: one_cycle}}
attribution:
  threads: 1
  baselines: []
  methods:
    - {name: integrated_gradients, params: {steps: 4}}
    - {name: gradcam, params: {layer: conv2}}
    - {name: random}
evaluate-roar: {fractions: [0.5], modes: [roar], repeats: 2, engine: single}
evaluate-perturbation: {metrics: [morf, lerf, srg, insertion], steps: 4, fractions: [0.0, 0.5, 1.0], threads: 1}
aggregate-scores: {resamples: 200}
report: {gallery_images: 2}
runtime: {device: cpu, workers: 1}
"""


@dataclass
class Program:
    """`roarline` in a folder of its own."""

    folder: Path

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start it in a session of its own, so that it can be killed with its workers."""
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120", "PYTHONWARNINGS": "default"}
        return subprocess.Popen(
            [sys.executable, "-m", "roarline", *words],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __call__(self, *words: str, code: int = 0, timeout: float = 240) -> str:
        """Run it to its end and return what it printed, standard output first."""
        process = self.start(*words)
        out, err = process.communicate(timeout=timeout)
        assert process.returncode == code, f"exit code {process.returncode}, expected {code}\n{out}\n{err}"
        return out + err

    def config(self, text: str = TINY, name: str = "tiny.yaml") -> str:
        """Write a config; returns its name."""
        (self.folder / name).write_text(text)
        return name

    @property
    def store(self) -> Store:
        """Its artifacts."""
        return Store(self.folder / "artifacts")

    def digests(self) -> dict[str, str]:
        """Key to digest of every whole artifact."""
        return {f"{a.manifest.stage} {a.manifest.key}": a.digest for a in self.store.artifacts()}


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """`roarline` in an empty folder."""
    return Program(tmp_path)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Program:
    """A finished run of the tiny config; tests only read it."""
    program = Program(tmp_path_factory.mktemp("undisturbed"))
    program("run", program.config())
    return program
