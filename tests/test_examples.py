"""examples/: the method package is found through its entry point and runs."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from roarline.config.component import locate

PACKAGE = Path(__file__).parent.parent / "examples" / "method-package"


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder with what an installer would write of the package: its code and its entry points."""
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    site = tmp_path / "site"
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = project["entry-points"]
    lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in points.items()) for group, points in groups.items()]
    (info / "entry_points.txt").write_text("\n".join(lines))
    for folder in (PACKAGE / "src").iterdir():
        if not folder.name.endswith(".egg-info"):
            (site / folder.name).symlink_to(folder)
    return site


def roarline(site: Path, tmp_path: Path, *words: str) -> str:
    environment = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(
        [sys.executable, "-m", "roarline", *words], cwd=tmp_path, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_package_is_on_the_shelf_and_in_the_comparison(installed: Path, tmp_path: Path) -> None:
    assert "local_contrast" in roarline(installed, tmp_path, "list", "methods")
    small = ["--set", "data.limit={train: 200, test: 24}", "--set", "train-cls.epochs=1"]
    shown = roarline(installed, tmp_path, "run", str(PACKAGE / "digits.yaml"), *small)
    assert "local_contrast" in shown
    assert "report" in shown


def test_its_source_is_in_the_key(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(installed))
    found = locate("local_contrast", "roarline.methods")
    assert found.dotted_path == "roarline_local_contrast.method.local_contrast"
    assert Path(found.source_file).name == "method.py"


def test_on_an_additive_model_it_is_the_drop_of_each_patch(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """logit = Σ x²: a patch flattened to its mean loses its variance times its size."""
    monkeypatch.syspath_prepend(str(installed))
    from roarline_local_contrast.method import local_contrast

    images = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def model(batch: torch.Tensor) -> torch.Tensor:
        return batch.square().sum(dim=(1, 2, 3))[:, None]

    found = local_contrast(model, images, torch.tensor([0, 0]), patch_px=3, batch=3)
    patches = images.unfold(2, 3, 3).unfold(3, 3, 3).flatten(4)  # [B, C, 2, 2, 9]
    expected = (patches - patches.mean(dim=-1, keepdim=True)).square().sum(dim=(1, 4))
    torch.testing.assert_close(found, expected.repeat_interleave(3, dim=1).repeat_interleave(3, dim=2))
