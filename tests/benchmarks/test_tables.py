"""Measurements are told as a table with notes, and saved with the kind of machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as program
from benchmarks.harness import Measurement, Options
from benchmarks.tables import notes, save, table


def test_results_are_saved_with_kind_of_machine_and_date(tmp_path: Path) -> None:
    result = Measurement("path", "net", "setting", 2, 10, "forward", "", 0.9, [1.0], [0.95])
    saved = json.loads(save([result], Options(), tmp_path).read_text())
    assert saved["measurements"][0]["efficiency"] == 0.95
    assert {"cpu", "cores", "gpu", "torch", "roarline"} <= set(saved["machine"])
    assert "| 0.95 |" in table([result])


def test_a_later_run_replaces_its_own_lines_and_keeps_the_others(tmp_path: Path) -> None:
    def line(setting: str, ours: float) -> Measurement:
        return Measurement("extraction", "net", setting, 1, 1, "forward", "batch 1", 0.9, [ours], [1.0])

    save([line("one", 2.0), line("other", 4.0)], Options(), tmp_path)
    saved = json.loads(save([line("one", 1.0)], Options(), tmp_path).read_text())
    found = {one["setting"]: one["efficiency"] for one in saved["measurements"]}
    assert found == {"one": 1.0, "other": 0.25}


def test_notes_stand_below_the_table_and_say_what_is_missed() -> None:
    plain, good, bad = (
        Measurement("path", "net", name, 1, 1, "", "", None, [1.0], [1.0], note=note, holds=note != "too much")
        for name, note in (("a", ""), ("b", "enough"), ("c", "too much"))
    )
    assert notes([plain]) == ""
    assert notes([plain, good, bad]) == "- path net, b: enough\n- path net, c: too much: MISSED"


@pytest.mark.parametrize(("words", "code"), [([], 1), (["--quick"], 0)])
def test_the_exit_code_is_1_where_only_a_note_is_missed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], code: int
) -> None:
    line = Measurement("path", "net", "all", 1, 1, "", "", 0.9, [1.0], [1.0], note="too much", holds=False)
    module = type("Module", (), {"measure": staticmethod(lambda options: [line])})
    monkeypatch.setitem(sys.modules, "benchmarks.noted", module)
    monkeypatch.setitem(program.HOT_PATHS, "growth", "benchmarks.noted")
    monkeypatch.setattr(program, "keep_freed_memory", lambda: None)
    assert program.main(["growth", "--threads", "1", *words]) == code
    assert "too much: MISSED" in capsys.readouterr().out
