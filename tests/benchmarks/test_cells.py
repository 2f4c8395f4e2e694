"""Layouts take turns with the same cells, the first turn untimed, and every worker is stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import cells
from benchmarks.cells import Layout, in_turns
from benchmarks.harness import Options
from roarline.artifacts.store import Store
from roarline.stages.job import Job

ONE, TWO = Layout("single", 1), Layout("stacked", 2)


class _Fake:
    """Notes what it is asked to make, and by which devices."""

    made: list[tuple[int, int]] = []  # noqa: RUF012
    ended = 0

    def __init__(self, root: Path, devices: list[str], cpu_threads: int | None) -> None:
        assert set(devices) == {"cuda:0"}
        self.root, self.workers = root, len(devices)

    def run(self, jobs: Any, done: set[str], watcher: object) -> None:
        (self.root / cells.STAGE).mkdir(parents=True)
        _Fake.made.append((self.workers, len(jobs)))

    def end(self) -> None:
        _Fake.ended += 1


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[_Fake]:
    monkeypatch.setattr(cells, "_Kept", _Fake)
    monkeypatch.setattr(_Fake, "made", [])
    monkeypatch.setattr(_Fake, "ended", 0)
    return _Fake


def jobs(count: int) -> list[Job]:
    return [Job("evaluate-roar", 1, f"{index}", f"cell {index}", {}, {}) for index in range(count)]


def test_layouts_take_turns_and_the_first_is_not_timed(tmp_path: Path, fake: type[_Fake]) -> None:
    found = in_turns(Store(tmp_path), {ONE: jobs(5), TWO: jobs(5)}, "cuda:0", Options(alternations=3), first=2)
    assert fake.made == [(2, 2), (1, 2), (1, 5), (2, 5), (2, 5), (1, 5), (1, 5), (2, 5)]
    assert {layout: len(seconds) for layout, seconds in found.items()} == {ONE: 3, TWO: 3}
    assert not (tmp_path / cells.STAGE).exists()
    assert fake.ended == 2


def test_workers_are_stopped_where_a_cell_fails(
    tmp_path: Path, fake: type[_Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("diverged")

    monkeypatch.setattr(fake, "run", fail)
    with pytest.raises(RuntimeError, match="diverged"):
        in_turns(Store(tmp_path), {ONE: jobs(2), TWO: jobs(2)}, "cuda:0", Options(quick=True), first=1)
    assert fake.ended == 2
