"""The door: exit codes and messages, without running anything."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from roarline.cli import run_command
from roarline.execution.run_job import _git_commit

REPOSITORY = Path(__file__).parents[1]
OPTIONAL = ("ray", "timm")  # a message says how to install it


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "--bogus"], "--bogus"),
        (["nope"], "No such command"),
        (["run"], "CONFIG"),
        (["run", "missing.yaml"], "missing.yaml: no such file"),
        (["list", "method"], "did you mean 'methods'?"),
        (["verify", "--artifacts", "nowhere"], "no such artifact folder"),
        (["export", "x", "--limit", "0"], "--limit"),
        ([], "Commands:"),
    ],
)
def test_wrong_input_is_exit_code_2_one_message_and_no_traceback(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(words) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert "Traceback" not in captured.err


def test_help_and_version_are_exit_code_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["--help"]) == 0
    assert run_command(["evaluate-roar", "--help"]) == 0
    assert run_command(["--version"]) == 0
    assert "roarline 0" in capsys.readouterr().out


def test_ctrl_c_is_exit_code_1_and_says_what_is_kept(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(kind: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("roarline.execution.catalogue.show", interrupted)
    assert run_command(["list", "methods"]) == 1
    assert "stopped; what was finished is kept" in capsys.readouterr().err


def test_a_defect_is_exit_code_1_and_shows_the_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("roarline.execution.catalogue.show", lambda kind: 1 / 0)
    assert run_command(["list", "methods"]) == 1
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_every_imported_package_is_declared() -> None:
    """The images install only what pyproject.toml asks for; what another package happens to bring may go away."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[^A-Za-z0-9_.-]", word)[0].lower() for word in project["dependencies"]}
    imported = set()
    for path in (REPOSITORY / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                imported.add(node.module.partition(".")[0])
    foreign = imported - set(sys.stdlib_module_names) - {"roarline", *OPTIONAL}
    providers = packages_distributions()
    assert {name for name in foreign if not {p.lower() for p in providers.get(name, [])} & declared} == set()


def test_commit_of_an_image_comes_from_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROARLINE_GIT_COMMIT", "abc")
    assert _git_commit() == "abc"
    monkeypatch.setenv("ROARLINE_GIT_COMMIT", "")
    assert _git_commit() is None
