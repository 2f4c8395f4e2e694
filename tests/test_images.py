"""Locks and images: pinned, one target for each stage, an ordinary user; what docker-run asks docker for."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest

from roarline.stages import STAGES

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ("requirements.lock", "requirements-runtime.lock")


def pins(lock: str) -> dict[str, tuple[str, int]]:
    """Requirement → (how it is pinned, number of hashes)."""
    blocks = re.split(r"(?m)^(?=\S)", (ROOT / lock).read_text())
    found: dict[str, tuple[str, int]] = {}
    for block in filter(None, blocks):
        name, version = re.match(r"([a-z0-9.-]+)(==[^ ;\\\n]+)?", block).groups()  # type: ignore[union-attr]
        found[block.partition("\\")[0].strip()] = (
            version or f"{name} is not pinned",
            len(re.findall(r"--hash=sha256:[0-9a-f]{64}\b", block)),
        )
    return found


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_pins_with_hashes_and_names_no_index(lock: str) -> None:
    for requirement, (version, hashes) in pins(lock).items():
        assert version.startswith("=="), requirement
        assert hashes > 0, requirement
    assert not re.search(r"://|index|find-links|trusted-host", (ROOT / lock).read_text())


def test_the_images_hold_what_the_tests_ran_with() -> None:
    whole, runtime = pins(LOCKS[0]), pins(LOCKS[1])
    assert runtime.items() <= whole.items()
    names = {requirement.partition("==")[0] for requirement in runtime}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {re.split(r"[<>=~!\[; ]", line)[0] for line in project["dependencies"]} <= names


def dockerfile() -> list[list[str]]:
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text())
    return [line.split() for line in text.splitlines() if line and not line.startswith("#")]


def test_the_dockerfile_has_a_target_for_each_stage() -> None:
    instructions = dockerfile()
    targets = {
        words[3]: instructions[i + 1]
        for i, words in enumerate(instructions)
        if words[0] == "FROM" and i + 1 < len(instructions)
    }
    for stage in STAGES:
        assert " ".join(targets[stage]) == f'ENTRYPOINT ["roarline", "{stage}"]'
    engine = (ROOT / "scripts/engine.sh").read_text()
    assert re.search(r'stages="(.*)"', engine)[1].split() == list(STAGES)  # type: ignore[index]


def test_the_image_has_one_base_and_an_ordinary_user() -> None:
    instructions = dockerfile()
    outside = [words for words in instructions if words[0] == "FROM" and words[1].startswith("$")]
    assert [words[1] for words in outside] == ["${BASE_IMAGE}"]
    (base,) = [words[1] for words in instructions if words[:1] == ["ARG"] and words[1].startswith("BASE_IMAGE")]
    assert re.fullmatch(r"BASE_IMAGE=nvidia/cuda:13\.0\.\d-base-ubuntu24\.04(@sha256:[0-9a-f]{64})?", base)
    users: dict[str, str] = {}  # of each image: three only build, all others are started
    name = ""
    for words in instructions:
        if words[0] == "FROM":
            name = words[3]
            users[name] = users.get(words[1], "root")
        elif words[0] == "USER":
            users[name] = words[1]
    assert {name for name, user in users.items() if user != "roarline"} == {
        "python",
        "packages",
        "wheel",
    }  # to build with
    assert "://" not in (ROOT / "Dockerfile").read_text()


class Host:
    """A folder with the scripts and one configuration, and a docker that prints what it is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "clone of it"
        self.programs = folder / "programs"
        self.programs.mkdir()
        shutil.copytree(ROOT / "scripts", self.root / "scripts")
        (self.root / "configs").mkdir()
        (self.root / "configs/a.yaml").touch()
        self.program("docker", '#!/bin/sh\n[ "$1" = info ] || printf "%s\\n" "$@"\n')

    def program(self, name: str, text: str) -> None:
        (self.programs / name).write_text(text)
        (self.programs / name).chmod(0o755)

    def run(self, *words: str, **more: str) -> list[str]:
        kept = {"PATH": f"{self.programs}:{os.environ['PATH']}", "HOME": f"{self.root}/home"}
        done = subprocess.run(
            [self.root / "scripts/docker-run.sh", *words], cwd=self.root, env=kept | more,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_docker_run_wires_mounts_ids_and_gpus(host: Host) -> None:
    host.program("nvidia-smi", "#!/bin/sh\n")
    words = host.run("train-cls", "configs/a.yaml", "--set", "a=b c")
    assert words[-4:] == ["roarline:train-cls", "configs/a.yaml", "--set", "a=b c"]
    options = dict(pairwise(words))
    assert options["--user"] == f"{os.getuid()}:{os.getgid()}"
    assert options["--gpus"] == "all"
    assert options["--shm-size"] == "8g"
    assert {words[i + 1] for i, word in enumerate(words) if word == "--volume"} == {
        f"{host.root}/artifacts:/app/artifacts",
        f"{host.root}/data:/app/data:ro",
        f"{host.root}/home/.cache/roarline:/cache",
        f"{host.root}/configs:/app/configs:ro",
    }


def test_docker_run_without_a_gpu_and_with_a_config_from_elsewhere(host: Host) -> None:
    host.program("nvidia-smi", "#!/bin/sh\nexit 1\n")
    (host.folder / "my configs").mkdir()
    (host.folder / "my configs/b.yaml").touch()
    words = host.run("run", str(host.folder / "my configs/b.yaml"), CODE=str(host.folder))
    assert words[-3:] == ["roarline:roarline", "run", "configs/b.yaml"]
    assert "--gpus" not in words
    assert f"{host.folder}/my configs:/app/configs:ro" in words
    assert f"{host.folder}:/app/code:ro" in words
