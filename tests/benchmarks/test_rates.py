"""The rates that docs/speed.md reckons with are printed, one line each."""

from __future__ import annotations

import pytest

from benchmarks.rates import main


def test_a_quick_run_prints_a_table(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(str(tmp_path))
    assert main(["--quick"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert len(lines) == 1 + 6
    assert all(any(character.isdigit() for character in line.split("|")[2]) for line in lines[1:])
