"""What other hosts must see of the artifact folder; a second process of this host stands for one of them."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest
from filelock import FileLock

from roarline.artifacts import shared_storage
from roarline.artifacts.shared_storage import Marker, answer, answered, marked, seen, wait_for_artifacts
from roarline.artifacts.store import Store
from roarline.errors import ArtifactError


def test_a_host_that_sees_the_folder_and_its_locks_leaves_an_answer(tmp_path: Path) -> None:
    with marked(tmp_path) as marker:
        assert not answered(marker, "host", longest_s=0.0)
        assert answer(marker, "host") is None
        assert answered(marker, "host", longest_s=0.0)


def test_another_folder_of_the_same_name_is_found_out(tmp_path: Path) -> None:
    with marked(tmp_path / "here") as marker:
        problem = answer(Marker(tmp_path / "there", marker.name), "host", longest_s=0.1)
    assert problem is not None
    assert "runtime.artifacts must be on storage that every node has at the same path" in problem


def test_locks_that_hold_for_one_host_alone_are_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_storage, "FileLock", lambda path, timeout=-1: FileLock(f"{path}.{timeout}", timeout))
    with marked(tmp_path) as marker:
        problem = answer(marker, "host")
    assert problem is not None
    assert "two hosts would write one artifact" in problem


def test_a_file_system_without_locks_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with marked(tmp_path) as marker:

        def refuse(*_: object, **__: object) -> FileLock:
            raise NotImplementedError("no flock")

        monkeypatch.setattr(shared_storage, "FileLock", refuse)
        assert "can't be locked" in str(answer(marker, "host"))


def test_a_host_that_may_not_write_says_so(tmp_path: Path) -> None:
    with marked(tmp_path) as marker:
        assert "can't be written here" in str(answer(marker, "no such folder/host"))


def test_nothing_is_left_of_a_marker(tmp_path: Path) -> None:
    with marked(tmp_path):
        pass
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_marker_counts_as_a_run_at_work_while_it_is_held(tmp_path: Path) -> None:
    with marked(tmp_path) as marker:
        assert Store(tmp_path).is_running(*marker.lock.stem.rsplit("-", 1))
        assert marker.folder in tmp_path.glob(".work/*/*")  # and what is left of a killed one, gc drops


def test_an_unwritable_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="can't write here"), marked(tmp_path / "file" / "artifacts"):
        pass


def test_what_another_host_makes_is_waited_for(tmp_path: Path) -> None:
    threading.Timer(0.3, (tmp_path / "late").touch).start()
    assert seen(tmp_path / "late", longest_s=10.0)
    assert not seen(tmp_path / "never", longest_s=0.1)


def test_artifacts_are_waited_for_together(store: Store) -> None:
    said: list[str] = []

    def publish() -> None:
        aside = store.root / "aside"
        aside.mkdir(parents=True)
        (aside / "manifest.json").write_text("{}")
        store.path("train-cls", "a" * 64).parent.mkdir()
        shutil.move(aside, store.path("train-cls", "a" * 64))

    threading.Timer(0.3, publish).start()
    wait_for_artifacts(store, [("train-cls", "a" * 64)], longest_s=10.0, on_wait=lambda: said.append("waits"))
    assert store.exists("train-cls", "a" * 64)
    wait_for_artifacts(store, [("train-cls", "a" * 64)], on_wait=lambda: said.append("waits again"))
    wait_for_artifacts(store, [("train-cls", "b" * 64)] * 3, longest_s=0.1)
    assert said == ["waits"]
