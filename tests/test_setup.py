"""The way in: taskw, the Taskfile, CI. Nothing here makes a real environment or needs a network."""

from __future__ import annotations

import os
import re
import resource
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from roarline.stages import STAGES

ROOT = Path(__file__).resolve().parents[1]
REAL_TASK = Path(sys.executable).with_name("task")

# Stands for python3, for .venv/bin/python and for pip. What it is asked to do goes to the log; `$BREAK` ends it early.
FAKE_PYTHON = """#!/bin/sh
case "$*" in
    "-m venv --without-pip"*) exit 1 ;;
    "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && echo venv >>"$LOG" ;;
    "-m pip --version") ;;
    "-m pip "*)
        shift 2
        echo "pip $* index=$PIP_INDEX_URL" >>"$LOG"
        sleep "${PIP_SECONDS:-0}"
        [ "${BREAK:-}" != "$*" ] || exit 1
        [ -z "${KILL:-}" ] || kill -9 0
        bin=$(dirname "$0")
        printf '#!/bin/sh\\nprintf "[%%s]" "$@"\\n' >"$bin/task" && chmod +x "$bin/task" ;;
    "-I -c"*) ;;
    *) exec "$REAL_PYTHON" "$@" ;;
esac
"""


class Clone:
    """A folder with taskw and what it reads, and a PATH on which programs can be replaced."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "clone of it"
        self.programs = folder / "programs"
        self.log = folder / "log"
        self.root.mkdir()
        self.programs.mkdir()
        for name in ("taskw", "Taskfile.yml", "pyproject.toml", "requirements.lock"):
            shutil.copy(ROOT / name, self.root / name)
        for name in ("python3", "python3.13", "python3.12", "python3.11", "python3.14"):
            self.program(name, FAKE_PYTHON)

    def program(self, name: str, text: str) -> None:
        path = self.programs / name
        path.write_text(text)
        path.chmod(0o755)

    def environment(self, **more: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name not in ("PYTHON", "TMPDIR")}
        return kept | {
            "PATH": f"{self.programs}:{os.environ['PATH']}",
            "LOG": str(self.log),
            "REAL_PYTHON": sys.executable,
            "ROARLINE_SETUP_FREE_GB": "0",
            **more,
        }

    def start(
        self, *words: str, program: Path | None = None, cwd: Path | None = None, **more: str
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [program or self.root / "taskw", *words], cwd=cwd or self.root, env=self.environment(**more),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def call(self, *words: str, **more: object) -> subprocess.CompletedProcess[str]:
        process = self.start(*words, **more)  # type: ignore[arg-type]
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def logged(self) -> list[str]:
        """What python and pip were asked to do since the last question."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return lines


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


@pytest.fixture
def ready(clone: Clone) -> Clone:
    assert clone.call("--setup").returncode == 0
    clone.logged()
    return clone


def one_line(text: str) -> str:
    assert text.count("\n") == 1
    return text


# ---------------------------------------------------------------------------------------------- taskw: what it needs


def test_a_python_that_is_too_old_is_named_in_one_line(clone: Clone) -> None:
    for name in ("python3", "python3.13", "python3.12", "python3.11", "python3.14"):
        clone.program(name, '#!/bin/sh\ncase "$*" in *print*) echo 3.9.2 ;; *) exit 1 ;; esac\n')
    done = clone.call("demo")
    assert done.returncode == 1
    assert "3.11 or newer" in one_line(done.stderr)
    assert "python3 is 3.9.2" in done.stderr
    assert not (clone.root / ".venv").exists()


def test_a_newer_python_is_found_behind_an_old_python3(clone: Clone) -> None:
    clone.program("python3", '#!/bin/sh\ncase "$*" in *print*) echo 3.9.2 ;; *) exit 1 ;; esac\n')
    assert clone.call("demo").returncode == 0


def test_the_python_that_PYTHON_names_is_never_replaced(clone: Clone) -> None:
    done = clone.call("demo", PYTHON="python3.99")
    assert done.returncode == 1
    assert "no python3.99 was found" in one_line(done.stderr)


def test_a_full_disk_is_noticed_before_anything_is_made(clone: Clone) -> None:
    clone.program("df", "#!/bin/sh\necho header\necho /dev/disk 9000000 6000000 3000000 67% /\n")
    done = clone.call("demo", ROARLINE_SETUP_FREE_GB="8")
    assert done.returncode == 1
    assert f"needs 8 GB in {clone.root}, where 3 GB are free" in one_line(done.stderr)
    assert clone.logged() == []
    assert clone.call("demo", ROARLINE_SETUP_FREE_GB="3").returncode == 0


def test_a_python_without_pip_is_told_what_to_install(clone: Clone) -> None:
    clone.program("python3", FAKE_PYTHON.replace('"-m pip --version") ;;', '"-m pip"*) exit 1 ;;'))
    done = clone.call("demo")
    assert done.returncode == 1
    assert "neither ensurepip nor a pip" in done.stderr
    assert not (clone.root / ".venv/stamp").exists()


def test_a_venv_that_taskw_did_not_make_is_left_alone(clone: Clone) -> None:
    (clone.root / ".venv").mkdir()
    (clone.root / ".venv/mine").write_text("keep")
    done = clone.call("demo")
    assert done.returncode == 1
    assert "taskw did not make it" in one_line(done.stderr)
    assert (clone.root / ".venv/mine").read_text() == "keep"


# ---------------------------------------------------------------------------------------------- taskw: what it does


def test_the_first_call_installs_the_lock_with_hashes_then_hands_over(clone: Clone) -> None:
    done = clone.call("demo", "A=b c", PIP_INDEX_URL="mirror")
    assert done.returncode == 0
    assert done.stdout == f"[--exit-code][--taskfile][{clone.root}/Taskfile.yml][demo][A=b c]"
    venv, lock, itself = clone.logged()
    assert venv == "venv"
    assert "--require-hashes -r" in lock
    assert lock.endswith("requirements.lock index=mirror")
    assert "--no-deps --no-build-isolation -e" in itself
    assert not re.search(r"--(extra-)?index|--find-links|://", (ROOT / "taskw").read_text())


def test_the_second_call_starts_at_once(ready: Clone) -> None:
    """In processor time, which other work on the machine moves little."""
    seconds = []
    for _ in range(10):
        before = processor_s()
        assert ready.call("--setup").returncode == 0
        seconds.append(processor_s() - before)
    assert ready.logged() == []
    assert min(seconds) < 0.1


def processor_s() -> float:
    """Processor time of the child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_taskw_works_from_any_folder_and_through_links(ready: Clone, tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far/absolute").symlink_to(ready.root / "taskw")
    (tmp_path / "relative").symlink_to("far/absolute")
    done = ready.call("demo", program=tmp_path / "relative", cwd=tmp_path / "far")
    assert done.stdout.endswith(f"[{ready.root}/Taskfile.yml][demo]")
    assert ready.logged() == []


def test_a_changed_lock_is_installed_into_the_same_venv(ready: Clone) -> None:
    with (ready.root / "requirements.lock").open("a") as lock:
        lock.write("# changed\n")
    assert ready.call("demo").returncode == 0
    assert [line.split()[1:3] for line in ready.logged()] == [["install", "--quiet"]] * 2
    assert ready.call("demo").returncode == 0
    assert ready.logged() == []


def test_a_changed_pyproject_installs_only_roarline_again(ready: Clone) -> None:
    with (ready.root / "pyproject.toml").open("a") as project:
        project.write("# changed\n")
    assert ready.call("demo").returncode == 0
    (line,) = ready.logged()
    assert "-e" in line.split()


def test_a_moved_folder_gets_a_new_venv(ready: Clone, tmp_path: Path) -> None:
    ready.root = ready.root.rename(tmp_path / "elsewhere")
    assert ready.call("demo").returncode == 0
    assert ready.logged()[0] == "venv"


def test_another_python_behind_the_link_gets_a_new_venv(ready: Clone) -> None:
    facts = ready.root / ".venv/stamp/facts"
    facts.write_text(re.sub(r"python .*", "python cpython-310", facts.read_text()))
    assert ready.call("demo").returncode == 0
    assert ready.logged()[0] == "venv"


@pytest.mark.parametrize("state", ["new", "update"])
def test_an_interrupted_set_up_begins_again(clone: Clone, state: str) -> None:
    if state == "update":
        assert clone.call("--setup").returncode == 0
        (clone.root / "requirements.lock").write_text("# changed\n")
    clone.logged()
    killed = clone.call("demo", KILL="yes")
    assert killed.returncode < 0
    assert killed.stdout == ""
    assert not (clone.root / ".venv/stamp").exists()
    clone.logged()
    assert clone.call("demo").returncode == 0
    assert [line.split()[0] for line in clone.logged()] == ["venv", "pip", "pip"]


def test_after_a_failed_update_the_old_lock_is_installed_again_too(ready: Clone) -> None:
    lock = ready.root / "requirements.lock"
    old = lock.read_text()
    lock.write_text("# changed\n")
    failed = ready.call(
        "demo", BREAK=f"install --quiet --require-hashes -r {ready.root}/.venv/stamp.next/requirements.lock"
    )
    assert failed.returncode == 1
    assert "could not install requirements.lock" in failed.stderr
    lock.write_text(old)
    ready.logged()
    assert ready.call("demo").returncode == 0
    assert [line.split()[0] for line in ready.logged()] == ["pip", "pip"]


def test_two_calls_at_once_make_one_venv(clone: Clone) -> None:
    calls = [clone.start("demo", PIP_SECONDS="0.3") for _ in range(3)]
    results = [call.communicate(timeout=60) for call in calls]
    assert [call.returncode for call in calls] == [0, 0, 0]
    assert sum("waiting for it" in err for _, err in results) == 2
    assert [line.split()[0] for line in clone.logged()] == ["venv", "pip", "pip"]


# ---------------------------------------------------------------------------------------------- the Taskfile


def taskfile() -> dict[str, dict[str, object]]:
    tasks: dict[str, dict[str, object]] = yaml.safe_load((ROOT / "Taskfile.yml").read_text())["tasks"]
    return tasks


def test_every_task_is_explained_in_one_line() -> None:
    public = {name: task for name, task in taskfile().items() if not task.get("internal") and name != "default"}
    for name, task in public.items():
        text = task.get("desc")
        assert isinstance(text, str), name
        assert 0 < len(text) <= 120, name
        assert "\n" not in text, name


def test_there_is_a_task_for_every_stage_and_chore() -> None:
    tasks = taskfile()
    assert tasks.keys() >= {*STAGES, "demo", "test", "check", "roar", "bench", "gallery"}
    assert tasks.keys() >= {"docker-build", "docker-run", "bash-docker", "docker-check"}
    assert tasks["evaluate-perturbation"]["aliases"] == ["lerf"]


@pytest.fixture
def project(clone: Clone) -> Clone:
    """A clone whose roarline prints its words and ends with 2, with the real task program beside it."""
    if not REAL_TASK.exists():
        pytest.skip("no task program in this environment; ./taskw test has one")
    (clone.root / ".venv/bin").mkdir(parents=True)
    clone.program("task", f'#!/bin/sh\nexec "{REAL_TASK}" "$@"\n')
    (clone.root / "taskw").write_text('echo "set up $*" >>"$LOG"\n')
    program = clone.root / ".venv/bin/roarline"
    program.write_text('#!/bin/sh\nprintf "[%s]" "$@"\nexit 2\n')
    program.chmod(0o755)
    return clone


def run_task(project: Clone, *words: str, **more: object) -> subprocess.CompletedProcess[str]:
    return project.call("--exit-code", *words, program=project.programs / "task", **more)


def test_config_and_settings_reach_the_program(project: Clone) -> None:
    done = run_task(
        project, "train-cls", "CONFIG=a b.yaml", 'SET=train-cls.epochs=3 x=[0.1,0.5] d="e f"', "--", "--set", "g=h i"
    )
    words = [
        "train-cls",
        "a b.yaml",
        "--set",
        "train-cls.epochs=3",
        "--set",
        "x=[0.1,0.5]",
        "--set",
        "d=e f",
        "--set",
        "g=h i",
    ]
    assert done.stdout == "".join(f"[{word}]" for word in words)
    assert done.returncode == 2
    assert project.logged() == ["set up --setup"]


@pytest.mark.parametrize(
    ("task", "stage"), [*((stage, stage) for stage in STAGES), ("lerf", "evaluate-perturbation"), ("roar", "run")]
)
def test_a_stage_task_calls_its_stage(project: Clone, task: str, stage: str) -> None:
    assert run_task(project, task, "CONFIG=a.yaml").stdout == f"[{stage}][a.yaml]"


def test_the_gallery_is_of_one_config_or_of_the_shipped_ones(project: Clone) -> None:
    assert run_task(project, "gallery", "CONFIG=a.yaml").stdout == "[gallery][a.yaml]"
    (project.root / "scripts").mkdir()
    shutil.copy(ROOT / "scripts/gallery.sh", project.root / "scripts")
    (project.root / "configs/gallery").mkdir(parents=True)
    for name in ("one-all", "one-16", "absent-all", "absent-16"):
        root = "configs" if name.startswith("one") else "nowhere"
        (project.root / f"configs/gallery/{name}.yaml").write_text(f"data:\n  root: {root}\n")
    done = run_task(project, "gallery")
    assert "skipping absent: its images are not at nowhere" in done.stderr
    words = ["gallery", "configs/gallery/one-all.yaml", "configs/gallery/one-16.yaml", "--output"]
    assert done.stdout == "".join(f"[{word}]" for word in [*words, "artifacts/gallery/one.png"])


def test_a_missing_config_is_asked_for_and_never_guessed(project: Clone) -> None:
    done = run_task(project, "train-cls")
    assert "task train-cls CONFIG=configs/digits.yaml" in done.stderr
    assert done.returncode != 0
    assert done.stdout == ""
    assert "task roar CONFIG=configs/digits.yaml" in run_task(project, "roar").stderr
    assert run_task(project, "demo").stdout == "[run][configs/digits.yaml]"


def test_a_config_is_found_from_where_the_user_stands(project: Clone) -> None:
    folder = project.root / "sub"
    folder.mkdir()
    (folder / "a.yaml").touch()
    assert run_task(project, "report", "CONFIG=a.yaml", cwd=folder).stdout == f"[report][{folder}/a.yaml]"


# ---------------------------------------------------------------------------------------------- CI, folders


@pytest.mark.parametrize(
    "script", ["taskw", ".ci/run", *(f"scripts/{path.name}" for path in sorted((ROOT / "scripts").glob("*.sh")))]
)
def test_scripts_parse_and_can_be_called(script: str) -> None:
    path = ROOT / script
    shell = "bash" if "bash" in path.read_text().splitlines()[0] else "sh"
    subprocess.run([shell, "-n", path], check=True)
    assert script == "scripts/engine.sh" or path.stat().st_mode & stat.S_IXUSR


def test_ci_and_readme_call_tasks_that_there_are() -> None:
    ci = (ROOT / ".ci/run").read_text()
    assert re.findall(r"^\./taskw (\S+)", ci, re.MULTILINE) == ["check", "test"]
    known = taskfile().keys() | {"lerf", "--list", "--setup"}
    for page in ("README.md", "CONTRIBUTING.md", "docs/docker.md"):
        named = re.findall(r"(?:\./taskw|^task|`task) ([a-z-]+)", (ROOT / page).read_text(), re.MULTILINE)
        assert set(named) <= known, page


@pytest.mark.parametrize("folder", ["data", "artifacts"])
def test_what_lands_in_data_and_artifacts_is_ignored(folder: str) -> None:
    assert (ROOT / folder / ".gitignore").read_text().split() == ["*", "!.gitignore", "!README.md"]
    assert (ROOT / folder / "README.md").is_file()
